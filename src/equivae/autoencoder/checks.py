"""Whether images, a resolution and a transform suit an autoencoder, before any work starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equivae.autoencoder.geometry import LAYOUTS, Axis, Layout
from equivae.autoencoder.view import Autoencoder
from equivae.errors import InputError, UnplacedError
from equivae.transforms.base import Transform
from equivae.units import is_finite

__all__ = [
    "check_images",
    "check_resolution",
    "check_trainable",
    "check_transforms",
    "layout_of",
    "moves_axis",
    "trainable_halves",
]

_CELLS, _DRAWS = 5, 16
_AXIS_NAMES = {
    "image": ("height", "width"),
    "video": ("time", "height", "width"),
    "audio": ("time",),
}


def layout_of(images: Tensor) -> Layout:
    """`"image"`, `"video"` or `"audio"`, by the tensor's rank; `InputError` for another."""
    for layout, (rank, _) in LAYOUTS.items():
        if images.ndim == rank:
            return layout
    raise InputError(
        "images must be a tensor (B, C, H, W), videos (B, C, T, H, W), audio (B, C, T); got "
        f"{tuple(images.shape)}."
    )


def check_images(images: Tensor, vae: Autoencoder | None = None) -> None:
    """Raise `InputError` unless `images` is a float tensor, finite and in [-1, 1].

    Images are `(B, C, H, W)`, videos `(B, C, T, H, W)`, audio `(B, C, T)`. With a `vae`, rank and
    channels have to be its own and the sides, frames or samples whole latent cells; a video autoencoder
    takes images too, as videos of one frame. Values up to 0.05 outside the range pass, because
    resampling filters overshoot.
    """
    if not isinstance(images, Tensor):
        raise InputError(f"images must be a tensor (B, C, H, W), got {type(images).__name__}.")
    if vae is None:
        layout = layout_of(images)
    else:
        own, (rank, shape) = vae.layout, LAYOUTS[vae.layout]
        if images.ndim != rank and (own, images.ndim) != ("video", 4):
            raise InputError(f"images must be a tensor {shape}, got {tuple(images.shape)}.")
        layout = layout_of(images)
    if not images.is_floating_point():
        raise InputError(
            f"images must be floating point in [-1, 1], got {images.dtype}; for bytes use "
            "images.float().div(127.5).sub(1)."
        )
    if images.numel() == 0:
        raise InputError(f"images of shape {tuple(images.shape)} hold no pixel.")
    low, high = (float(value) for value in images.aminmax())
    if not is_finite([low, high]):
        bad = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise InputError(f"images hold NaN or infinite values, at batch positions {bad[:5]}.")
    if low < -1.05 or high > 1.05:
        raise InputError(
            f"images must lie in [-1, 1], got values from {low:.3g} to {high:.3g}; for [0, 255] use "
            "images.float().div(127.5).sub(1)."
        )
    if vae is None:
        return
    name = type(vae.module).__name__
    if images.shape[1] != vae.image_channels:
        raise InputError(
            f"images have {images.shape[1]} channels, {name} takes {vae.image_channels}."
        )
    axes = vae.geometry.axes
    if vae.layout == "video":
        frames = 1 if layout == "image" else images.shape[2]
        _check_time(axes[0], frames, "frames", name)
        axes = axes[1:]
    elif vae.layout == "audio":
        _check_time(axes[0], images.shape[2], "samples", name)
        return
    height, width = images.shape[-2:]
    if not (axes[0].takes(height) and axes[1].takes(width)):
        fitting = [axis.fitting(side) for axis, side in zip(axes, (height, width), strict=True)]
        wrong = f"do not divide by the VAE's factor {vae.factor}"
        if not (axes[0].even and axes[1].even):
            wrong = f"are none of {name}, which takes {_rule(axes[0])} by {_rule(axes[1])}"
        raise InputError(
            f"images of {height}x{width} pixels {wrong}; crop or resize them, to "
            f"{fitting[0]}x{fitting[1]} for example."
        )


def _check_time(axis: Axis, size: int, what: str, name: str) -> None:
    if axis.takes(size):
        return
    raise InputError(
        f"{name} takes {_rule(axis)} {what}, got {size}; use {axis.fitting(size)}, for example."
    )


def _rule(axis: Axis) -> str:
    return f"{axis.step} k" + ("" if axis.even else f" + {axis.first}")


def check_resolution(resolution: int | None, vae: Autoencoder) -> None:
    """Raise `InputError` unless the resolution divides by the VAE's factor."""
    if resolution is None:
        return
    if vae.layout == "audio":
        raise InputError(f"{type(vae.module).__name__} takes audio, which has no resolution.")
    if resolution < 1 or resolution % vae.factor:
        near = max(1, round(resolution / vae.factor)) * vae.factor
        raise InputError(
            f"resolution {resolution} does not divide by the VAE's factor {vae.factor}; use {near}, "
            "for example."
        )


def check_transforms(
    transforms: Sequence[Transform], layout: Layout, vae: Autoencoder, batch_size: int = 1
) -> None:
    """Raise `InputError` for a transform of another layout or factor, or that moves an uneven axis.

    The first cell of a causal autoencoder's time axis spans one frame and the others several, so that
    no latent of the reversed video is the reversed latent. A transform drawn per sample needs the
    `batch_size` that it was drawn for.
    """
    name = type(vae.module).__name__
    axes = vae.geometry.axes[-len(_AXIS_NAMES[layout]) :]
    for transform in transforms:
        if layout not in transform.layouts:
            raise InputError(
                f"transform {transform.name!r} acts on {' and '.join(transform.layouts)} tensors, not "
                f"on {layout} {LAYOUTS[layout][1]}; set its `layouts` if it does."
            )
        placed = vae.place(transform)
        for place, axis in enumerate(axes):
            if not axis.even and moves_axis(placed, layout, place, axes, batch_size):
                cells = (
                    f"spans {axis.first} and every other {axis.step}"
                    if axis.step
                    else "and the others are no regular tiling"
                )
                raise InputError(
                    f"transform {transform.name!r} moves the {_AXIS_NAMES[layout][place]} axis, on which "
                    f"the first latent cell of {name} {cells}: the moved latent cannot be that of the "
                    "moved input. Choose transforms of the other axes."
                )


def trainable_halves(vae: Autoencoder) -> tuple[str, ...]:
    """Which of `"encoder"` and `"decoder"` have weights that want a gradient and that one reaches.

    ```python
    import equivae
    from equivae.autoencoder import trainable_halves

    vae = equivae.zoo.load()
    assert trainable_halves(equivae.Autoencoder(vae)) == ("encoder", "decoder")
    vae.encoder.requires_grad_(False)
    assert trainable_halves(equivae.Autoencoder(vae)) == ("decoder",)
    ```
    """
    halves = {"encoder": vae.encoder_parameters(), "decoder": vae.decoder_parameters()}
    return tuple(half for half, own in halves.items() if any(p.requires_grad for p in own))


def check_trainable(vae: Autoencoder, train: str = "all") -> None:
    """Raise `InputError` unless gradients reach weights of every half that is to be trained.

    Args:
        vae: whose weights want gradients as they will in training.
        train: `"all"`, `"encoder"` or `"decoder"`.
    """
    found = trainable_halves(vae)
    for half in ("encoder", "decoder") if train == "all" else (train,):
        if half not in found:
            raise InputError(
                f"no gradient reaches a weight of the {half} of {type(vae.module).__name__} that wants one, "
                f"so train={train!r} would leave the {half} as it is; call requires_grad_(True) on its "
                f"weights, look at whether its `{half[:-2]}e` detaches, or train the other half alone."
            )


def moves_axis(
    transform: Transform,
    layout: Layout,
    place: int,
    axes: Sequence[Axis],
    batch_size: int = 1,
) -> bool:
    """Whether values leave their place along one axis: a NaN at its start has to stay there.

    A random transform moves what any of several draws moves.

    Args:
        transform: at the factors of the autoencoder.
        layout: of the tensors that it is for.
        place: which of the layout's axes, `(T, H, W)`, `(H, W)` or `(T,)`.
        axes: those of the autoencoder's geometry.
        batch_size: that a transform drawn per sample was drawn for.
    """
    axes = axes[-len(_AXIS_NAMES[layout]) :]
    marked = torch.zeros(batch_size, 3, *((axis.step or 1) * _CELLS for axis in axes))
    dim = 2 + place
    marked.narrow(dim, 0, 1).fill_(float("nan"))
    for seed in range(_DRAWS):
        drawn = transform.draw(batch_size, torch.Generator().manual_seed(seed))
        try:
            moved = drawn.pixel(marked)
        except UnplacedError:  # it counts in cells of an axis that has no regular ones
            return True
        if moved.shape[dim] != marked.shape[dim]:
            return True
        others = [axis for axis in range(moved.ndim) if axis != dim]
        reached = moved.isnan().any(dim=tuple(others))
        if bool(reached[1:].any()) or not bool(reached[0]):
            return True
        if drawn is transform:
            return False
    return False
