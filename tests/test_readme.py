"""The README's Python runs, top to bottom, and its commands name options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from equivae.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def fences(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = fences("python")
    assert len(blocks) >= 3
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(block, namespace)  # the README is ours
    assert (tmp_path / "out" / "config.json").exists()


def test_the_commands_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shown = " ".join(" ".join(fences("bash")).replace("\\\n", " ").split())
    calls = re.findall(r"equivae (\w+)((?: --\w+(?: [^-\s]\S*)?)*)", shown)
    assert {"finetune", "evaluate"} <= {name for name, _ in calls}
    for name, arguments in calls:
        known = {flag for parameter in commands[name].params for flag in parameter.opts}
        assert set(re.findall(r"--\w+", arguments)) <= known
