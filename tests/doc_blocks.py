"""The code blocks of the README and of the docs, and what can be checked of those that cannot run here."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
import typer.main
from packaging.requirements import Requirement

import equivae
from equivae.training.config import FinetuneConfig, make_config

ROOT = Path(__file__).parents[1]
NOTEBOOK_PAGE = ROOT / "docs" / "sotemix.md"  # its code is the notebook's and runs there
_FENCE = re.compile(
    r"(?:^[ ]*<!-- needs: (?P<needs>[\w ,]+) -->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```[ ]*$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, and what it needs that a test does not have."""

    page: str
    line: int
    language: str
    code: str
    needs: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """The README and every page of the docs."""
    docs = ROOT / "docs"
    written = (p for p in docs.rglob("*.md") if "tools" not in p.relative_to(docs).parts)
    return [ROOT / "README.md", *sorted(written)]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        code = textwrap.dedent(found["code"])
        yield Block(name, line, found["language"], code, found["needs"])


# Python that needs a network or a GPU ------------------------------------------------------------


def check_calls(code: str) -> int:
    """Bind every call of an imported function to its real signature; how many there were."""
    tree = ast.parse(code)
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = importlib.import_module(
                    alias.name
                )
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                names[alias.asname or alias.name] = getattr(module, alias.name)
    checked = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = _resolve(node.func, names)
            if function is not None:
                _bind(function, node)
                checked += 1
    return checked


def _resolve(node: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolve(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return None


def _bind(function: Any, call: ast.Call) -> None:
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
    signature = inspect.signature(function)
    bound = signature.bind(*call.args, **given)
    if function is equivae.finetune:
        options = {k: ast.literal_eval(v) for k, v in bound.arguments.get("options", {}).items()}
        make_config("equivae", options)
    if "transforms" in bound.arguments:
        equivae.resolve_transforms(ast.literal_eval(bound.arguments["transforms"]))


# Commands ----------------------------------------------------------------------------------------


def commands(code: str) -> Iterator[list[str]]:
    """The words of every command of a shell block."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def check_command(words: list[str]) -> None:
    """Parse a command with the parser of the program that it names, without running it."""
    words = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))
    program, *arguments = words
    if program == "srun":
        program, *arguments = itertools.dropwhile(lambda word: word.startswith("--"), arguments)
    if program == "python" and arguments[:1] == ["-m"]:
        program, *arguments = arguments[1:]
    if program == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        assert arguments[0] == "launch"
        parsed = launch_command_parser().parse_args(arguments[1:])
        assert parsed.module, "accelerate launch -m equivae is what the docs show"
        program, arguments = parsed.training_script, parsed.training_script_args
    if program == "torchrun":
        from torch.distributed.run import get_args_parser

        parsed = get_args_parser().parse_args(arguments)
        assert parsed.module, "torchrun -m equivae is what the docs show"
        program, arguments = parsed.training_script, parsed.training_script_args
    if program == "equivae":
        _check_equivae(arguments)
    elif program == "python":
        _check_script(ROOT / arguments[0], arguments[1:])
    elif program == "pip":
        _check_pip(arguments)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets), f"no such target: {arguments}"
    elif program not in ("export", "mkdir", "tar"):
        raise AssertionError(f"the docs show {program!r}, which no test checks")


def _check_equivae(arguments: list[str]) -> None:
    from equivae.cli import app

    group: Any = typer.main.get_command(app)
    name, *rest = arguments
    command = group.commands[name]
    parameters = command.make_context(name, list(rest)).params
    if parameters.get("transforms"):
        equivae.resolve_transforms(equivae.transforms.split_transforms(parameters["transforms"]))
    if name == "finetune":
        fields = FinetuneConfig.__dataclass_fields__
        given = {k: v for k, v in parameters.items() if k in fields and v is not None}
        make_config(parameters["recipe"] or "equivae", given)


def _check_script(path: Path, arguments: list[str]) -> None:
    script = typer.Typer()
    script.command()(load_script(path).main)
    command: Any = typer.main.get_command(script)
    command.make_context(path.name, list(arguments))


def load_script(path: Path) -> ModuleType:
    """A script of the repository as a module, by a name that scripts of other folders do not share."""
    name = f"{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


def _check_pip(arguments: list[str]) -> None:
    from importlib.metadata import metadata

    own = metadata("equivae")
    extras = set(own.get_all("Provides-Extra") or ())
    known = {Requirement(line).name for line in own.get_all("Requires-Dist") or ()}
    if arguments[0] == "freeze":
        assert set(arguments[1:]) <= {"--exclude-editable", ">", "pins.txt"}
        return
    assert arguments[0] == "install"
    words = iter(arguments[1:])
    for word in words:
        if word == "--constraint":
            next(words)
            continue
        if word == "--no-deps":
            continue
        requirement = Requirement(word)
        if requirement.name == "equivae":
            assert requirement.extras <= extras, f"no such extra: {word}"
        else:
            assert requirement.name in known, f"equivae has nothing to do with {word}"
