"""Names that are imported on first use, and what is left of them without the library that does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["attach"]

Lazy = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def attach(name: str, file: str) -> Lazy:
    """`__getattr__`, `__dir__` and `__all__` of a package, by the `.pyi` beside its file.

    Where equivae was installed without its dependencies there are none of these names, and
    `equivae.operators.runtime` is still there.
    """
    try:
        import lazy_loader  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return _nothing(name)
    found: Lazy = lazy_loader.attach_stub(name, file)
    return found


def _nothing(name: str) -> Lazy:
    def missing(attribute: str) -> Any:
        raise AttributeError(
            f"{name}.{attribute} needs what `pip install equivae` brings, and equivae was installed without "
            "it; equivae.operators.runtime applies latent ops without."
        )

    return missing, list, []
