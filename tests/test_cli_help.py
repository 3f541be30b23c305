"""The help at 80 columns, and what the program says when it is asked for nothing."""

from __future__ import annotations

import re

import pytest
import typer

import equivae
from equivae.cli import program

GROUP = typer.main.get_command(program.app)


def shown(monkeypatch, capsys, *words: str, columns: int = 80) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["equivae", *words])
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as ended:
        program.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.mark.parametrize("name", GROUP.commands)
def test_every_option_has_its_whole_name_at_80_columns(name, monkeypatch, capsys):
    code, out, _ = shown(monkeypatch, capsys, name, "--help")
    assert code == 0
    names = set(re.findall(r"[\w-]+", out.replace("--[no_]", " ").replace(" --", " ")))
    assert {p.opts[0].removeprefix("--") for p in GROUP.commands[name].params} <= names
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert not re.search(r"<(str|int|float|path|bool)>", out)


def test_brackets_in_a_help_text_are_shown(monkeypatch, capsys):
    _, out, _ = shown(monkeypatch, capsys, "evaluate", "--help")
    assert "equivae[metrics]" in out


def test_a_flag_shows_the_name_of_its_opposite(monkeypatch, capsys):
    _, out, _ = shown(monkeypatch, capsys, "flip-cache", "--help")
    assert "--scaled/--unscaled" in out


def test_the_options_of_a_fine_tune_stand_under_headings(monkeypatch, capsys):
    _, out, _ = shown(monkeypatch, capsys, "finetune", "--help")
    places = [out.index(f"─ {heading} ─") for heading in ("Model", "Images", "Objective", "Run")]
    assert places == sorted(places)
    assert "--[no_]use_ema" in out


def test_no_command_at_all_says_where_to_begin(monkeypatch, capsys):
    code, out, _ = shown(monkeypatch, capsys)
    assert code == 2
    assert "Run `equivae demo` first" in out
    assert set(GROUP.commands) <= set(re.findall(r"[\w-]+", out))


@pytest.mark.parametrize("command", ["evaluate", "finetune"])
def test_a_command_without_what_it_needs_is_told_in_one_sentence(command, monkeypatch, capsys):
    code, out, err = shown(monkeypatch, capsys, command, columns=200)
    assert (code, out) == (2, "")
    assert f"equivae {command} needs --pretrained_model_name_or_path" in err
    assert len(err.strip().splitlines()) == 1


def test_version(monkeypatch, capsys):
    assert shown(monkeypatch, capsys, "--version")[:2] == (0, f"equivae {equivae.__version__}\n")


def test_shell_completion_knows_the_options(monkeypatch, capsys):
    monkeypatch.setenv("_EQUIVAE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "equivae finetune --learning")
    monkeypatch.setenv("COMP_CWORD", "2")
    _, out, _ = shown(monkeypatch, capsys)
    assert out.split() == ["--learning_rate"]
