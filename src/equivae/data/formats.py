"""Which files are pictures: the formats of Pillow, and of its plugins where they are installed."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path

from PIL import Image

__all__ = ["find_plugins", "is_picture_name", "missing_plugin"]

# suffix: what to install, the module, and what has to be called in it
_PLUGINS = {
    ".heic": ("pillow-heif", "pillow_heif", "register_heif_opener"),
    ".heif": ("pillow-heif", "pillow_heif", "register_heif_opener"),
    ".hif": ("pillow-heif", "pillow_heif", "register_heif_opener"),
    ".jxl": ("pillow-jxl-plugin", "pillow_jxl", None),
    ".avif": ("pillow-avif-plugin", "pillow_avif", None),
}


@lru_cache(maxsize=1)
def find_plugins() -> None:
    """Register the plugins that are installed, once a process."""
    Image.init()
    for suffix, (_, module, register) in _PLUGINS.items():
        if suffix in Image.EXTENSION:
            continue
        try:
            plugin = import_module(module)
        except ImportError:
            continue
        if register is not None:
            getattr(plugin, register)()


def is_picture_name(name: str) -> bool:
    """Whether a file of that name should be a picture, by its suffix."""
    suffix = Path(name).suffix.lower()
    return suffix in _PLUGINS or Image.registered_extensions().get(suffix) in Image.OPEN


def missing_plugin(name: str) -> str | None:
    """The sentence part that names the package which reads such files, where it is not installed."""
    suffix = Path(name).suffix.lower()
    if suffix not in _PLUGINS or Image.registered_extensions().get(suffix) in Image.OPEN:
        return None
    package = _PLUGINS[suffix][0]
    return f"{suffix[1:].upper()} is read by {package}; install it with 'pip install {package}'"
