"""Writing the file of a latent op."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from equivae.errors import InputError
from equivae.files.writing import check_output, write_beside
from equivae.operators.format import FILE, OLD_HEADER, metadata_of

__all__ = ["SCALING", "check_finite", "write_op"]

SCALING = "none: latents as the VAE's encode returns them, before any scaling factor or shift"
"""What a header says of the latents that an op takes."""


def check_finite(name: str, module: nn.Module) -> None:
    """Raises `InputError` for weights that are NaN or infinite: a fit that diverged."""
    for key, weight in module.state_dict().items():
        if not weight.isfinite().all():
            raise InputError(
                f"the latent op {name!r} holds NaN or infinite values in {key}, so its fit "
                "diverged: check that the VAE encodes these images to finite values, or pass a larger "
                "ridge."
            )


def write_op(folder: str | Path, name: str, module: nn.Module, header: dict[str, Any]) -> Path:
    """Write `latent_op.safetensors` into a folder, which is made; returns the folder.

    Raises `InputError` for weights that are NaN or infinite.
    """
    check_finite(name, module)
    folder = Path(folder)
    check_output("output folder", folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    metadata = metadata_of(header)
    write_beside(folder / FILE, lambda path: save_file(weights, path, metadata))
    # Of an earlier version, which would contradict.
    (folder / OLD_HEADER).unlink(missing_ok=True)
    return folder
