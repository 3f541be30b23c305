"""A griffe extension: the `.. math::` of docstrings becomes a block of TeX."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

# The directive with its formula on the same line, and the lines that are indented below it.
_DIRECTIVE = re.compile(r"^\.\. math:: *(.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)


class RstMath(Extension):
    """Rewrites docstrings before they are parsed."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _DIRECTIVE.sub(
                lambda found: f"$$\n{' '.join(found[1].split())}\n$$", obj.docstring.value
            )
