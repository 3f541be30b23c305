"""The program: its commands and its exit codes."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.markup import escape

from equivae.cli.compare import compare
from equivae.cli.demo import demo
from equivae.cli.evaluate import evaluate
from equivae.cli.export import export
from equivae.cli.finetune import finetune
from equivae.cli.fit import fit
from equivae.cli.recipes import recipes
from equivae.cli.transforms import transforms
from equivae.errors import InputError, NonFiniteLossError, UploadError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Make any diffusers VAE equivariant: a transform of the latent decodes to that of the image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (demo, finetune, evaluate, compare, fit, export, transforms, recipes):
    app.command()(command)


def main() -> None:
    """Run the command line: 0 when all went well, 2 for input that cannot be used, 1 for a failed run."""
    try:
        app()
    except InputError as error:
        _fail(error, 2)
    except (NonFiniteLossError, UploadError) as error:
        _fail(error, 1)


def _fail(error: Exception, code: int) -> None:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    sys.exit(code)
