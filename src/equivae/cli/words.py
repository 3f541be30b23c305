"""Messages of the library in the words of the command line: `--hub_model_id x`, not `hub_model_id='x'`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["as_options", "options_of", "shortened"]

_OTHER_NAMES = {"config": "model_config_name_or_path", "validation_images": "validation_data_dir"}
_QUOTES = "'\""
_VALUE = r"(?:'[^']*'|\"[^\"]*\"|[\w.+-]*\w)"


def as_options(message: str, options: Mapping[str, Sequence[str]]) -> str:
    """A message in which the options of a command are written as they are typed.

    A name with an underscore, in backticks, before `=` or at the beginning is meant as an option; other
    words that happen to be one, such as "seed", are left alone.

    Args:
        message: what the library says.
        options: of the command, by name: how a flag is typed, and then, if it can be, its opposite; empty
            for an option with a value.
    """
    names = sorted(
        [*options, *(n for n in _OTHER_NAMES if n not in options)], key=len, reverse=True
    )

    def typed(found: re.Match[str]) -> str:
        word, value = found["name"], found["value"]
        name = word if word in options else _OTHER_NAMES[word]
        if name not in options:
            return found[0]
        if value is None:
            meant = "_" in word or found[0].startswith("`") or found.start() == 0
            return f"--{name}" if meant and found[0].count("`") != 1 else found[0]
        if options[name] and value not in ("True", "False"):
            return found[0]  # of Python alone
        if options[name]:
            positive, *negative = options[name]
            return positive if value == "True" else (negative or [f"no {positive}"])[0]
        return f"--{name} {shlex.quote(value.strip(_QUOTES))}"

    words = "|".join(names)
    pattern = rf"(?<![\w./'\"(-])`?(?P<name>{words})(?![\w/(])(?:=(?P<value>{_VALUE}))?`?"
    return re.sub(pattern, typed, message)


def options_of(command: Any) -> dict[str, list[str]]:
    """The options of a command of typer's, as `as_options` takes them."""
    typed = [one for one in command.params if one.opts[0].startswith("--")]
    spellings = {one.name: [one.opts[0], *one.secondary_opts[:1]] for one in typed}
    return {one.name: spellings[one.name] if one.is_flag else [] for one in typed}


def shortened(message: str, most: int = 600) -> str:
    """A message of one line and of bounded length, its endless words cut."""
    line = re.sub(
        r"\S{201,}", lambda word: f"{word[0][:90]}...{word[0][-9:]}", " ".join(message.split())
    )
    return line if len(line) <= most else f"{line[: most - 4]} ..."
