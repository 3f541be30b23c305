"""A griffe extension: a field made by `option(default, help, ...)` is shown with its default alone."""

from __future__ import annotations

from typing import Any

from griffe import Attribute, ExprCall, Extension


class OptionDefaults(Extension):
    """Rewrites the fields before the signatures of their dataclasses are made."""

    def on_attribute_instance(self, *, attr: Attribute, **_: Any) -> None:
        if isinstance(attr.value, ExprCall) and str(attr.value.function) == "option":
            attr.value = attr.value.arguments[0]
