"""Secrets, kept out of whatever is written, logged, uploaded or shown.

A secret is known by the option that carried it, by the environment variable that holds it, by its looks,
or because someone registered it. `redact` puts `***` in its place; every error of ours, every file that
`equivae.files.writing` writes and all that the command line prints goes through it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import zip_longest
from typing import Any, TextIO

__all__ = [
    "HIDDEN",
    "carries_secret",
    "hiding_secrets",
    "redact",
    "redact_arguments",
    "register_arguments",
    "register_secret",
]

HIDDEN = "***"

_NAMES = re.compile(r"(?:^|[-_])(?:token|secret|password|passphrase|api[-_]?key)$", re.IGNORECASE)
_LOOKS = (
    re.compile(r"\bhf_[A-Za-z0-9]{20,}"),  # of the hub
    re.compile(r"(?<=\bBearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"(?<=://)[^\s/@]+(?=@)"),  # user and password of an address
)
_SHORTEST = 6  # what is shorter would hide ordinary words
_registered: set[str] = set()


def carries_secret(name: str) -> bool:
    """Whether an option or an environment variable of that name holds a secret: `hub_token`, `HF_TOKEN`."""
    return _NAMES.search(name) is not None


def register_secret(value: str) -> None:
    """Hide this text from now on, wherever it turns up; what is shorter than six letters is too common."""
    if len(value) >= _SHORTEST:
        _registered.add(value)


def redact(text: str) -> str:
    """The text with `***` in place of every secret.

    ```python
    from equivae.secrets import redact, register_secret

    register_secret("correct horse")
    assert redact("it is correct horse") == "it is ***"
    ```
    """
    for secret in sorted(_known(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for looks in _LOOKS:
        text = looks.sub(HIDDEN, text)
    return text


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """A command's arguments, with `***` after every option that carries a secret."""
    shown: list[str] = []
    hide = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_option = argument.startswith("-")
        if hide and not is_option:
            shown.append(HIDDEN)
        elif is_option and equals and carries_secret(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(redact(argument))
        hide = is_option and not equals and carries_secret(name)
    return shown


def register_arguments(arguments: Sequence[str]) -> None:
    """Register what the options of a command that carry secrets hold."""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = argument.partition("=")
        if argument.startswith("-") and carries_secret(name):
            register_secret(value if equals else following)


@contextmanager
def hiding_secrets() -> Iterator[None]:
    """Print nothing secret to stdout and stderr, whoever prints."""
    with redirect_stdout(_Redacting(sys.stdout)), redirect_stderr(_Redacting(sys.stderr)):  # type: ignore[type-var]
        yield


class _Redacting:
    """A text stream that redacts what is written to it, and is the stream itself for the rest.

    Letters that the stream has no bytes for, as in a file's name that is not UTF-8, are written as escapes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        shown = redact(text).encode(encoding, "backslashreplace").decode(encoding)
        return self._stream.write(shown)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _known() -> set[str]:
    held = {value for name, value in os.environ.items() if carries_secret(name)}
    return _registered | {value for value in held if len(value) >= _SHORTEST}
