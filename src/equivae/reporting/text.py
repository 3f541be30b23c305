"""Names of images, transforms and VAEs in every output: whatever is in them, it stands there as text.

One function for each kind of output. A name may hold bytes that are no UTF-8, line breaks, markup.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "Markdown",
    "any_letters",
    "code",
    "figure_text",
    "file_name",
    "file_names",
    "latex",
    "markdown",
    "readable",
]

_SEPARATORS = ("\u2028", "\u2029")  # lines and paragraphs
_JOINERS = ("\u200c", "\u200d")  # of scripts and of emoji
_LONGEST_LABEL = 32


class Markdown(str):
    """Text that is Markdown already and shall not be escaped."""

    __slots__ = ()


def readable(text: object) -> str:
    r"""One line that every encoding of Unicode takes: what is not a character is spelled as an escape.

    ```python
    from equivae.reporting.text import readable

    assert readable("a\udcff\n.png") == r"a\udcff\n.png"
    assert readable("Größe 5 µm.png") == "Größe 5 µm.png"
    ```
    """
    return "".join(_spelled(c) if _unprintable(c) else c for c in str(text))


def _unprintable(character: str) -> bool:
    if character in _SEPARATORS:
        return True
    return unicodedata.category(character).startswith("C") and character not in _JOINERS


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def markdown(text: object) -> Markdown:
    """Text as Markdown that shows it, also inside a table."""
    if isinstance(text, Markdown):
        return text
    escaped = re.sub(r"[\\`*\[\]<>|$&~]", r"\\\g<0>", readable(text))
    # Inside a word an underscore is only one.
    escaped = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)
    return Markdown(re.sub(r"^([#+=-])(?=[\s#=-]|$)|^(\d+)(?=[.)](?:\s|$))", _not_a_list, escaped))


def _not_a_list(found: re.Match[str]) -> str:
    """At the start of a line, where `#`, `-` and `1.` mean something."""
    return f"\\{found[1]}" if found[1] else f"{found[2]}\\"


def code(text: object, *, in_table: bool = False) -> Markdown:
    """Text as a code span, fenced by more backticks than it holds."""
    shown = readable(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    if shown[:1] in ("`", "") or shown.endswith("`"):
        shown = f" {shown} "
    if in_table:  # the one place where a backslash counts inside a code span
        shown = shown.replace("|", "\\|")
    return Markdown(f"{fence}{shown}{fence}")


_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"∞": r"$\infty$", "<": "$<$", ">": "$>$", "‖": r"$\|$", "⁻¹": "$^{-1}$", "²": "$^2$"},
}


def latex(text: object) -> str:
    """Text as LaTeX that shows it; a minus before a number is one."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in readable(text))
    return re.sub(r"(?<![\w.)-])-(?=[\d.]|\$\\infty)", "$-$", escaped)


def figure_text(text: object) -> str:
    """Text for matplotlib: no mathematics, not hidden from the legend, not longer than fits."""
    shown = readable(text)
    if len(shown) > _LONGEST_LABEL:
        half = _LONGEST_LABEL // 2
        shown = f"{shown[: half - 1]}…{shown[-half:]}"
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


@contextmanager
def any_letters() -> Iterator[None]:
    """Letters that the font of a figure lacks are drawn as boxes, and are no reason to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def file_name(text: str) -> str:
    """What does not belong into a file name or a link becomes `_`."""
    return re.sub(r"[^A-Za-z0-9_.=,-]+", "_", text).strip("_")[:100]


def file_names(texts: list[str]) -> dict[str, str]:
    """File names of several texts, no two of them alike, not even where case does not count."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for text in texts:
        plain = name = file_name(text) or "unnamed"
        count = 1
        while name.casefold() in taken:
            count += 1
            name = f"{plain}_{count}"
        taken.add(name.casefold())
        found[text] = name
    return found
