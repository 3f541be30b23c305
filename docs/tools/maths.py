"""A mkdocs hook: TeX becomes MathML when the site is built, so that pages load no script for it."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex leaves, in its generic form.
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)

_BARS = re.compile(r"<mo(?: [^>]*)?>(&#x0*2225;|&#x0*2016;|∥|‖)</mo>", re.IGNORECASE)


def on_page_content(content: str, **_: Any) -> str:
    """Replace every formula of a page."""
    content = _BLOCK.sub(lambda found: _render(found[1], "block"), content)
    return _INLINE.sub(lambda found: _render(found[1], "inline"), content)


def _render(tex: str, display: str) -> str:
    tex = html.unescape(tex).strip()
    # Norm bars stay as high as a letter: nothing here says how far they would have to stretch.
    formula = _BARS.sub(r'<mo stretchy="false">\1</mo>', convert(tex, display=display))
    label = html.escape(" ".join(tex.split()), quote=True)
    if display == "block":
        return f'<div class="formula" tabindex="0" role="math" aria-label="{label}">{formula}</div>'
    return f'<span class="formula">{formula}</span>'
