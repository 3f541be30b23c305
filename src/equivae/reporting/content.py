"""What every kind of report has: where it came from, JSON types, and a folder that it is saved into."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivae.errors import InputError
from equivae.files.writing import check_output, child, write_beside
from equivae.options import quoted
from equivae.reporting.text import any_letters
from equivae.secrets import redact_arguments
from equivae.units import finite_or_none

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "SCHEMA",
    "UNITS",
    "check_formats",
    "command_line",
    "in_formats",
    "json_types",
    "save_figure",
    "save_files",
    "timestamp",
    "versions",
]

SCHEMA = 3
_FORMATS = ("png", "pdf", "svg")
UNITS = "errors as MSE in [0, 1] units after clamping; PSNR, gap in dB"


def command_line() -> str:
    """The command that this process was started with, without its secrets."""
    program, *arguments = sys.argv or [""]
    return shlex.join([Path(program).name or "python", *redact_arguments(arguments)])


def timestamp() -> str:
    """The time in UTC, to the second, as ISO 8601 writes it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Of Python and of the packages that the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("equivae", "torch", "diffusers", "kornia"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def json_types(value: Any) -> Any:
    """The same of JSON's types; numbers that it does not have become `None`, and no text breaks a parser."""
    if isinstance(value, Mapping):
        return {_unicode(str(key)): json_types(item) for key, item in value.items()}
    if isinstance(value, float):
        return finite_or_none(value)
    if isinstance(value, (int, bool)) or value is None:
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [json_types(item) for item in value]
    return _unicode(str(value))


def _unicode(text: str) -> str:
    """Bytes that are no UTF-8, as a file name may have, spelled as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_formats(name: str, formats: Sequence[str]) -> list[str]:
    """Formats of figures; `InputError` for one that is not known."""
    found = [formats] if isinstance(formats, str) else list(formats)
    for one in found:
        if one not in _FORMATS:
            raise InputError(f"{name} must be some of {', '.join(_FORMATS)}, got {quoted(one)}.")
    return found


def in_formats(figures: Mapping[str, Figure], formats: Sequence[str]) -> dict[str, Figure]:
    """The same figures under the names of every format."""
    return {
        f"{name.removesuffix('.png')}.{kind}": figure
        for name, figure in figures.items()
        for kind in formats
    }


def save_files(
    folder: str | Path,
    texts: Mapping[str, str],
    figures: Mapping[str, Figure],
    *,
    overwrite: bool,
) -> Path:
    """Write texts and figures into a folder, each under a temporary name and renamed, the first text last.

    Raises `InputError` if the first text is there already, unless `overwrite` is set.
    """
    check_output("output folder", folder)
    folder = Path(folder)
    first = next(iter(texts))
    if (folder / first).exists() and not overwrite:
        raise InputError(
            f"{folder} holds a report already; choose another folder, or pass overwrite=True from Python."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save_figure(figure, child(folder, name))
    for name, text in reversed(list(texts.items())):
        write_beside(child(folder, name), lambda path, t=text: _write(path, t))  # type: ignore[misc]
    return folder


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure beside and rename it, in the format of its name; text stays text, and no date."""
    import matplotlib

    kind = path.suffix.removeprefix(".")
    dates: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    fonts = {"pdf.fonttype": 42, "svg.hashsalt": path.stem}
    with any_letters(), matplotlib.rc_context(fonts):
        write_beside(
            path,
            lambda temporary: figure.savefig(temporary, format=kind, metadata=dates.get(kind)),
        )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
