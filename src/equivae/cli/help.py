"""How the command line shows its help: options under headings, with their whole names at 80 columns."""

from __future__ import annotations

import dataclasses
from typing import Any

import typer.core
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from equivae.options import Options
from equivae.training.options import (
    HubOptions,
    ImageOptions,
    ObjectiveOptions,
    OptimisationOptions,
    RunOptions,
)

__all__ = ["Command", "Commands"]

_WIDEST = 100
_MODEL = (
    "models",
    "pretrained_model_name_or_path",
    "subfolder",
    "variant",
    "revision",
    "model_config_name_or_path",
    "baseline",
)
_IMAGES = (
    "image",
    "train_data_dir",
    "data_dir",
    "dataset_name",
    "validation_data_dir",
    "max_samples",
    "resolution",
    "image_column",
    "split",
    "background",
    "validation_split",
)
_GROUPS: dict[type[Options], str] = {
    ImageOptions: "Images",
    ObjectiveOptions: "Objective",
    OptimisationOptions: "Optimisation",
    RunOptions: "Run",
    HubOptions: "Hub",
}
_OUTPUT = ("output_dir", "output_file", "overwrite")


class Command(typer.core.TyperCommand):
    """A command whose help has one block for each group of its options."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        parts: list[Any] = [_usage(ctx), _described(self.help)]
        grouped = _grouped(self.get_params(ctx), of_a_finetune=self.name == "finetune")
        for heading, options in grouped.items():
            rows = [(_names(one), _explained(one)) for one in options]
            parts.append(Panel(_table(rows), title=heading, title_align="left", border_style="dim"))
        _print(parts)


class Commands(typer.core.TyperGroup):
    """The program, whose help lists the commands and says with which one to begin."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, Text(_first_sentence(one.help))) for name, one in commands if one]
        options = [(_names(one), _explained(one)) for one in self.get_params(ctx)]
        panels = [
            Panel(_table(found), title=heading, title_align="left", border_style="dim")
            for heading, found in (("Commands", rows), ("Options", options))
        ]
        _print([_usage(ctx), _described(self.help), *panels, _described(self.epilog)])


def _print(parts: list[Any]) -> None:
    console = Console()
    console.print(Group(*parts), width=min(console.width, _WIDEST))


def _usage(ctx: Any) -> Text:
    pieces = " ".join(ctx.command.collect_usage_pieces(ctx))
    return Text.assemble("\n", ("Usage: ", "bold"), f"{ctx.command_path} {pieces}")


def _described(text: str | None) -> Padding:
    return Padding(Text(" ".join((text or "").split())), (1, 0))


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _table(rows: list[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(ratio=1)
    for name, text in rows:
        table.add_row(Text(name), text)
    return table


def _grouped(options: list[Any], *, of_a_finetune: bool) -> dict[str, list[Any]]:
    """The options by heading, in the order in which the headings are met."""
    found: dict[str, list[Any]] = {}
    for one in options:
        found.setdefault(_heading(one.name, of_a_finetune), []).append(one)
    order = ["Model", "Images", "Output"]
    last = found.pop("Help", [])
    first = {heading: found.pop(heading) for heading in order if heading in found}
    return {**first, **found, "Help": last}


def _heading(name: str, of_a_finetune: bool) -> str:
    if name == "help":
        return "Help"
    for heading, names in (("Model", _MODEL), ("Images", _IMAGES), ("Output", _OUTPUT)):
        if name in names:
            return heading
    for group, heading in _GROUPS.items() if of_a_finetune else ():
        if name in {one.name for one in dataclasses.fields(group)}:
            return heading
    return "Options"


def _names(option: Any) -> str:
    """`--resolution`; `--[no_]use_ema` or `--scaled/--unscaled` for a flag that can be given both ways."""
    if option.secondary_opts:
        name, opposite = option.opts[0], option.secondary_opts[0]
        short = opposite.removeprefix("--no_") == name.removeprefix("--")
        return f"--[no_]{name.removeprefix('--')}" if short else f"{name}/{opposite}"
    return ", ".join(option.opts)


def _explained(option: Any) -> Text:
    text = Text(" ".join((option.help or "").split()))
    default = option.show_default if isinstance(option.show_default, str) else option.default
    if option.required:
        text.append(" [required]", style="red")
    elif option.show_default and default not in (None, False, (), []):
        text.append(f" [default: {default}]", style="dim")
    return text
