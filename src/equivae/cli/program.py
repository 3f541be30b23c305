"""The program: its commands, its exit codes, and what it says when something is wrong."""

from __future__ import annotations

import io
import sys
import traceback
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from equivae.caches.command import flip_cache
from equivae.cli.compare import compare
from equivae.cli.demo import demo
from equivae.cli.evaluate import evaluate
from equivae.cli.export import export
from equivae.cli.finetune import finetune
from equivae.cli.fit import fit
from equivae.cli.recipes import recipes
from equivae.cli.transforms import transforms
from equivae.cli.words import as_options, shortened
from equivae.errors import (
    InputError,
    NonFiniteLossError,
    RunInterrupted,
    UploadError,
    WriteError,
    first_line,
)
from equivae.secrets import hiding_secrets, register_arguments

__all__ = ["app", "main"]

INPUT, FAILED, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="Make any diffusers VAE equivariant: a transform of the latent decodes to that of the image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (demo, finetune, evaluate, compare, fit, export, transforms, recipes):
    app.command()(command)
app.command("flip-cache")(flip_cache)

_UsageError: Any = typer.BadParameter.__mro__[1]  # of click, or of the copy that typer brings


def main() -> None:
    """Run the command line.

    Exits with 0 when all went well, 2 for input that cannot be used, 1 for a run that failed, and 130 or 143
    when SIGINT or SIGTERM ended it. What is wrong is said in one sentence, and no secret is printed.
    """
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks ends no run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    register_arguments(sys.argv[1:])
    with hiding_secrets():
        code = _run()
    sys.exit(code)


def _run() -> int:
    try:
        return int(app(standalone_mode=False) or 0)
    except _UsageError as error:
        if not error.message:  # no command at all: the help
            error.show()
            return INPUT
        return _fail(error.format_message(), INPUT)
    except InputError as error:
        return _fail(str(error), INPUT)
    except (NonFiniteLossError, UploadError, WriteError) as error:
        return _fail(str(error), FAILED)
    except OSError as error:
        return _fail(_said_by_the_system(error), INPUT)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _interrupted(error)
    except Exception:
        traceback.print_exc()
        return FAILED


def _interrupted(error: BaseException) -> int:
    """130 for SIGINT, 143 for SIGTERM; a run that saved itself says where."""
    cause = error if isinstance(error, RunInterrupted) else error.__cause__
    if isinstance(cause, RunInterrupted):
        return _fail(str(cause), cause.exit_code)
    return _fail("interrupted.", INTERRUPTED)


def _said_by_the_system(error: OSError) -> str:
    if error.strerror is None:
        return f"{first_line(error)}."
    about = f"{error.filename}: " if error.filename is not None else ""
    return f"{about}{error.strerror}."


def _fail(message: str, code: int) -> int:
    message = shortened(as_options(message, _options()))
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    return code


def _options() -> dict[str, bool]:
    """The options of the command that runs, by name: whether it is a flag."""
    group: Any = typer.main.get_command(app)
    running = next((group.commands[word] for word in sys.argv[1:] if word in group.commands), None)
    parameters = [] if running is None else running.params
    typed = [one for one in parameters if one.opts[0].startswith("--")]
    return {one.name: bool(one.is_flag) for one in typed}
