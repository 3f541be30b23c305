"""The program: its commands, its exit codes, and what it says when something is wrong."""

from __future__ import annotations

import functools
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

import equivae
from equivae.autoencoder.doubt import ScalingDoubtWarning
from equivae.cli.compare import compare
from equivae.cli.demo import demo
from equivae.cli.evaluate import evaluate
from equivae.cli.export import export
from equivae.cli.finetune import finetune
from equivae.cli.fit import fit
from equivae.cli.fit_group import fit_group
from equivae.cli.fit_map import fit_map, fit_preview
from equivae.cli.flip_cache import flip_cache
from equivae.cli.help import Command, Commands
from equivae.cli.playground import playground
from equivae.cli.recipes import recipes
from equivae.cli.symmetrize import symmetrize
from equivae.cli.transforms import transforms
from equivae.cli.words import as_options, options_of, shortened
from equivae.errors import (
    InputError,
    LostProcessError,
    NonFiniteLossError,
    RunInterrupted,
    UploadError,
    WriteError,
    first_line,
)
from equivae.processes import process_state
from equivae.secrets import hiding_secrets, register_arguments

__all__ = ["app", "main"]

INPUT, FAILED, INTERRUPTED = 2, 1, 130


class _Interrupted(Exception):
    """Carries an interrupt past typer, which would make it an exit without a word."""

    def __init__(self, error: KeyboardInterrupt) -> None:
        super().__init__(str(error) or "interrupted.")
        self.code, self.is_told = INTERRUPTED, True
        if isinstance(error, RunInterrupted):
            self.code = error.exit_code
            # The launcher sends a signal to all processes, and one sentence is enough.
            self.is_told = process_state().is_main_process


def _passing_interrupts(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(*words: Any, **options: Any) -> None:
        try:
            command(*words, **options)
        except KeyboardInterrupt as error:
            raise _Interrupted(error) from error

    return run


app = typer.Typer(
    cls=Commands,
    help="Make a diffusers VAE equivariant, so that a transform of the latent decodes to the same transform "
    "of the image.",
    epilog="Run `equivae demo` first: it needs no model, no images and no network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    demo,
    playground,
    finetune,
    evaluate,
    compare,
    fit,
    symmetrize,
    export,
    transforms,
    recipes,
):
    app.command(cls=Command)(_passing_interrupts(command))
app.command("flip-cache", cls=Command)(_passing_interrupts(flip_cache))
app.command("fit-group", cls=Command)(_passing_interrupts(fit_group))
app.command("fit-map", cls=Command)(_passing_interrupts(fit_map))
app.command("fit-preview", cls=Command)(_passing_interrupts(fit_preview))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"equivae {equivae.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


_UsageError: Any = typer.BadParameter.__mro__[1]  # of click, or of the copy that typer brings


def main() -> None:
    """Run the command line.

    Exits with 0 when all went well, 2 for input that cannot be used, 1 for a run that failed, and 128 and
    the number of the signal when one stopped it; SIGALRM's stands for max_train_minutes. An error is one
    sentence; no secret is printed.
    """
    register_arguments(sys.argv[1:])
    with hiding_secrets(), _warning_in_words() as kept:
        code = _run()
        for message in kept if code == 0 else ():
            _warn(message)
    sys.exit(code)


def _run() -> int:
    try:
        _check_given(sys.argv[1:])
        return int(app(standalone_mode=False) or 0)
    except _UsageError as error:
        missing = getattr(error, "param", None)
        if not error.message and missing is not None:
            return _fail(_left_out(error.ctx.command_path, missing), INPUT)
        if not error.message:  # no command at all: the help
            error.show()
            return INPUT
        return _fail(_without_pydantic(error.format_message()), INPUT)
    except InputError as error:
        return _fail(str(error), INPUT)
    except (LostProcessError, NonFiniteLossError, UploadError, WriteError) as error:
        return _fail(str(error), FAILED)
    except OSError as error:
        return _fail(_said_by_the_system(error), INPUT)
    except _Interrupted as error:
        return _fail(str(error), error.code) if error.is_told else error.code
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted.", INTERRUPTED)
    except Exception:
        traceback.print_exc()
        return FAILED


@contextmanager
def _warning_in_words() -> Iterator[list[str]]:
    """Say a warning as an error is said: a sentence in the command line's words, not a place in code.

    A guessed scaling is kept for the end: a command that needs it refuses, in the same words.
    """
    usual, kept = warnings.showwarning, list[str]()

    def say(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, UserWarning):
            usual(message, category, *place, **more)
            return
        if not issubclass(category, ScalingDoubtWarning):
            _warn(str(message))
        elif "model_config_name_or_path" in _options():  # else the command does nothing with it
            kept.append(str(message))

    warnings.showwarning = say
    try:
        yield kept
    finally:
        warnings.showwarning = usual


def _warn(message: str) -> None:
    text = shortened(as_options(message, _options()))
    Console(stderr=True).print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)


def _without_pydantic(message: str) -> str:
    """What typer says of a wrong value, without the words of the library that found it."""
    message = message.replace("Value error, ", "")
    return re.sub(r": Input should be (a valid \w+)\b.*", r": it should be \1.", message)


def _left_out(command: str, option: Any) -> str:
    """What to do where an option that a command needs is not given."""
    text = f"{command} needs {option.opts[0]}; `{command} --help` lists its options."
    return f"{text} `equivae demo` needs none."


def _check_given(words: Sequence[str]) -> None:
    """`InputError` for an option whose value is an empty text, as of a shell variable that is not set."""
    for option, following in zip_longest(words, words[1:]):
        name, equals, value = option.partition("=")
        if name.startswith("--") and (value if equals else following) == "":
            raise InputError(f"{name} has an empty value; give it one, or leave the option out.")


def _said_by_the_system(error: OSError) -> str:
    if error.strerror is None:
        return f"{first_line(error)}."
    about = f"{error.filename}: " if error.filename is not None else ""
    return f"{about}{error.strerror}."


def _fail(message: str, code: int) -> int:
    message = shortened(as_options(message, _options()))
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    return code


def _options() -> dict[str, list[str]]:
    """The options of the command that runs, by name: how a flag is typed, and its opposite."""
    group: Any = typer.main.get_command(app)
    running = next((group.commands[word] for word in sys.argv[1:] if word in group.commands), None)
    return {} if running is None else options_of(running)
