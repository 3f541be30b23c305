"""One `.safetensors` file under the names that ComfyUI, A1111 and kohya's trainers read: written."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from equivae.autoencoder.doubt import check_scaling_is_known
from equivae.autoencoder.naming import uncompiled
from equivae.autoencoder.padding import describing_mode
from equivae.errors import InputError, did_you_mean
from equivae.files.families import FAMILIES, families_with
from equivae.files.layouts import LAYOUTS, SingleFileLayout
from equivae.files.provenance import NOTE_KEY, Provenance, ops_beside
from equivae.files.single_file import CONFIG_KEY, PADDING_KEY, is_single_file
from equivae.files.writing import check_output, child, make_folder, write_beside
from equivae.options import check_path, quoted
from equivae.units import is_finite

__all__ = ["check_export", "export_single_file"]

_DTYPES = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "fp16": torch.float16,
    "float16": torch.float16,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
}
_UNTOLD = ("_name_or_path", PADDING_KEY)  # of the config: paths, and what the file notes itself


def export_single_file(
    vae: nn.Module,
    path: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    overwrite: bool = False,
    family: str | None = None,
) -> Path:
    """Write a VAE as the single file that other tools read, under the names of its published weights.

    An `AutoencoderKL` gets LDM's names (`encoder.down.0.block.0...`, the attention as 1x1 convolutions),
    which ComfyUI, A1111 and kohya's trainers read. ComfyUI alone reads the others: an `AutoencoderKLFlux2`,
    the same with the quant convs inside the halves; an `AutoencoderKLWan` or `AutoencoderKLQwenImage` under
    the names of Wan's code; an `AutoencoderTiny` under TAESD's, with `vae_scale` and `vae_shift`.

    `load_vae` gives back the same weights: the file's metadata hold the diffusers config with the padding
    mode, and the transforms that a fine-tune of equivae was for. The tools know the shapes of the published
    models alone and pad by zeros, whatever the VAE was trained with: for another mode there is a warning.

    Where a fine-tune changed the encoder, a warning says that diffusion models of the base do not fit.

    A VAE that was fine-tuned for a fitted latent op has not learned the plain one: there is a warning, and
    the ops are written beside, into `<name>-latent_ops/<op>/`, as ComfyUI's *Load Latent Op* and
    `load_latent_op` take them. That is known of what `finetune` returned, and of its output folder.

    Args:
        vae: of one of these classes of diffusers.
        path: ends in `.safetensors` (or `.sft`).
        dtype: of the weights in the file, `"fp16"`, `"bf16"`, `"fp32"` or a `torch.dtype`; by default that
            of the VAE.
        overwrite: replace what is there.
        family: of an `AutoencoderTiny`: which diffusion models' latents it has, `"sd"`, `"sdxl"`, `"sd3"` or
            `"flux"`. Known without it for the published names, such as `madebyollin/taesdxl`.

    Raises `InputError` for a class that has no such layout, a file that is there already, values that do not
    fit into `dtype`, layers that pad in ways that no mode describes, and scaling factors that nothing tells;
    `WriteError` where the disk is full or read-only.

    ```python
    import equivae

    path = equivae.export_single_file(equivae.zoo.load(), "vae.safetensors", dtype="fp16")
    assert equivae.load_vae(path).config.latent_channels == 4
    ```
    """
    path = check_export(path, dtype, overwrite=overwrite, family=family)
    check_scaling_is_known(vae, "for the config that the file carries")
    known = Provenance.of(vae)
    ops = known.op_files()
    beside = ops_beside(path)
    if ops and beside.exists() and not overwrite:
        raise InputError(f"{beside} already exists; choose another name, or pass overwrite=True.")
    with uncompiled(vae) as plain:
        name, layout = _layout(plain)
        config: Any = dict(plain.config)  # type: ignore[arg-type]
        known = _with_family(known, name, config, family)
        weights = _weights(plain, layout, _dtype(dtype)) | _extras(known, name)
        mode = _padding(plain)
    noted = {k: v for k, v in config.items() if k not in _UNTOLD}
    if mode != "zeros":
        noted[PADDING_KEY] = mode
    metadata = {
        "format": "pt",
        CONFIG_KEY: json.dumps({**noted, "_class_name": name}, default=list),
        PADDING_KEY: mode,
        NOTE_KEY: known.to_json(),
    }
    _warn_of_other_latents(known)
    make_folder(path.parent)
    _write_ops(ops, beside, known.latent_ops)
    write_beside(path, lambda temporary: save_file(weights, temporary, metadata))
    return path


def check_export(
    path: str | Path,
    dtype: str | torch.dtype | None,
    *,
    overwrite: bool = False,
    family: str | None = None,
) -> Path:
    """What of an export can be refused before there is a VAE: where it goes, the dtype, the family."""
    check_path("the exported file", path)
    path = Path(path)
    if not is_single_file(path):
        raise InputError(f"the exported file has to end in .safetensors, got {quoted(path.name)}.")
    check_output("the folder", path.parent)
    if path.is_dir():
        raise InputError(f"the exported file {path} is a folder; choose another name.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} already exists; choose another name, or pass overwrite=True.")
    _dtype(dtype)
    if family is not None and family not in FAMILIES:
        raise InputError(f"family={family!r} is unknown.{did_you_mean(family, FAMILIES)}")
    return path


def _layout(vae: Any) -> tuple[str, SingleFileLayout]:
    """The class of diffusers that it is, or is derived from, and how its files are laid out."""
    kinds = [kind.__name__ for kind in type(vae).__mro__ if kind.__module__.startswith("diffusers")]
    name = next((kind for kind in kinds if kind in LAYOUTS), None)
    if name is None:
        *others, last = LAYOUTS
        raise InputError(
            f"{type(vae).__name__} has no single-file layout that is known here; {', '.join(others)} and "
            f"{last} have. Share the folder that save_pretrained writes."
        )
    blocks = [
        *getattr(vae.config, "down_block_types", ()),
        *getattr(vae.config, "up_block_types", ()),
    ]
    strange = sorted({*blocks} - {"DownEncoderBlock2D", "UpDecoderBlock2D"})
    if strange:
        raise InputError(
            f"this {name} has blocks of kind {strange[0]}, for which the LDM layout has no names; "
            "share the folder that save_pretrained writes."
        )
    return name, LAYOUTS[name]


def _with_family(known: Provenance, name: str, config: Any, family: str | None) -> Provenance:
    """What is known, with the family where the file has to say it: an `AutoencoderTiny`'s."""
    if name != "AutoencoderTiny":
        if family is not None:
            raise InputError(
                f"family={family!r} is for an AutoencoderTiny, and this is an {name}; leave it out."
            )
        return replace(known, family=None)
    channels = config["latent_channels"]
    fitting = [f"family={one!r}" for one in families_with(channels)]
    if not fitting:
        raise InputError(
            f"TAESD's files hold latents of 4 or 16 channels, and this AutoencoderTiny has {channels}; share "
            "the folder that save_pretrained writes."
        )
    chosen = family or known.family
    if chosen not in families_with(channels):
        what = "nothing says which diffusion models' latents this AutoencoderTiny has"
        if chosen is not None:
            what = f"this AutoencoderTiny has {channels} latent channels and the VAE of {chosen!r} has not"
        raise InputError(
            f"{what}, and its file has to hold how they are scaled; pass {' or '.join(fitting)}."
        )
    return replace(known, family=chosen)


def _weights(vae: Any, layout: SingleFileLayout, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The weights under the layout's names, in a dtype that holds them."""
    weights: dict[str, Tensor] = {}
    for name, tensor in vae.state_dict().items():
        wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        moved = tensor.detach().cpu().to(wanted)
        if not is_finite(moved):
            reason = (
                f"does not fit into {moved.dtype}; export as bf16 or fp32"
                if is_finite(tensor)
                else "holds NaN or infinite values; export another checkpoint"
            )
            raise InputError(f"the weight {name} {reason}.")
        # A copy: weights that are tied share their memory, which the file cannot say.
        weights[layout.file_name(name, vae.config)] = layout.stored(name, moved).clone(
            memory_format=torch.contiguous_format
        )
    return weights


def _extras(known: Provenance, name: str) -> dict[str, Tensor]:
    """What TAESD's file holds beside: how the diffusion model's latents are scaled."""
    if name != "AutoencoderTiny" or known.family is None:
        return {}
    numbers = FAMILIES[known.family]
    scale, shift = numbers["scaling_factor"], numbers["shift_factor"] or 0.0
    return {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(shift)}


def _padding(vae: nn.Module) -> str:
    """The mode that the file has to note."""
    mode = describing_mode(vae)
    if mode is None:
        raise InputError(
            "the layers of this VAE pad in ways that no padding_mode describes, so no file can say how; set "
            "one with set_padding_mode first."
        )
    if mode != "zeros":
        warnings.warn(
            f"this VAE pads by {mode!r}: load_vae applies it from the file's metadata, but tools that pad by "
            "zeros will show the difference at the borders.",
            stacklevel=3,
        )
    return mode


def _warn_of_other_latents(known: Provenance) -> None:
    if not known.encoder_trained:
        return
    scaling = known.scaling_factor
    own = "" if scaling is None else f"; these tools use their own scaling factor, not {scaling:g}"
    warnings.warn(
        f"the encoder was fine-tuned: existing checkpoints of diffusion models do not fit{own}.",
        stacklevel=3,
    )


def _write_ops(ops: dict[str, Path], beside: Path, names: tuple[str, ...]) -> None:
    """The latent ops that a fine-tune was for, and what to know of them."""
    for name, file in ops.items():
        content = file.read_bytes()
        folder = child(beside, name)
        make_folder(folder)
        write_beside(folder / file.name, lambda path, c=content: path.write_bytes(c))  # type: ignore[misc]
    if names:
        lost = sorted({*names} - {*ops})
        where = f"they are in {beside}" if ops else "their files are no longer beside it"
        if ops and lost:
            where += f", but for {', '.join(lost)}"
        warnings.warn(
            f"this VAE was fine-tuned for fitted latent ops ({', '.join(names)}): it has not "
            f"learned the plain latent op; apply these, {where}.",
            stacklevel=3,
        )


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in _DTYPES.values()):
        return dtype  # type: ignore[return-value]
    if dtype not in _DTYPES:
        raise InputError(f"dtype={dtype!r} is unknown.{did_you_mean(str(dtype), _DTYPES)}")
    return _DTYPES[dtype]  # type: ignore[index]
