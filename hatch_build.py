"""The package's page: the README, with absolute links once pyproject.toml names the project's address."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)]+)\)")


class ReadmeHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme`, and `urls` where there is an address."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        address = str(self.config.get("address", "")).rstrip("/")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, address)}
        if address:
            metadata["urls"] = {"Source": address, "Issues": f"{address}/issues"}


def absolute(text: str, address: str) -> str:
    """Links and pictures that lead from the repository's root, led from its address."""
    if not address:
        return text
    return RELATIVE.sub(
        lambda found: (
            f"{found[1]}[{found[2]}]({address}/{'raw' if found[1] else 'blob'}/main/{found[3]})"
        ),
        text,
    )
