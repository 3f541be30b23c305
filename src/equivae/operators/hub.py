"""Latent ops from the hub: `"user/repo"`, or a folder in one, `"user/repo/operators/hflip_fitted"`."""

from __future__ import annotations

import re
from pathlib import Path

from equivae.errors import InputError, first_line

__all__ = ["fetch_latent_op"]

_WEIGHTS = "latent_op.safetensors"
_NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?P<folder>(?:/[\w-][\w.-]*)*)$")


def fetch_latent_op(name: str | Path) -> Path:
    """The folder of a latent op: `name` if it is there, else that of the repository, downloaded.

    Only the op's own files are fetched, its weights as safetensors. A repository that holds a fine-tuned VAE
    has its ops below `operators/`; where there are several, the name has to say which.

    Raises `InputError` when the hub does not give it, or holds none or several.
    """
    path = Path(name)
    found = _NAME.match(str(name))
    if path.exists() or found is None:
        return path
    # The hub's client costs half a second, which a local op does not need.
    import huggingface_hub

    inside = found["folder"].strip("/")
    try:
        folder = huggingface_hub.snapshot_download(
            found["repo"], allow_patterns=["latent_op.*", "*/latent_op.*"]
        )
    except Exception as error:
        raise InputError(
            f"there is no latent op in {name} here, and the hub does not give {found['repo']}: "
            f"{first_line(error)}. Check the name, or pass a folder that FittedTransform.save wrote."
        ) from error
    root = Path(folder)
    if inside:
        return root / inside
    ops = [root] if (root / _WEIGHTS).is_file() else sorted(p.parent for p in root.rglob(_WEIGHTS))
    if len(ops) == 1:
        return ops[0]
    if not ops:
        raise InputError(
            f"{found['repo']} on the hub holds no latent op: {_WEIGHTS} is missing in it."
        )
    names = ", ".join(f"{found['repo']}/{p.relative_to(root).as_posix()}" for p in ops)
    raise InputError(f"{found['repo']} on the hub holds several latent ops; pass one of {names}.")
