"""Caches as trainers write them, and what their loaders make of them, in words of our own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import equivae
from equivae.operators import ConvOperator, FittedTransform

Array = np.ndarray[Any, Any]


def an_op(
    move: str = "hflip", channels: int = 4, seed: int = 0, kernel: int = 3
) -> FittedTransform:
    """A fitted transform with weights of no VAE."""
    generator = torch.Generator().manual_seed(seed)
    operator = ConvOperator(channels, kernel)
    operator.weight.add_(torch.randn(operator.weight.shape, generator=generator), alpha=0.1)
    operator.bias.add_(torch.randn(channels, generator=generator))
    return FittedTransform(equivae.get_transform(move), operator, operator)


def latents(*shape: int, seed: int = 0, std: float = 5.5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * std


def settle(folder: Path) -> None:
    """Make every file a minute old, as those of a cache that nobody writes are."""
    for path in folder.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - 60
            os.utime(path, (then, then))


def kohya(
    folder: Path,
    z: Tensor,
    model: str = "sd",
    image: str = "dog",
    mask: bool = False,
    factor: int = 8,
) -> Path:
    """`<image>_<width>x<height>_<model>.npz` as sd-scripts saves it; sizes in the keys where it has them."""
    height, width = z.shape[-2] * factor, z.shape[-1] * factor
    path = folder / f"{image}_{width:04d}x{height:04d}_{model}.npz"
    size = "" if model in ("sd", "sdxl") else f"_{z.shape[-2]}x{z.shape[-1]}"
    arrays: dict[str, Any] = {}
    if path.exists():
        arrays = dict(np.load(path))
    arrays |= {
        f"latents{size}": z.float().numpy(),
        f"original_size{size}": np.array([width + 3, height + 40]),
        f"crop_ltrb{size}": np.array([1, 20, width + 1, height + 20]),
    }
    if mask:
        arrays[f"alpha_mask{size}"] = np.linspace(0, 1, height * width, dtype=np.float32).reshape(
            height, width
        )
    np.savez(path, **arrays)
    return path


def kohya_loads(path: Path, flip: bool, size: str = "") -> tuple[Array, list[int], Array | None]:
    """Latents, left and top of the crop and mask, as sd-scripts hands them to the training."""
    with np.load(path) as file:
        z = file[f"latents_flipped{size}" if flip else f"latents{size}"]
        left, top, right, _ = file[f"crop_ltrb{size}"].tolist()
        width = z.shape[-1] * 8
        mask = file.get(f"alpha_mask{size}")
        if flip:
            left = width - right
            mask = None if mask is None else mask[:, ::-1].copy()
    return z, [left, top], mask


def members(path: Path) -> dict[str, bytes]:
    """The raw bytes of every array of an `.npz` file."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def shard(folder: Path, z: Tensor, flip: Tensor | None = None, number: int = 0) -> Path:
    """A shard of LightningDiT."""
    path = folder / f"latents_rank00_shard{number:03d}.safetensors"
    tensors = {"latents": z, "labels": torch.arange(len(z))}
    if flip is not None:
        tensors["latents_flip"] = flip
    save_file(tensors, path, metadata={"total_size": f"{len(z)}", "dtype": f"{z.dtype}"})
    return path


def ai_toolkit_facts(image: str, z: Tensor, **more: Any) -> dict[str, Any]:
    return {
        "filename": image,
        "scale_to_width": z.shape[-1] * 8,
        "scale_to_height": z.shape[-2] * 8 + 6,
        "crop_x": 0,
        "crop_y": 3,
        "crop_width": z.shape[-1] * 8,
        "crop_height": z.shape[-2] * 8,
        "latent_space_version": "flux1",
        "latent_version": 1,
        **more,
    }


def ai_toolkit_path(folder: Path, facts: dict[str, Any]) -> Path:
    """Where ai-toolkit looks for the latent of an image, by what it depends on."""
    digest = hashlib.md5(json.dumps(facts, sort_keys=True).encode()).digest()
    code = base64.urlsafe_b64encode(digest).decode().replace("=", "")
    return folder / "_latent_cache" / f"{Path(facts['filename']).stem}_{code}.safetensors"


def ai_toolkit(folder: Path, facts: dict[str, Any], **tensors: Tensor) -> Path:
    path = ai_toolkit_path(folder, facts)
    path.parent.mkdir(exist_ok=True)
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
    software = json.dumps({"name": "ai-toolkit", "version": "0.1"})
    save_file(tensors, path, metadata={**metadata, "software": software, "format": "pt"})
    return path


def read(path: Path) -> dict[str, Tensor]:
    return load_file(path)
