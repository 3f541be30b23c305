"""From maps that nearly are a representation of a group to one that is, in coordinates where it is plain."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from equivae.errors import InputError
from equivae.operators.conjugation import Element
from equivae.transforms import Group, LatticeTransform, Transform, get_transform

__all__ = ["PlainRepresentation", "generated", "not_closed", "plain_move", "plain_representation"]

_ITERATIONS = 100
_CLOSE = 1e-6
_LONGEST = 8  # orders of elements beyond it are not looked for


@dataclass(frozen=True)
class PlainRepresentation:
    """A representation of a group by matrices that only exchange coordinates and flip their signs.

    Attributes:
        basis: `(c, c)`, float64: to these coordinates.
        origin: `(c,)`, float64: what every element leaves where it is.
        elements: by the transform's name.
    """

    basis: Tensor
    origin: Tensor
    elements: dict[str, Element]


def plain_move(transform: Transform) -> dict[str, bool] | None:
    """The plain latent op as `moved` does it; `None` for one that it cannot do."""
    if isinstance(transform, LatticeTransform):
        return {
            "transposes": transform.transposes,
            "flips_height": transform.flips_height,
            "flips_width": transform.flips_width,
        }
    return {} if getattr(transform, "keeps_grid", False) else None


def generated(transform: Transform) -> Group:
    """The group that a transform generates. `InputError` for one whose powers never come to the identity."""
    identity = get_transform("identity")
    try:
        if not isinstance(transform, LatticeTransform) and transform.inverse == transform:
            return Group(transform.name, (identity, transform))
        powers, power = [identity, transform], transform @ transform
        while power != identity and len(powers) < _LONGEST:
            powers.append(power)
            power = power @ transform
    except NotImplementedError:
        power = transform
    if power != identity or plain_move(transform) is None:
        raise InputError(
            f"method='conjugation' keeps the law of flips, quarter turns and transforms of values that undo "
            f"themselves, and {transform.name!r} is none of these; use method='network'."
        )
    return Group(transform.name, tuple(powers))


def plain_representation(
    group: Group, maps: Mapping[str, Tensor], mean: Tensor, covariance: Tensor
) -> PlainRepresentation:
    r"""The representation of a group nearest to how its elements act on channels, in plain coordinates.

    Args:
        group: the elements, the identity first.
        maps: `(c, c + 1)`, a matrix and what is added, of elements that generate the others, such as
            least-squares fits.
        mean: of the latents' cells, `(c,)`.
        covariance: the same, `(c, c)`.

    In coordinates where the covariance, averaged over the group, is the identity, the nearest orthogonal
    matrices are polar factors; averaged over the group, `U_g <- polar(mean_h U_gh U_hᵀ)`, they converge to
    an orthogonal representation. For an involution that is the matrix sign function of its map. It is then
    split into its irreducible parts: for flips and quarter turns these are signs, and the plane itself.

    Raises `InputError` for a group that is not closed or has other parts.
    """
    table = _products(group)
    affine = _all(table, {name: _squared(one.double()) for name, one in maps.items()})
    # What the average over the group does to any point is a point that stays.
    whole = torch.stack([*affine.values()]).mean(0)
    origin = whole[:-1, :-1] @ mean.double() + whole[:-1, -1]
    near = {name: one[:-1, :-1] for name, one in affine.items()}
    averaged = torch.stack([one @ covariance.double() @ one.T for one in near.values()]).mean(0)
    values, vectors = torch.linalg.eigh(averaged)
    values = values.clamp_min(float(values.max()) * 1e-10)
    whiten, back = (vectors @ torch.diag(v) @ vectors.T for v in (values.rsqrt(), values.sqrt()))
    exact = _orthogonal(table, {name: whiten @ one @ back for name, one in near.items()})
    adapted = _adapted(group, table, exact)
    elements = {}
    for transform in group:
        move = plain_move(transform)
        plain = adapted.T @ exact[transform.name] @ adapted
        rounded = plain.round()
        if move is None or float((plain - rounded).abs().max()) > _CLOSE:
            raise _unknown(group)
        order = rounded.abs().argmax(1)
        signs = rounded.gather(1, order[:, None])[:, 0].int()
        elements[transform.name] = Element(move, tuple(order.tolist()), tuple(signs.tolist()))
    return PlainRepresentation(adapted.T @ whiten, origin, elements)


def _products(group: Group) -> dict[tuple[str, str], str]:
    """`g` and `h` to `gh`, by names."""
    found = {}
    for g, h in itertools.product(group, group):
        if "identity" in (g.name, h.name):
            found[g.name, h.name] = h.name if g.name == "identity" else g.name
            continue
        undone = g.inverse == h  # an involution need not know that it composes to the identity
        product = "identity" if undone else next((t.name for t in group if t == g @ h), None)
        if product is None:
            raise not_closed(group, g, h)
        found[g.name, h.name] = product
    return found


def _squared(affine: Tensor) -> Tensor:
    """`(c, c + 1)` as `(c + 1, c + 1)`, whose products compose."""
    last = torch.zeros_like(affine[:1])
    last[0, -1] = 1
    return torch.cat([affine, last])


def _all(table: Mapping[tuple[str, str], str], maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The maps of all elements: those that are not given are products of those that are."""
    names = list(dict.fromkeys(g for g, _ in table))
    found = {"identity": torch.eye(len(next(iter(maps.values())))).to(next(iter(maps.values())))}
    found |= maps
    while len(found) < len(names):
        for g, h in itertools.product(list(found), list(found)):
            found.setdefault(table[g, h], found[g] @ found[h])
    return {name: found[name] for name in names}


def _orthogonal(
    table: Mapping[tuple[str, str], str], near: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Orthogonal matrices that obey the group law, near to matrices that nearly do."""
    names, found = list(near), {name: _polar(one) for name, one in near.items()}
    for _ in range(_ITERATIONS):
        averaged = {
            g: _polar(torch.stack([found[table[g, h]] @ found[h].T for h in names]).mean(0))
            for g in names
        }
        change = max(float((averaged[name] - found[name]).abs().max()) for name in names)
        found = averaged
        if change < 1e-13:
            break
    return found


def _polar(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix)
    found: Tensor = left @ right
    return found


def _adapted(
    group: Group, table: Mapping[tuple[str, str], str], exact: Mapping[str, Tensor]
) -> Tensor:
    """An orthogonal basis in which every matrix exchanges vectors and flips signs only."""
    whole = torch.eye(len(exact["identity"])).to(exact["identity"])
    vectors: list[Tensor] = []
    for character in _characters(table):
        part = torch.stack([sign * exact[name] for name, sign in character.items()]).mean(0)
        vectors += _range(part).unbind(1)
    rest = whole - sum((torch.outer(v, v) for v in vectors), torch.zeros_like(whole))
    turn = next((one for one in exact if one == "rot90"), None)
    if turn is not None:
        flip = next((one for one in ("hflip", "vflip") if one in exact), None)
        # A vector that a flip keeps, and the same turned, which the flip turns around.
        kept = rest if flip is None else rest @ (whole + exact[flip]) @ rest / 2
        while (left := _range(kept)).shape[1]:
            pair = torch.stack([left[:, 0], exact[turn] @ left[:, 0]], 1)
            vectors += pair.unbind(1)
            without = whole - pair @ pair.T
            kept = without @ kept @ without
    if len(vectors) != len(whole):
        raise _unknown(group)
    return torch.stack(vectors, 1)


def _range(projector: Tensor) -> Tensor:
    """An orthonormal basis of what a symmetric projector keeps."""
    values, vectors = torch.linalg.eigh((projector + projector.T) / 2)
    found: Tensor = vectors[:, values > 0.5]
    return found


def _characters(table: Mapping[tuple[str, str], str]) -> list[dict[str, int]]:
    """All homomorphisms to the signs, by the elements' names."""
    names = list(dict.fromkeys(g for g, _ in table))
    found = []
    for signs in itertools.product((1, -1), repeat=len(names)):
        sign = dict(zip(names, signs, strict=True))
        if all(sign[g] * sign[h] == sign[gh] for (g, h), gh in table.items()):
            found.append(sign)
    return found


def not_closed(group: Group, outer: Transform, inner: Transform) -> InputError:
    """What to raise where a product is no element."""
    return InputError(
        f"group {group.name!r} is not closed: {outer.name} after {inner.name} is none of its elements; "
        "pass all products too."
    )


def _unknown(group: Group) -> InputError:
    return InputError(
        "method='conjugation' keeps the law of groups of flips and quarter turns, and "
        f"{group.name!r} is none; use method='network'."
    )
