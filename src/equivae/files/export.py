"""One `.safetensors` file in the LDM layout that ComfyUI, A1111 and kohya's trainers read: written."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from equivae.autoencoder.naming import uncompiled
from equivae.autoencoder.padding import get_padding_mode
from equivae.errors import InputError, did_you_mean
from equivae.files.ldm_names import is_attention_weight, ldm_name
from equivae.files.single_file import CONFIG_KEY, is_single_file
from equivae.files.writing import check_output, make_folder, write_beside
from equivae.options import check_path, quoted
from equivae.units import is_finite

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

__all__ = ["check_export", "export_single_file"]

_DTYPES = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "fp16": torch.float16,
    "float16": torch.float16,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
}


def export_single_file(
    vae: nn.Module,
    path: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an `AutoencoderKL` as the single LDM-style file that other tools read.

    `encoder.down.0.block.0...`, `decoder.up.3.block.0...`, `quant_conv...`: no prefix, the attention as 1x1
    convolutions. diffusers' `AutoencoderKL.from_single_file` and `load_vae` bring back the very weights; the
    diffusers config lies in the file's metadata, which `load_vae` reads. ComfyUI, A1111 and kohya's trainers
    know the layouts of the published models alone and pad by zeros, whatever the VAE was trained with: for
    another mode there is a warning.

    Args:
        vae: a diffusers `AutoencoderKL`.
        path: ends in `.safetensors` (or `.sft`).
        dtype: of the weights in the file, `"fp16"`, `"bf16"`, `"fp32"` or a `torch.dtype`; by default that
            of the VAE.
        overwrite: replace a file that is there.

    Raises `InputError` for a class that has no LDM layout, a file that is there already, values that do not
    fit into `dtype`, and layers that pad in ways that no mode describes; `WriteError` where the
    disk is full or read-only.

    ```python
    import equivae

    path = equivae.export_single_file(equivae.zoo.load(), "vae.safetensors", dtype="fp16")
    assert equivae.load_vae(path).config.latent_channels == 4
    ```
    """
    path = check_export(path, dtype, overwrite=overwrite)
    wanted = _dtype(dtype)
    with uncompiled(vae) as plain:
        kl = _require_ldm(plain)
        weights = _ldm_weights(kl, wanted)
    mode = get_padding_mode(kl)
    if mode == "mixed":
        raise InputError(
            "the layers of this VAE pad in ways that no padding_mode describes, so no file can say how; set "
            "one with set_padding_mode first."
        )
    if mode != "zeros":
        warnings.warn(
            f"this VAE pads by {mode!r}: load_vae applies it from the file's metadata, but tools that pad by "
            "zeros will show the difference at the borders.",
            stacklevel=2,
        )
    config = {
        k: v for k, v in dict(kl.config).items() if k not in ("_name_or_path", "padding_mode")
    }
    if mode != "zeros":
        config["padding_mode"] = mode
    metadata = {
        "format": "pt",
        CONFIG_KEY: json.dumps({"_class_name": "AutoencoderKL", **config}, default=list),
    }
    make_folder(path.parent)
    write_beside(path, lambda temporary: save_file(weights, temporary, metadata))
    return path


def _ldm_weights(kl: AutoencoderKL, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The weights under LDM's names, in a dtype that holds them."""
    levels = len(kl.config.block_out_channels)
    weights: dict[str, Tensor] = {}
    for name, tensor in kl.state_dict().items():
        moved = tensor.detach().cpu().to(dtype or tensor.dtype)
        if not is_finite(moved):
            reason = (
                f"does not fit into {moved.dtype}; export as bf16 or fp32"
                if is_finite(tensor)
                else "holds NaN or infinite values; export another checkpoint"
            )
            raise InputError(f"the weight {name} {reason}.")
        if is_attention_weight(name):
            moved = moved[:, :, None, None]
        # A copy: weights that are tied share their memory, which the file cannot say.
        weights[ldm_name(name, levels)] = moved.clone(memory_format=torch.contiguous_format)
    return weights


def check_export(
    path: str | Path, dtype: str | torch.dtype | None, *, overwrite: bool = False
) -> Path:
    """What of an export can be refused before there is a VAE: where it goes, and the dtype."""
    check_path("the exported file", path)
    path = Path(path)
    if not is_single_file(path):
        raise InputError(f"the exported file has to end in .safetensors, got {quoted(path.name)}.")
    check_output("the folder", path.parent)
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; choose another name, or pass overwrite=True.")
    _dtype(dtype)
    return path


def _require_ldm(vae: nn.Module) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    if not isinstance(vae, AutoencoderKL):
        raise InputError(
            f"{type(vae).__name__} has no LDM layout; only AutoencoderKL can be exported to a single file. "
            "Other classes are shared as the folder that save_pretrained writes."
        )
    kinds = {*vae.config.down_block_types, *vae.config.up_block_types}
    strange = sorted(kinds - {"DownEncoderBlock2D", "UpDecoderBlock2D"})
    if strange:
        raise InputError(
            f"this AutoencoderKL has blocks of kind {strange[0]}, for which the LDM layout has no names; "
            "share the folder that save_pretrained writes."
        )
    return vae


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in _DTYPES.values()):
        return dtype  # type: ignore[return-value]
    if dtype not in _DTYPES:
        raise InputError(f"dtype={dtype!r} is unknown.{did_you_mean(str(dtype), _DTYPES)}")
    return _DTYPES[dtype]  # type: ignore[index]
