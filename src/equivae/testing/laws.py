"""The laws of the contract, each as a function that raises `Broken`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.testing.cases import Case, noise
from equivae.testing.errors import Broken
from equivae.transforms import Transform
from equivae.transforms.base import mask_of_cells

__all__ = ["LAWS"]

_RESAMPLING_ERROR = 0.1  # RMS, on smooth waves of RMS 0.5 and period 16 cells


def _both(
    transform: Transform, case: Case, dtype: torch.dtype
) -> Iterator[tuple[str, Any, Tensor]]:
    yield "pixel op", transform.pixel, case.image(dtype)
    yield "latent op", transform.latent, case.latent(dtype)


def _shape(transform: Transform, case: Case) -> None:
    fixed = case.drawn(transform)
    image, latent = fixed.pixel(case.image()), fixed.latent(case.latent())
    for what, result, shape in (
        ("pixel op", image, case.image_shape),
        ("latent op", latent, case.latent_shape),
    ):
        if tuple(result.shape[:2]) != shape[:2] or result.ndim != len(shape):
            raise Broken(f"its {what} returns the shape {tuple(result.shape)} for {shape}")
    expected = tuple(side * case.factor for side in latent.shape[2:])
    if tuple(image.shape[2:]) != expected:
        raise Broken(
            f"its pixel op returns {tuple(image.shape[2:])} where its latent op returns "
            f"{tuple(latent.shape[2:])} cells, which are {expected} pixels at factor {case.factor}"
        )
    size = tuple(latent.shape[-2:])
    if case.layout == "image" and fixed is transform and size[0] != size[1]:
        swapped = size == case.cells[::-1]
        if swapped != transform.swaps_axes and size in (case.cells, case.cells[::-1]):
            raise Broken(
                f"swaps_axes is {transform.swaps_axes} but its ops "
                f"{'exchange' if swapped else 'do not exchange'} height and width"
            )


def _dtype(transform: Transform, case: Case) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for what, op, value in _both(case.drawn(transform), case, dtype):
            result = op(value)
            if result.dtype != dtype:
                raise Broken(f"its {what} turns {dtype} into {result.dtype}")


def _device(transform: Transform, case: Case) -> None:
    # The meta device has no values, but refuses tensors of another device as a GPU does.
    for device in ("cuda", "meta") if torch.cuda.is_available() else ("meta",):
        for what, op, value in _both(case.drawn(transform), case, torch.float32):
            result = op(value.to(device))
            if result.device.type != device:
                raise Broken(f"its {what} moves a tensor from {device} to {result.device.type}")


def _mask(transform: Transform, case: Case) -> None:
    if case.layout != "image":
        return
    fixed, image = case.drawn(transform), case.image()
    mask, moved = fixed.mask(image), fixed.pixel(image)
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise Broken(f"its mask is {mask.dtype}, not bool")
    size = tuple(moved.shape[-2:])
    if tuple(mask.shape) not in (size, (case.batch, 1, *size)):
        raise Broken(
            f"its mask has shape {tuple(mask.shape)}, not {size} or {(case.batch, 1, *size)}"
        )


def _determinism(transform: Transform, case: Case) -> None:
    results = []
    for global_seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            fixed = case.drawn(transform)
            results.append([op(value) for _, op, value in _both(fixed, case, torch.float32)])
    for what, first, second in zip(("pixel op", "latent op"), *results, strict=True):
        if first.shape != second.shape or not torch.equal(first, second):
            raise Broken(f"its {what} gives two results for one input under one seed")


def _gradient(transform: Transform, case: Case) -> None:
    for what, op, value in _both(case.drawn(transform), case, torch.float64):
        value.requires_grad_()
        result = op(value)
        if not result.requires_grad:
            raise Broken(f"no gradient flows through its {what}")
        weight = noise(result.shape, case.seed + 2, torch.float64)
        (gradient,) = torch.autograd.grad((result * weight).sum(), value, allow_unused=True)
        if gradient is None or not gradient.isfinite().all():
            raise Broken(f"the gradient through its {what} is missing or not finite")
        step = 1e-4 * noise(value.shape, case.seed + 3, torch.float64)
        with torch.no_grad():
            change = ((op(value + step) - op(value - step)) * weight).sum() / 2
        expected = (gradient * step).sum()
        scale = (gradient.abs() * step.abs()).sum() + change.abs() + 1e-12
        if abs(change - expected) > 1e-3 * scale:
            raise Broken(f"the gradient through its {what} is not that of its values")


def _inverse(transform: Transform, case: Case) -> None:
    fixed = case.drawn(transform)
    try:
        inverse = fixed.inverse
    except NotImplementedError:
        return
    if fixed.exact:
        image, latent, allowed = case.image(torch.float64), case.latent(torch.float64), 1e-9
    else:
        (image, latent), allowed = case.smooth(fixed.block), _RESAMPLING_ERROR
    for order, there, back in (("", fixed, inverse), (" in the other order", inverse, fixed)):
        mask = None if case.layout == "audio" else (back @ there).mask(image)
        cells = None if mask is None else mask_of_cells(mask, latent.shape[-2:])
        for what, value, name, inside in (
            ("pixel op", image, "pixel", mask),
            ("latent op", latent, "latent", cells),
        ):
            returned = getattr(back, name)(getattr(there, name)(value))
            if returned.shape != value.shape:
                raise Broken(
                    f"its inverse's {what} returns {tuple(returned.shape)}, not {tuple(value.shape)}"
                )
            error = (returned - value).square()
            if inside is not None:
                valid = inside.expand(error.shape[0], 1, *error.shape[-2:])
                valid = (valid[:, :, None] if case.layout == "video" else valid).expand_as(error)
                if not valid.any():
                    continue
                error = error[valid]
            if not error.mean().sqrt() <= allowed:  # false for NaN as well
                raise Broken(
                    f"its inverse does not undo its {what}{order}: an RMS error of "
                    f"{float(error.mean().sqrt()):.3g}"
                )


def _batch_independence(transform: Transform, case: Case) -> None:
    if transform.mixes_samples or case.batch < 2:
        return
    placed = transform.at_factor(case.factor, case.factor)
    fixed = case.drawn(placed)
    if fixed.mixes_samples:
        return
    for what, op, value in _both(fixed, case, torch.float64):
        other = value.clone()
        other[-1] = -other[-1] + 0.5
        if not torch.allclose(op(value)[:-1], op(other)[:-1], rtol=0, atol=1e-12):
            raise Broken(f"its {what} lets one sample of a batch change another")
        if fixed is placed and not torch.allclose(op(value)[:1], op(value[:1]), rtol=0, atol=1e-12):
            raise Broken(f"its {what} does something else to a sample that is alone")


def _factor(transform: Transform, case: Case) -> None:
    """What happens to one latent cell, or to one block of them, happens to its pixels."""
    fixed = case.drawn(transform)
    generator = torch.Generator().manual_seed(case.seed)
    block = fixed.block
    blocks = [side // block for side in case.cells]
    place = [block * int(torch.randint(side, (), generator=generator)) for side in blocks]
    latent = torch.zeros(case.latent_shape, dtype=torch.float64)
    image = torch.zeros(case.image_shape, dtype=torch.float64)
    everything = (slice(None), slice(None))
    latent[everything + tuple(slice(at, at + block) for at in place)] = 1.0
    image[
        everything + tuple(slice(at * case.factor, (at + block) * case.factor) for at in place)
    ] = 1.0
    mask = fixed.mask(image) if case.layout == "image" else None
    moved_latent = _energy(fixed.latent(latent) - fixed.latent(torch.zeros_like(latent)))
    moved_image = _energy(fixed.pixel(image) - fixed.pixel(torch.zeros_like(image)))
    pooled = F.interpolate(moved_image, moved_latent.shape[2:], mode="area")
    inside = torch.ones_like(moved_latent)
    if mask is not None:
        inside = mask_of_cells(mask, moved_latent.shape[-2:]).expand_as(inside)
    for sample in range(case.batch):
        cells, pixels = moved_latent[sample, 0], pooled[sample, 0]
        if not _is_complete(cells, inside[sample, 0]) or not _is_complete(
            pixels, inside[sample, 0]
        ):
            continue
        goal = _middle(pixels)
        agree = (_middle(cells) - goal).abs().max() <= (0.01 if fixed.exact else 1.0)
        if not agree and fixed.exact and cells.max() < 0.99 * cells.sum():
            # A convolution spreads it, perhaps unevenly.
            agree = cells[tuple(goal.round().long())] > 1e-6 * cells.sum()
        if not agree:
            there, here = (_middle(which).round(decimals=1).tolist() for which in (cells, pixels))
            raise Broken(
                f"the latent cell at {place} goes to {there} while its pixels go to {here} (in cells)"
            )


def _energy(tensor: Tensor) -> Tensor:
    return tensor.square().sum(1, keepdim=True)


def _is_complete(energy: Tensor, inside: Tensor) -> bool:
    """Whether the energy is there, and none of it at a place that does not count."""
    total = energy.sum()
    return bool(total > 0.1) and bool((energy * ~inside.bool()).sum() <= 1e-3 * total)


def _middle(energy: Tensor) -> Tensor:
    """The centre of an energy, in cells."""
    axes = [torch.arange(side, dtype=energy.dtype) for side in energy.shape]
    grid = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([(energy * along).sum() / energy.sum() for along in grid])


def _linearity(transform: Transform, case: Case) -> None:
    fixed = case.drawn(transform)
    if not fixed.linear:
        return
    for what, op, value in _both(fixed, case, torch.float64):
        other = noise(value.shape, case.seed + 4, torch.float64)
        expected = 0.3 * op(value) - 1.7 * op(other)
        if not torch.allclose(op(0.3 * value - 1.7 * other), expected, rtol=0, atol=1e-9):
            raise Broken(f"its {what} is not linear, which `linear` says it is")


def _compile(transform: Transform, case: Case) -> None:
    fixed = transform.at_factor(case.factor, case.factor)
    if not transform.exact or fixed.draw(case.batch) is not fixed:
        return
    for what, op, value in _both(fixed, case, torch.float32):
        torch._dynamo.reset()
        compiled: Callable[[Tensor], Tensor] = torch.compile(op, backend="eager", fullgraph=True)
        try:
            result = compiled(value)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Broken(f"torch.compile breaks the graph of its {what} ({reason})") from error
        if not torch.equal(result, op(value)):
            raise Broken(f"its {what} gives another result under torch.compile")


LAWS: dict[str, Callable[[Transform, Case], None]] = {
    "shape": _shape,
    "dtype": _dtype,
    "device": _device,
    "mask": _mask,
    "determinism": _determinism,
    "gradient": _gradient,
    "inverse": _inverse,
    "batch independence": _batch_independence,
    "factor": _factor,
    "linearity": _linearity,
    "compile": _compile,
}
