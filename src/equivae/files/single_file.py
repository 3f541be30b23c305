"""One `.safetensors` file in the LDM layout that ComfyUI, A1111 and kohya's trainers read, both ways."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from equivae.autoencoder.naming import uncompiled
from equivae.autoencoder.padding import get_padding_mode
from equivae.errors import InputError, did_you_mean, first_line
from equivae.files.ldm_config import FAMILIES, PREFIXES, detect_config, family_config
from equivae.files.writing import write_beside
from equivae.units import is_finite

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

__all__ = ["export_single_file", "load_single_file"]

_CONFIG_KEY = "diffusers_config"
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
        path: ends in `.safetensors`.
        dtype: of the weights in the file, `"fp16"`, `"bf16"`, `"fp32"` or a `torch.dtype`; by default that
            of the VAE.
        overwrite: replace a file that is there.

    Raises `InputError` for a class that has no LDM layout, a file that is there already, values that do not
    fit into `dtype`, and layers that pad in ways that no mode describes.

    ```python
    import equivae

    path = equivae.export_single_file(equivae.zoo.load(), "vae.safetensors", dtype="fp16")
    assert equivae.load_vae(path).config.latent_channels == 4
    ```
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"the exported file has to end in .safetensors, got {path.name!r}.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; choose another name or pass overwrite=True.")
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
        _CONFIG_KEY: json.dumps({"_class_name": "AutoencoderKL", **config}, default=list),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
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
        if ".attentions.0.to_" in name and name.endswith("weight"):
            moved = moved[:, :, None, None]
        weights[_ldm_name(name, levels)] = moved.contiguous()
    return weights


def load_single_file(path: Path, options: dict[str, Any]) -> nn.Module:
    """An autoencoder from one `.safetensors` file, without any network; see `load_vae`."""
    import diffusers

    options = dict(options)
    asked = options.pop("config", None)
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    if path.suffix != ".safetensors":
        raise InputError(f"{path} is no .safetensors file, the only kind of weights that is read.")
    given = None if asked is None else _config_asked_for(asked)
    try:
        weights, others, noted = _read(path)
        config = _config(path, weights, others, noted, given)
    except (InputError, SafetensorError, OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} holds no autoencoder in LDM layout that could be read: {first_line(error)}."
        ) from error
    cls: Any = getattr(diffusers, str(config.get("_class_name")), None)
    if not hasattr(cls, "from_single_file"):
        raise InputError(
            f"{config.get('_class_name')} has no single-file layout in diffusers; pass its diffusers folder."
        )
    absent = _absent(weights, config) if cls is diffusers.AutoencoderKL else []
    if absent:
        raise InputError(
            f"{path} lacks {absent[0]}{f' and {len(absent) - 1} other weights' if absent[1:] else ''} of its "
            "autoencoder; pass a whole one, or the config=FOLDER that belongs to it."
        )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            vae: nn.Module = cls.from_single_file(
                weights, config=folder, local_files_only=True, **options
            )
        except Exception as error:
            raise InputError(
                f"{path} does not fit the config of its {config['_class_name']}: {first_line(error)}."
            ) from error
    return vae


def _absent(weights: dict[str, Tensor], config: dict[str, Any]) -> list[str]:
    """The weights that an `AutoencoderKL` of this config has and the file has not."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        model = AutoencoderKL.from_config(config)
    levels = len(model.config.block_out_channels)
    needed = model.state_dict().keys()
    return [
        _ldm_name(n, levels)
        for n in needed
        if n not in weights and _ldm_name(n, levels) not in weights
    ]


def _read(path: Path) -> tuple[dict[str, Tensor], frozenset[str], dict[str, Any] | None]:
    """The VAE's tensors without their prefix, the names of the others, and the config in the metadata."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        prefix = next((p for p in PREFIXES if any(n.startswith(p) for n in names)), "")
        weights = {
            n.removeprefix(prefix): file.get_tensor(n) for n in names if n.startswith(prefix)
        }
        noted = (file.metadata() or {}).get(_CONFIG_KEY)
    others = frozenset(n for n in names if not n.startswith(prefix))
    return weights, others, json.loads(noted) if noted else None


def _config_asked_for(asked: str | Path) -> dict[str, Any] | str:
    """What `config=` names: the content of a `config.json`, or a family of VAEs."""
    folder = Path(asked)
    for candidate in (folder / "vae" / "config.json", folder / "config.json", folder):
        if candidate.is_file():
            return _json(candidate)
    family_config(str(asked))
    return str(asked)


def _config(
    path: Path,
    weights: dict[str, Tensor],
    others: frozenset[str],
    noted: dict[str, Any] | None,
    asked: dict[str, Any] | str | None,
) -> dict[str, Any]:
    """The config asked for, noted in the file, lying beside it, or read off the weights."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if isinstance(asked, dict):
        return asked
    if asked is not None:
        numbers = family_config(asked)
        return {**noted, **numbers} if noted else detect_config(shapes, others, asked)[0]
    if noted is not None:
        return noted
    if (
        "encoder.down_blocks.0.resnets.0.conv1.weight" in weights
    ):  # a diffusers folder's own weights
        beside = path.parent / "config.json"
        if not beside.is_file():
            raise InputError(
                "its weights are in diffusers' layout; pass the folder with config.json"
            )
        return _json(beside)
    config, certain = detect_config(shapes, others)
    if not certain:
        named = [n for n, f in FAMILIES.items() if f["scaling_factor"] == config["scaling_factor"]]
        warnings.warn(
            f"the weights of {path.name} do not say which diffusion models it belongs to; taken as "
            f"{named[0]!r} with scaling_factor {config['scaling_factor']}. Pass config= one of "
            f"{', '.join(map(repr, FAMILIES))} or a folder to say so.",
            stacklevel=4,
        )
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no config of an autoencoder; pass a config.json of diffusers.")
    return content


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


def _ldm_name(name: str, levels: int) -> str:
    """diffusers' name of a weight in LDM's words."""
    for pattern, words in _NAMES:
        name = re.sub(pattern, words, name)
    # LDM numbers the decoder's levels by their resolution, so that the last is applied first.
    return re.sub(r"decoder\.up\.(\d+)", lambda m: f"decoder.up.{levels - 1 - int(m[1])}", name)


_NAMES = [
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)", r"up.\1.block.\2"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
]
