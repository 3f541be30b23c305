"""Transforms made of transforms: `choice`, `compose`, `maybe`, and the draws of published systems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import matmul
from typing import Literal, Union

import torch

from equivae.errors import InputError
from equivae.transforms.base import ComposedTransform, Transform
from equivae.transforms.checks import check_flag, is_number
from equivae.transforms.families import (
    FIVE_PLACES,
    PerSample,
    RandomBlend,
    RandomCrop,
    RandomHakuAffine,
    RandomScale,
    RandomTransform,
    RandomZoom,
)
from equivae.transforms.registry import get_transform
from equivae.transforms.spelling import spell, split_transforms
from equivae.transforms.warp import check_option

__all__ = [
    "Choice",
    "choice",
    "compose",
    "eqvae",
    "hakulatent",
    "maybe",
    "random_flip",
    "random_rot90",
    "random_signed_flip",
    "scale_equivariance",
    "spectrum_matching",
]

TransformLike = Union[str, Transform]
Members = Union[str, Sequence[TransformLike]]
Method = Literal["random", "round_robin"]

_IDENTITY, _QUARTER_TURNS = "identity", ("rot90", "rot180", "rot270")


class Choice(RandomTransform):
    """One of several transforms, drawn or in turn.

    Args:
        members: the transforms.
        name: of the whole.
        weights: how likely each is, relative to the others; all alike without them.
        same_on_batch: one draw for the whole batch; else one per sample, for which all members have to
            give the same size.
        method: `"random"`, or `"round_robin"`: the whole batch gets the member whose turn it is.
        turn: whose turn it is, counted from 0; `at_step` sets it to the step of a run. Members that take
            turns themselves take the next one whenever it is their turn.
    """

    def __init__(
        self,
        members: Sequence[Transform],
        name: str,
        weights: Sequence[float] | None = None,
        same_on_batch: bool = True,
        method: Method = "random",
        turn: int = 0,
    ) -> None:
        check_option("method", method, Method)
        if method == "round_robin" and (weights is not None or not same_on_batch):
            raise InputError(
                f"{name!r} takes turns with method='round_robin', which knows neither weights nor samples of "
                "their own; leave weights and same_on_batch out."
            )
        if not members:
            raise InputError(f"{name!r} has nothing to choose from.")
        weights = list(weights) if weights is not None else [1.0] * len(members)
        known = len(weights) == len(members) and all(map(is_number, weights))
        if not known or min(weights) < 0 or sum(weights) <= 0:
            raise InputError(
                f"{name!r} needs one weight for each of its {len(members)} transforms, none negative "
                f"and not all zero; got {weights}."
            )
        check_flag("same_on_batch", same_on_batch)
        self.members, self.name = list(members), name
        self.weights, self.same_on_batch = weights, same_on_batch
        self.method, self.turn = method, turn
        self.exact = all(t.exact for t in members)
        self.swaps_axes = any(t.swaps_axes for t in members)
        self.mixes_samples = any(t.mixes_samples for t in members)
        self.block = math.lcm(*(t.block for t in members))
        self.layouts = tuple(k for k in members[0].layouts if all(k in t.layouts for t in members))

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        if self.method == "round_robin":
            return self.members[self.turn % len(self.members)].draw(batch_size, generator)
        count = 1 if self.same_on_batch else batch_size
        weights = torch.tensor(self.weights, dtype=torch.float64)
        drawn = torch.multinomial(weights, count, replacement=True, generator=generator)
        if self.same_on_batch:
            return self.members[int(drawn)].draw(batch_size, generator)
        parts = []
        for index, member in enumerate(self.members):
            rows = (drawn == index).nonzero().flatten().tolist()
            if rows:
                parts.append((member.draw(len(rows), generator), rows))
        return PerSample(parts, self.name)

    def at_factor(self, factor: int, time_factor: int | None = None) -> Transform:
        return self._of([one.at_factor(factor, time_factor) for one in self.members], self.turn)

    def at_step(self, step: int) -> Transform:
        in_turn = self.method == "round_robin"
        own = step // len(self.members) if in_turn else step
        return self._of([one.at_step(own) for one in self.members], step if in_turn else self.turn)

    def _of(self, members: Sequence[Transform], turn: int) -> Transform:
        """The same choice of these members; itself where they are its own and it is its turn."""
        alike = all(new is old for new, old in zip(members, self.members, strict=True))
        if alike and turn == self.turn:
            return self
        weights = None if self.method == "round_robin" else self.weights
        return Choice(members, self.name, weights, self.same_on_batch, self.method, turn)


def choice(
    of: Members = ("rot90", "rot180", "rot270"),
    *,
    weights: Sequence[float] | None = None,
    same_on_batch: bool = True,
    method: Method = "random",
) -> Transform:
    """One of several transforms, drawn per call or per sample, or in turn.

    Args:
        of: transforms or names, as a list or separated by commas.
        weights: how likely each is; all alike without them.
        same_on_batch: one draw for the whole batch; else one per sample, for which all have to give the
            same size.
        method: `"random"`, or `"round_robin"`: the first in the first step of a run, the second in the
            second, and so on, as HakuLatent's switch has it.

    ```python
    import torch

    import equivae

    t = equivae.get_transform("choice", of="hflip,scale(factor=0.5)")
    drawn = t.draw(4, torch.Generator().manual_seed(0))
    assert drawn.name in ("hflip", "scale(factor=0.5)")
    t = equivae.get_transform("choice", of="hflip,rot180", method="round_robin")
    assert [t.at_step(step).draw(4).name for step in range(3)] == ["hflip", "rot180", "hflip"]
    ```
    """
    members = _members(of)
    options = {} if weights is None else {"weights": tuple(weights)}
    if not same_on_batch:
        options["same_on_batch"] = False  # type: ignore[assignment]
    if method != "random":
        options["method"] = method  # type: ignore[assignment]
    name = spell("choice", of=",".join(t.name for t in members), **options)
    return Choice(members, name, weights, same_on_batch, method)


def compose(of: Members = ("scale(factor=0.5)", "rot90")) -> Transform:
    """Several transforms, one after the other, the first one first.

    Args:
        of: transforms or names, as a list or separated by commas.
    """
    members = _members(of)
    if not members:
        raise InputError("compose needs at least one transform.")
    composed = reduce(matmul, reversed(members))
    if not isinstance(composed, ComposedTransform):
        return composed  # one member, or lattice transforms, whose product is one
    name = spell("compose", of=",".join(t.name for t in members))
    return ComposedTransform(composed.outer, composed.inner, name)


def maybe(
    transform: TransformLike = "rot180", *, p: float = 0.5, same_on_batch: bool = True
) -> Transform:
    """A transform with probability `p`, else the identity.

    Args:
        transform: the transform or its name.
        p: its probability.
        same_on_batch: one draw for the whole batch; else one per sample.
    """
    if not (is_number(p) and 0 <= p <= 1):
        raise InputError(f"p must lie in [0, 1], got {p!r}.")
    (member,) = _members([transform])
    options = {} if same_on_batch else {"same_on_batch": False}
    name = spell("maybe", transform=member.name, p=float(p), **options)
    return Choice([get_transform(_IDENTITY), member], name, (1 - p, p), same_on_batch)


def _members(of: Members) -> list[Transform]:
    names = split_transforms(of) if isinstance(of, str) else of
    return [item if isinstance(item, Transform) else get_transform(item) for item in names]


def random_rot90(*, same_on_batch: bool = False) -> Transform:
    """A quarter turn or none: 0, 90, 180 or 270 degrees, each as likely. Per sample it needs squares."""
    name = spell("random_rot90", **({"same_on_batch": True} if same_on_batch else {}))
    return Choice(_members([_IDENTITY, *_QUARTER_TURNS]), name, None, same_on_batch)


def random_flip(*, same_on_batch: bool = False) -> Transform:
    """No flip, a horizontal one, a vertical one, or both, each as likely."""
    name = spell("random_flip", **({"same_on_batch": True} if same_on_batch else {}))
    return Choice(_members([_IDENTITY, "hflip", "vflip", "rot180"]), name, None, same_on_batch)


def random_signed_flip(*, same_on_batch: bool = False) -> Transform:
    """AuraEquiVAE's flips, each with its sign flips: none, horizontal, vertical, or both."""
    name = spell("random_signed_flip", **({"same_on_batch": True} if same_on_batch else {}))
    flips = ["signed_hflip", "signed_vflip", "signed_rot180"]
    return Choice(_members([_IDENTITY, *flips]), name, None, same_on_batch)


def eqvae(*, anisotropic: bool = False, antialias: bool = False) -> Transform:
    """EQ-VAE's draw (arXiv 2502.09509, section 3.2, and its code): the image and the latent scaled by
    `s / 32`, `s` from 8 to 31, then turned by 90, 180 or 270 degrees; one draw for the batch.

    Args:
        anisotropic: scale height and width apart.
        antialias: filter when scaling down; the published code does not.

    The probability of 0.5 with which EQ-VAE draws at all is the schedule's:
    `EquivarianceLoss("eqvae", schedule="sampled", probability=0.5)`.
    """
    check_flag("anisotropic", anisotropic)
    check_flag("antialias", antialias)
    options = {"anisotropic": True} if anisotropic else {}
    if antialias:
        options["antialias"] = True
    scale = RandomScale(anisotropic=anisotropic, antialias=antialias)
    turn = Choice(_members(_QUARTER_TURNS), "quarter_turn")
    return ComposedTransform(turn, scale, spell("eqvae", **options))


def scale_equivariance(*, factors: tuple[float, ...] = (0.5, 0.25)) -> Transform:
    """The scale-equivariance regulariser of "Improving the Diffusability of Autoencoders"
    (arXiv 2502.14831): image and latent 2 or 4 times smaller, one draw for the batch.

    Args:
        factors: the values that the factor may have.
    """
    shown = {} if tuple(factors) == (0.5, 0.25) else {"factors": tuple(factors)}
    members = _members([f"scale(factor={factor})" for factor in factors])
    return Choice(members, spell("scale_equivariance", **shown))


def spectrum_matching(*, k: tuple[int, ...] = (0, 8, 10, 12)) -> Transform:
    """DSM's draw (Spectrum Matching, arXiv 2603.14645): the finest diagonals of every 8x8 block of cosine
    coefficients go, in image and latent alike; one draw for the batch.

    Args:
        k: how many diagonals may go; 0 leaves all.
    """
    shown = {} if tuple(k) == (0, 8, 10, 12) else {"k": tuple(k)}
    members = _members([f"cosine_cut(k={one})" for one in k])
    return Choice(members, spell("spectrum_matching", **shown))


def hakulatent(*, method: Method = "random") -> Transform:
    """A switch between HakuLatent's transforms, with its ranges: quarter turns, scale down, scale up and
    crop, crop, random affine with reflection padding, blending; one draw for the batch. Both crops lie in
    one of five places, the corners and the centre (github.com/KohakuBlueleaf/HakuLatent, `transform/`).

    Args:
        method: `"random"`, or `"round_robin"`, as its `method="roundrobin"`: the switch takes turns, and so
            do turns, factors and places within their members. Its affine map does nothing then, and is
            left out; its crop, whose place stays in the upper left corner there, takes turns here.
    """
    check_option("method", method, Method)
    if method == "round_robin":
        members: list[Transform] = [
            *(choice(names, method=method) for names in _HAKU_TURNS),
            RandomBlend(weight=(0.5, 0.5), same_on_batch=True),
        ]
        return Choice(members, spell("hakulatent", method=method), method=method)
    members = [
        random_rot90(same_on_batch=True),
        RandomScale(factors=(0.25, 0.5, 0.75), antialias=False),
        RandomZoom(
            factors=(1.25, 1.5, 2.0), interpolation="bicubic", same_on_batch=True, places="five"
        ),
        RandomCrop(same_on_batch=True, places="five"),
        RandomHakuAffine(degrees=30.0, translate=0.0, shear_y=10.0),
        RandomBlend(same_on_batch=True),
    ]
    return Choice(members, "hakulatent")


def _places_in_turn(spelled: str, shares: Sequence[float]) -> list[str]:
    """Every pair that comes up when shares and places take turns side by side, both from their second."""
    count = math.lcm(len(shares), len(FIVE_PLACES))
    pairs = [
        (shares[(i + 1) % len(shares)], *FIVE_PLACES[(i + 1) % len(FIVE_PLACES)])
        for i in range(count)
    ]
    return [spelled.format(share, y, x) for share, y, x in pairs]


_HAKU_TURNS = (
    ("rot270", "rot180", "rot90", _IDENTITY),
    tuple(f"scale(factor={one},antialias=False)" for one in (0.5, 0.75, 0.25)),
    _places_in_turn("zoom(factor={},y={},x={},interpolation='bicubic')", (1.25, 1.5, 2.0)),
    _places_in_turn("crop(size={},y={},x={})", (0.25, 0.5, 0.75)),
)
