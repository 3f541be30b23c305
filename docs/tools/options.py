"""A mkdocs hook: the name of an option is not broken after its two dashes."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"<code\b.*?</code>", re.DOTALL)
_OPTION = re.compile(r"(?<![\w-])--[a-z]\w*(?![^<]*>)")


def on_page_content(content: str, **_: Any) -> str:
    """Keep every `--option` of a page's code in one line."""
    return _CODE.sub(
        lambda code: _OPTION.sub(r'<span class="option">\g<0></span>', code[0]), content
    )
