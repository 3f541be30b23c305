"""The contract that every transform keeps, as functions to call: `check_transform`, `check_group`.

They search for an input that breaks a law and shrink it with hypothesis, which is no dependency of the
library: `pip install hypothesis`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.errors import InputError, did_you_mean
from equivae.transforms import RandomTransform, Transform, get_transform
from equivae.transforms.base import mask_of_cells

__all__ = ["LAWS", "Case", "ContractError", "check_group", "check_transform"]

_NOUNS = {"image": "images", "video": "videos", "audio": "audio clips"}
_SMOOTH_CELLS = 16  # along an axis, where interpolated results are compared
_RESAMPLING_ERROR = 0.1  # RMS, on smooth waves of RMS 0.5 and period 16 cells


class ContractError(AssertionError):
    """A transform breaks a law; the message says which, how, and on what input.

    Attributes:
        law: the name of the law, one of `LAWS`.
    """

    def __init__(self, message: str, law: str) -> None:
        super().__init__(message)
        self.law = law


class _Broken(Exception):
    """How a law is broken, in words that follow the name of the law."""


@dataclass(frozen=True)
class Case:
    """One input: its layout, its size in latent cells, and the seed of its values and of the draw."""

    layout: str
    batch: int
    cells: tuple[int, ...]
    seed: int
    factor: int
    image_channels: int
    latent_channels: int

    def __str__(self) -> str:
        pixels = "x".join(map(str, self.image_shape[1:]))
        cells = "x".join(map(str, self.latent_shape[1:]))
        noun = _NOUNS[self.layout] if self.batch > 1 else _NOUNS[self.layout][:-1]
        return f"{self.batch} {noun} of {pixels} (latents {cells}), seed {self.seed}"

    @property
    def image_shape(self) -> tuple[int, ...]:
        sides = (cells * self.factor for cells in self.cells)
        return (self.batch, self.image_channels, *sides)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.batch, self.latent_channels, *self.cells)

    def image(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return _noise(self.image_shape, self.seed, dtype)

    def latent(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return _noise(self.latent_shape, self.seed + 1, dtype)

    def smooth(self) -> tuple[Tensor, Tensor]:
        """Waves on `_SMOOTH_CELLS` squared cells: the image, and a latent on its own grid."""
        frames = (2,) if self.layout == "video" else ()
        pixels, cells = self.image_shape[:2] + frames, self.latent_shape[:2] + frames
        side = _SMOOTH_CELLS * self.factor
        return _waves(pixels, side, self.seed), _waves(cells, _SMOOTH_CELLS, self.seed)

    def drawn(self, transform: Transform) -> Transform:
        generator = torch.Generator().manual_seed(self.seed)
        return transform.at_factor(self.factor, self.factor).draw(self.batch, generator)


def _noise(shape: Sequence[int], seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).mul(2).sub(1).to(dtype)


def _waves(leading: Sequence[int], side: int, seed: int) -> Tensor:
    """`(*leading, side, side)`: the mean of a vertical and a horizontal wave of one period."""
    phase = _noise((2, *leading), seed, torch.float64)[..., None] * torch.pi
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 * torch.pi
    y, x = torch.cos(centres + phase[0]), torch.cos(centres + phase[1])
    return (y[..., :, None] + x[..., None, :]) / 2


# The laws ---------------------------------------------------------------------------------------


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
            raise _Broken(f"its {what} returns the shape {tuple(result.shape)} for {shape}")
    expected = tuple(side * case.factor for side in latent.shape[2:])
    if tuple(image.shape[2:]) != expected:
        raise _Broken(
            f"its pixel op returns {tuple(image.shape[2:])} where its latent op returns "
            f"{tuple(latent.shape[2:])} cells, which are {expected} pixels at factor {case.factor}"
        )
    size = tuple(latent.shape[-2:])
    if case.layout == "image" and fixed is transform and size[0] != size[1]:
        swapped = size == case.cells[::-1]
        if swapped != transform.swaps_axes and size in (case.cells, case.cells[::-1]):
            raise _Broken(
                f"swaps_axes is {transform.swaps_axes} but its ops "
                f"{'exchange' if swapped else 'do not exchange'} height and width"
            )


def _dtype(transform: Transform, case: Case) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for what, op, value in _both(case.drawn(transform), case, dtype):
            result = op(value)
            if result.dtype != dtype:
                raise _Broken(f"its {what} turns {dtype} into {result.dtype}")


def _device(transform: Transform, case: Case) -> None:
    # The meta device has no values, but refuses tensors of another device as a GPU does.
    for device in ("cuda", "meta") if torch.cuda.is_available() else ("meta",):
        for what, op, value in _both(case.drawn(transform), case, torch.float32):
            result = op(value.to(device))
            if result.device.type != device:
                raise _Broken(f"its {what} moves a tensor from {device} to {result.device.type}")


def _mask(transform: Transform, case: Case) -> None:
    if case.layout != "image":
        return
    fixed, image = case.drawn(transform), case.image()
    mask, moved = fixed.mask(image), fixed.pixel(image)
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise _Broken(f"its mask is {mask.dtype}, not bool")
    size = tuple(moved.shape[-2:])
    if tuple(mask.shape) not in (size, (case.batch, 1, *size)):
        raise _Broken(
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
            raise _Broken(f"its {what} gives two results for one input under one seed")


def _gradient(transform: Transform, case: Case) -> None:
    for what, op, value in _both(case.drawn(transform), case, torch.float64):
        value.requires_grad_()
        result = op(value)
        if not result.requires_grad:
            raise _Broken(f"no gradient flows through its {what}")
        weight = _noise(result.shape, case.seed + 2, torch.float64)
        (gradient,) = torch.autograd.grad((result * weight).sum(), value, allow_unused=True)
        if gradient is None or not gradient.isfinite().all():
            raise _Broken(f"the gradient through its {what} is missing or not finite")
        step = 1e-4 * _noise(value.shape, case.seed + 3, torch.float64)
        with torch.no_grad():
            change = ((op(value + step) - op(value - step)) * weight).sum() / 2
        expected = (gradient * step).sum()
        scale = (gradient.abs() * step.abs()).sum() + change.abs() + 1e-12
        if abs(change - expected) > 1e-3 * scale:
            raise _Broken(f"the gradient through its {what} is not that of its values")


def _inverse(transform: Transform, case: Case) -> None:
    fixed = case.drawn(transform)
    try:
        inverse = fixed.inverse
    except NotImplementedError:
        return
    if fixed.exact:
        image, latent, allowed = case.image(torch.float64), case.latent(torch.float64), 1e-9
    else:
        (image, latent), allowed = case.smooth(), _RESAMPLING_ERROR
    for order, there, back in (("", fixed, inverse), (" in the other order", inverse, fixed)):
        mask = None if case.layout == "audio" else (back @ there).mask(image)
        cells = None if mask is None else mask_of_cells(mask, latent.shape[-2:])
        for what, value, name, inside in (
            ("pixel op", image, "pixel", mask),
            ("latent op", latent, "latent", cells),
        ):
            returned = getattr(back, name)(getattr(there, name)(value))
            if returned.shape != value.shape:
                raise _Broken(
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
                raise _Broken(
                    f"its inverse does not undo its {what}{order}: an RMS error of "
                    f"{float(error.mean().sqrt()):.3g}"
                )


def _batch_independence(transform: Transform, case: Case) -> None:
    if transform.mixes_samples or case.batch < 2:
        return
    fixed = case.drawn(transform)
    if fixed.mixes_samples:
        return
    for what, op, value in _both(fixed, case, torch.float64):
        other = value.clone()
        other[-1] = -other[-1] + 0.5
        if not torch.allclose(op(value)[:-1], op(other)[:-1], rtol=0, atol=1e-12):
            raise _Broken(f"its {what} lets one sample of a batch change another")


def _factor(transform: Transform, case: Case) -> None:
    """What happens to one latent cell happens to the pixels of that cell."""
    fixed = case.drawn(transform)
    generator = torch.Generator().manual_seed(case.seed)
    place = [int(torch.randint(side, (), generator=generator)) for side in case.cells]
    latent = torch.zeros(case.latent_shape, dtype=torch.float64)
    image = torch.zeros(case.image_shape, dtype=torch.float64)
    everything = (slice(None), slice(None))
    latent[everything + tuple(slice(at, at + 1) for at in place)] = 1.0
    image[everything + tuple(slice(at * case.factor, (at + 1) * case.factor) for at in place)] = 1.0
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
            raise _Broken(
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
            raise _Broken(f"torch.compile breaks the graph of its {what} ({reason})") from error
        if not torch.equal(result, op(value)):
            raise _Broken(f"its {what} gives another result under torch.compile")


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
    "compile": _compile,
}
_TRIED_ONCE = {"compile"}  # a trace takes long and does not depend on values


# The search -------------------------------------------------------------------------------------


def check_transform(
    transform: Transform | str,
    *,
    factor: int = 8,
    image_channels: int = 3,
    latent_channels: int = 4,
    laws: Iterable[str] | None = None,
    max_examples: int = 10,
) -> None:
    """Verify that a transform keeps the contract; raise `ContractError` if it does not.

    | law | what it says |
    |---|---|
    | shape | samples and channels stay, and the image gets `factor` times the cells of the latent |
    | dtype | both ops keep float32, float64 and bfloat16 |
    | device | both ops stay on the device of their input |
    | mask | it is `None`, or bool of shape `(H', W')` or `(B, 1, H', W')` |
    | determinism | one seed, one result, whatever the global seed |
    | gradient | it flows through both ops, and is that of their values |
    | inverse | if there is one, it undoes both ops, in both orders (see below) |
    | batch independence | no sample changes another, unless `mixes_samples` |
    | factor | what happens to a latent cell happens to the pixels of that cell |
    | compile | `torch.compile` takes both ops whole, if `exact` and not random |

    The inverse of an `exact` transform has to be right to float precision; that of a resampled one
    inside the mask, on smooth images.

    Args:
        transform: a transform or the name of a registered one. A random one is drawn.
        factor: pixels per latent cell along an axis, of space and of time.
        image_channels: channels of the images, for transforms that depend on them.
        latent_channels: channels of the latents.
        laws: the names of the laws to verify; all of `LAWS` without them.
        max_examples: inputs to try per law and layout.

    The message is one sentence with the law and the smallest input found that breaks it. Raises
    `InputError` when hypothesis is not installed, or for the name of a law that is none.

    ```python
    import equivae

    equivae.testing.check_transform("rot180")
    equivae.testing.check_transform(equivae.get_transform("rotate", angle=30), laws=["inverse"])
    ```
    """
    if isinstance(transform, str):
        transform = get_transform(transform)
    chosen = list(LAWS) if laws is None else list(laws)
    for law in chosen:
        if law not in LAWS:
            raise InputError(f"unknown law {law!r}.{did_you_mean(law, LAWS)}")
    for layout in transform.layouts:
        channels = 1 if layout == "audio" else image_channels
        for law in chosen:
            _search(transform, law, layout, (factor, channels, latent_channels), max_examples)


def _search(
    transform: Transform, law: str, layout: str, sizes: tuple[int, int, int], max_examples: int
) -> None:
    hypothesis, strategies = _hypothesis()
    side = strategies.integers(2, 4)
    axes = {"image": 2, "video": 3, "audio": 1}[layout]
    cells = strategies.tuples(*[side] * axes)
    if isinstance(transform, RandomTransform) and transform.swaps_axes:
        # Quarter turns drawn per sample need squares.
        cells = cells.map(lambda drawn: (*drawn[:-1], drawn[-2]))
    cases = strategies.builds(
        Case,
        layout=strategies.just(layout),
        batch=strategies.integers(1, 3),
        cells=cells,
        seed=strategies.integers(0, 99),
        factor=strategies.just(sizes[0]),
        image_channels=strategies.just(sizes[1]),
        latent_channels=strategies.just(sizes[2]),
    )

    def trial(case: Case) -> None:
        try:
            LAWS[law](transform, case)
        except _Broken as broken:
            reason, cause = str(broken), None
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            reason, cause = f"it raises {type(error).__name__}: {first}", error
        else:
            return
        message = f"transform {transform.name!r} breaks the {law} law: {reason}, on {case}."
        raise ContractError(message, law) from cause

    once = law in _TRIED_ONCE
    search = hypothesis.settings(
        max_examples=1 if once else max_examples,
        phases=[hypothesis.Phase.generate] if once else list(hypothesis.Phase),
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )(hypothesis.given(cases)(trial))
    try:
        search()
    except hypothesis.errors.Flaky as error:
        raise ContractError(
            f"transform {transform.name!r} breaks the {law} law, but not always: one and the same input "
            "passes and fails.",
            law,
        ) from error


def _hypothesis() -> tuple[Any, Any]:
    try:
        import hypothesis
        from hypothesis import strategies
    except ImportError as error:
        raise InputError(
            "the contract checks search their inputs with hypothesis, which is not installed; run "
            "`pip install hypothesis`."
        ) from error
    return hypothesis, strategies


# Groups -----------------------------------------------------------------------------------------


def check_group(
    elements: Iterable[Transform],
    *,
    cells: int = 3,
    factor: int = 2,
    image_channels: int = 3,
    latent_channels: int = 4,
) -> None:
    """Verify that transforms form a group as pairs: pixel op and latent op together.

    So two elements whose grids are alike and whose channels respond otherwise are two elements, and a
    sign representation has to be one. Checked on random squares, to float precision.

    Args:
        elements: exact transforms, the identity among them, as in `equivae.get_group("d4")`.
        cells: side of the latent.
        factor: pixels per cell.
        image_channels: channels of the images.
        latent_channels: channels of the latents.

    Raises `ContractError` with the elements that break it.

    ```python
    import equivae
    from equivae.transforms import SignFlips

    equivae.testing.check_group(equivae.get_group("d4"))
    identity, hflip = (equivae.get_transform(name) for name in ("identity", "hflip"))
    equivae.testing.check_group([identity, hflip.with_representation(SignFlips((0,)))])
    ```
    """
    members = [element.at_factor(factor, factor) for element in elements]
    case = Case("image", 2, (cells, cells), 0, factor, image_channels, latent_channels)
    image, latent = case.image(torch.float64), case.latent(torch.float64)

    def same(a: Transform, b: Transform) -> bool:
        pixels, others = a.pixel(image), b.pixel(image)
        cells, more = a.latent(latent), b.latent(latent)
        return (pixels.shape == others.shape and torch.allclose(pixels, others)) and (
            cells.shape == more.shape and torch.allclose(cells, more)
        )

    identity = get_transform("identity")
    if not any(same(member, identity) for member in members):
        names = ", ".join(member.name for member in members)
        raise ContractError(f"no identity is among {names}.", "identity")
    for a, b in itertools.product(members, members):
        if not any(same(a @ b, member) for member in members):
            raise ContractError(
                f"{a.name} after {b.name} is, as a pair of pixel op and latent op, none of the "
                "elements, so that they are no group.",
                "closure",
            )
    for member in members:
        if not same(member.inverse @ member, identity):
            raise ContractError(f"the inverse of {member.name} does not undo it.", "inverse")
