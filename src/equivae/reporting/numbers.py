"""Numbers as text: rounded, never cut, and never a minus before nothing."""

from __future__ import annotations

import math

__all__ = ["fixed", "number", "p_value", "signed"]

_INFINITE = "∞"
_SCALES = {"ms": 1000.0, "1/255": 255.0}
_LARGE = 10_000


def fixed(value: float, digits: int) -> str:
    """Rounded to so many digits behind the point; NaN and infinity as they are read.

    ```python
    from equivae.reporting.numbers import fixed

    assert fixed(-0.001, 2) == "0.00"
    assert fixed(0.0978, 3) == "0.098"
    assert fixed(float("inf"), 2) == "∞"
    ```
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return _INFINITE if value > 0 else f"-{_INFINITE}"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def number(value: float | None, unit: str = "", beside: float | None = None) -> str:
    """A number as the tables show it; nothing for `None`.

    Args:
        value: in the unit that is kept: seconds for `"ms"`, [0, 1] units for `"1/255"`.
        unit: `"dB"`, `"ms"`, `"1/255"`, or `""`.
        beside: the number that it stands beside, as the end of an interval does: it gets as many digits.

    ```python
    from equivae.reporting.numbers import number

    assert [number(x) for x in (0.012345, 0.98765, 23.2481)] == ["0.01235", "0.9877", "23.25"]
    assert number(0, beside=0.4128) == "0.0000"
    ```
    """
    if value is None:
        return ""
    if math.isnan(value):
        return "NaN"
    scale = _SCALES.get(unit, 1.0)
    scaled, guide = value * scale, (value if beside is None else beside) * scale
    if unit == "1/255":
        return f"{fixed(scaled, 2)}/255"
    if unit == "ms":
        return f"{fixed(scaled, _behind_the_point(guide, 3))} ms"
    if unit:
        return f"{fixed(scaled, 2)} {unit}"
    if math.isfinite(guide) and abs(guide) >= _LARGE:
        return f"{scaled:.3g}"
    return fixed(scaled, 5 if abs(guide) < 0.1 else _behind_the_point(guide, 4))


def _behind_the_point(value: float, significant: int) -> int:
    """Digits behind the point of a number that has so many in all."""
    if value == 0:
        return 0
    if not math.isfinite(value):
        return significant
    return max(0, significant - 1 - math.floor(math.log10(abs(value))))


def signed(value: float, unit: str = "") -> str:
    """A difference, with its sign unless it rounds to nothing."""
    text = number(value, unit)
    first = text.split(" ")[0]
    nothing = first in ("NaN",) or set(first) <= set("0.")
    return text if nothing or text.startswith("-") else f"+{text}"


def p_value(p: float) -> str:
    """After `p`: `" = 0.013"`, `" < 0.001"`."""
    return " < 0.001" if p < 0.001 else f" = {fixed(p, 3)}"
