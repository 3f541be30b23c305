"""A latent op at run time, and its file: needs torch and safetensors, nothing of equivae."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .moves import COLOURS, SCALES, Lattice, resolve_move

__all__ = ["Kernel", "LatentOp", "apply_to_latent", "load_op", "save_op"]

_WEIGHTS, _CONFIG = "latent_op.safetensors", "latent_op.json"
_PADDING = {"zeros": "constant", "replicate": "replicate", "reflect": "reflect"}
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Kernel:
    """`W * z + b` over latent cells, and perhaps a small network that corrects it.

    Attributes:
        weight: `(c_out, c_in, *kernel)`.
        bias: `(c_out,)`.
        padding: how cells beyond the border are made up.
        border: `(c_out, 1, *kernel)`, over a channel of ones, which tells where the border is.
        magnitude: `(c_out, c_in, *kernel)`, over `|z|`.
        layers: weights and biases of the network, GELU between them.
    """

    weight: Tensor
    bias: Tensor
    padding: str = "zeros"
    border: Tensor | None = None
    magnitude: Tensor | None = None
    layers: tuple[tuple[Tensor, Tensor], ...] = ()

    def __call__(self, cells: Tensor) -> Tensor:
        weight, given = self.weight, cells
        if self.border is not None:
            weight = torch.cat([weight, self.border.to(weight)], 1)
            given = torch.cat([cells, torch.ones_like(cells[:, :1])], 1)
        made = _convolve(given, weight, self.bias, self.padding)
        if self.magnitude is not None:
            nothing = torch.zeros_like(self.bias)
            made = made + _convolve(cells.abs(), self.magnitude, nothing, self.padding)
        if not self.layers:
            return made
        correction = cells
        for i, (weight, bias) in enumerate(self.layers):
            correction = _convolve(F.gelu(correction) if i else cells, weight, bias, self.padding)
        return made + correction


def _convolve(cells: Tensor, weight: Tensor, bias: Tensor, padding: str) -> Tensor:
    margins = [side // 2 for side in reversed(weight.shape[2:]) for _ in range(2)]
    padded = F.pad(cells, margins, mode=_PADDING[padding]) if any(margins) else cells
    return _CONVOLUTIONS[weight.ndim - 2](padded, weight.to(cells), bias.to(cells))


@dataclass(frozen=True)
class LatentOp:
    """What stands on latents for a flip, a turn, a scaling or a change of colour.

    Attributes:
        name: of the move, the scaling or the colours.
        channels: of the latents that it takes.
        kernel: the fitted part; `None` for a plain one.
        inverse_kernel: that of the way back.
        report: how it was fitted, for people.
        vae: what its file says of its VAE: class, factor, channels, and what its encoder makes of a picture.
    """

    name: str
    channels: int | None = None
    kernel: Kernel | None = None
    inverse_kernel: Kernel | None = None
    report: str = field(default="", compare=False)
    vae: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def inverse(self) -> LatentOp:
        """The op that undoes it."""
        if self.name in SCALES or self.name in COLOURS:
            raise ValueError(
                f"{self.name} loses something, so that there is no latent op that undoes it."
            )
        if self.kernel is not None and self.inverse_kernel is None:
            raise ValueError(
                f"The latent op for {self.name} was saved without its inverse; fit it again."
            )
        name = resolve_move(self.name).inverse.name
        return replace(self, name=name, kernel=self.inverse_kernel, inverse_kernel=self.kernel)

    def move(self, cells: Tensor) -> Tensor:
        """Where cells go, before the kernel: `(B, c, h, w)`."""
        if self.name in COLOURS:
            return cells
        if self.name == "scale 0.5":  # the four phases of every pair of cells become channels
            height, width = (side // 2 * 2 for side in cells.shape[-2:])
            return F.pixel_unshuffle(cells[..., :height, :width], 2)
        if self.name == "scale 2":
            return cells
        return resolve_move(self.name)(cells)

    def finish(self, cells: Tensor) -> Tensor:
        """What becomes of the kernel's output."""
        return F.pixel_shuffle(cells, 2) if self.name == "scale 2" else cells

    def __call__(self, samples: Tensor) -> Tensor:
        """Latents `(B, c, h, w)` or `(B, c, t, h, w)`, unscaled as ComfyUI has them, in their dtype."""
        if samples.ndim not in (4, 5):
            raise ValueError(
                "Latent ops take image latents (B, c, h, w) and video latents (B, c, t, h, w), got "
                f"{tuple(samples.shape)}."
            )
        if self.channels is not None and samples.shape[1] != self.channels:
            raise ValueError(
                f"The latent op is for {self.channels} channels and the latent has {samples.shape[1]}: it "
                "was fitted for "
                "another VAE. Fit one with the VAE of this workflow."
            )
        cells = samples.float()
        frames = cells.ndim == 5 and (self.kernel is None or self.kernel.weight.ndim == 4)
        if frames:  # an op of images moves a video frame by frame
            batch, cells = len(cells), cells.transpose(1, 2).flatten(0, 1)
        cells = self.move(cells)
        cells = self.plain(cells) if self.kernel is None else self.kernel(cells)
        cells = self.finish(cells)
        if frames:
            cells = cells.reshape(batch, -1, *cells.shape[1:]).transpose(1, 2)
        return cells.to(samples.dtype).contiguous()

    def plain(self, cells: Tensor) -> Tensor:
        """In place of a kernel: the mean of the four cells, four equal ones, or what there is."""
        if self.name == "scale 0.5":
            return cells.unflatten(1, (-1, 4)).mean(2)
        return cells.repeat_interleave(4, 1) if self.name == "scale 2" else cells


def apply_to_latent(latent: dict[str, Any], op: LatentOp) -> dict[str, Any]:
    """A LATENT with its samples and its mask moved, everything else as it is."""
    samples = latent["samples"]
    if not isinstance(samples, Tensor):
        raise ValueError(f"Latent ops take one tensor of latents, got {type(samples).__name__}.")
    moved = {**latent, "samples": op(samples)}
    mask = latent.get("noise_mask")
    if mask is not None and op.name not in SCALES and op.name not in COLOURS:
        # ComfyUI resizes a mask to the latent, so that a scaling leaves it as it is.
        moved["noise_mask"] = resolve_move(op.name)(mask).contiguous()
    return moved


# The file ---------------------------------------------------------------------------------------------


def load_op(path: str | Path) -> LatentOp:
    """The op in a folder that equivae's `FittedTransform.save`, `equivae fit` or Fit Latent Op wrote.

    Args:
        path: the folder, or the `latent_op.safetensors` in it.

    Raises `ValueError`, in a sentence, when there is none that these nodes can apply.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    weights = folder / _WEIGHTS if path.is_dir() else path
    if not weights.is_file():
        raise ValueError(
            f"{path} holds no latent op: {_WEIGHTS} is missing. Pass a folder that `equivae fit` wrote."
        )
    config = _config(folder, weights)
    tensors = load_file(weights)
    operators = config["operators"]
    kernels = {key: _kernel(key, operators[key], tensors) for key in operators}
    forward = kernels["forward_operator"]
    inverse = {"same": forward, "own": kernels.get("inverse_operator"), "none": None}
    name = config["transform"]
    if name not in SCALES and name not in COLOURS:
        move = config.get("move")
        name = resolve_move(name).name if move is None else Lattice(**move).name
    text = str(config.get("name", name))
    inverse_kernel, vae = inverse[config["inverse"]], config.get("vae")
    return LatentOp(name, forward.weight.shape[1], forward, inverse_kernel, text, vae)


def _config(folder: Path, weights: Path) -> dict[str, Any]:
    """The description: in the metadata of the weights, or in a file beside them, as version 0.1 wrote it."""
    with safe_open(weights, "pt") as file:
        found = (file.metadata() or {}).get("equivae")
    if found is not None:
        config, version = json.loads(found), ("version", 2)
    elif (folder / _CONFIG).is_file():
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        version = ("schema", 1)
    else:
        raise ValueError(f"{weights} does not say what it is for; it was not written by equivae.")
    missing = [key for key in ("transform", "operators", "inverse") if key not in config]
    key, newest = version
    if config.get(key) != newest or missing:
        raise ValueError(
            f"{folder} was written by another version of equivae ({key} {config.get(key)!r}); update "
            "these nodes."
        )
    return config


def _kernel(key: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> Kernel:
    kind = config.get("kind")
    base, settings, count = key, config, 0
    if kind == "network":
        base, settings, count = f"{key}.base", config.get("base") or config, config["layers"]
    padding = settings.get("padding")
    if (
        kind not in ("conv", "network")
        or settings.get("kind") == "phases"
        or padding not in _PADDING
    ):
        raise ValueError(
            f"The latent op is of a kind that these nodes cannot apply ({kind!r}); fit one with the node "
            "Fit Latent Op."
        )
    try:
        layers = tuple(
            (tensors[f"{key}.network.{i}.weight"], tensors[f"{key}.network.{i}.bias"])
            for i in range(count)
        )
        weight, bias = tensors[f"{base}.weight"], tensors[f"{base}.bias"]
    except KeyError as error:
        raise ValueError(
            f"The latent op's weights do not fit its description: {error} is missing."
        ) from error
    border, magnitude = (tensors.get(f"{base}.{n}_weight") for n in ("border", "magnitude"))
    return Kernel(weight, bias, padding, border, magnitude, layers)


def save_op(op: LatentOp, folder: Path) -> Path:
    """Write a fitted op. Flips and turns are read by equivae too, the others by these nodes."""
    if op.kernel is None:
        raise ValueError("A plain latent op has nothing to save.")
    folder.mkdir(parents=True, exist_ok=True)
    kernels = {"forward_operator": op.kernel}
    if op.inverse_kernel is not None and op.inverse_kernel is not op.kernel:
        kernels["inverse_operator"] = op.inverse_kernel
    same = "same" if op.inverse_kernel is op.kernel else "own"
    content = {
        "schema": 1,
        "name": f"{op.name.replace(' ', '_').replace('.', '_')}_fitted",
        "transform": op.name,
        "operators": {key: _describe(kernel) for key, kernel in kernels.items()},
        "inverse": "none" if op.inverse_kernel is None else same,
        "report": None,
        "vae": op.vae,
    }
    tensors = {}
    for key, kernel in kernels.items():
        tensors[f"{key}.weight"] = kernel.weight.contiguous()
        tensors[f"{key}.bias"] = kernel.bias.contiguous()
    partial = folder / f".{_WEIGHTS}.partial"
    save_file(tensors, partial)
    partial.replace(folder / _WEIGHTS)
    partial = folder / f".{_CONFIG}.partial"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / _CONFIG)
    return folder


def _describe(kernel: Kernel) -> dict[str, Any]:
    sides = list(kernel.weight.shape[2:])
    return {
        "kind": "conv",
        "channels": kernel.weight.shape[1],
        "kernel_size": sides[0] if sides == [sides[0]] * 2 else sides,
        "padding": kernel.padding,
    }
