"""The errors that users meet; each message says what was wrong, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from equivae.secrets import redact

__all__ = [
    "EmptyMaskError",
    "InputError",
    "LostProcessError",
    "NonFiniteLossError",
    "RunInterrupted",
    "UnplacedError",
    "UploadError",
    "WriteError",
    "did_you_mean",
    "first_line",
]


class _WithoutSecrets(Exception):
    """An error whose message quotes others' words, which may hold a token."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*(redact(part) if isinstance(part, str) else part for part in parts))


class InputError(_WithoutSecrets, ValueError):
    """Input that cannot be used, found before any work started. The command line exits with 2."""


class EmptyMaskError(InputError):
    """A validity mask holds nowhere, so there is nothing to compare."""


class UnplacedError(InputError):
    """A transform counts in latent cells, and nobody said how many pixels one spans."""


class NonFiniteLossError(RuntimeError):
    """The training loss became NaN or infinite; `step` is the first step at which it did."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class LostProcessError(RuntimeError):
    """Another process of a run ended, so that this one cannot go on; that one says why."""


class RunInterrupted(KeyboardInterrupt):
    """A signal or the time limit stopped a run, which saved what it had.

    Attributes:
        signal: its number, such as `signal.SIGTERM`; 14, SIGALRM's, for the time limit.
        checkpoint: where the run was saved, or `None` where nothing was trained yet.
        exit_code: what the command line exits with, `128 + signal`.
    """

    def __init__(self, message: str, signal: int, checkpoint: Path | None = None) -> None:
        super().__init__(message)
        self.signal, self.checkpoint = signal, checkpoint

    @property
    def exit_code(self) -> int:
        return 128 + self.signal


class UploadError(_WithoutSecrets, RuntimeError):
    """A finished run could not be uploaded. It is saved on the disk."""


class WriteError(OSError):
    """A file or folder could not be written, as on a full disk. What was there before is untouched."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'hflip'?"` for the nearest of the known words, or all of them when none is near."""
    known = list(known)
    near = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5)
    if near:
        return " Did you mean " + " or ".join(repr(name) for name in near) + "?"
    return " Known: " + ", ".join(known) + "."


def first_line(error: Exception | None) -> str:
    """What another library says in its first line, without the full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
