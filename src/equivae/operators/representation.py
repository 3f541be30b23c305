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

__all__ = ["PlainRepresentation", "generated", "plain_move", "plain_representation"]

_ITERATIONS = 100
_CLOSE = 1e-6
_LONGEST = 8  # orders of elements beyond it are not looked for


@dataclass(frozen=True)
class PlainRepresentation:
    """A representation of a group by matrices that only exchange coordinates and flip their signs.

    Attributes:
        basis: `(c, c)`, float64: to these coordinates.
        elements: by the transform's name.
    """

    basis: Tensor
    elements: dict[str, Element]


def plain_move(transform: Transform) -> dict[str, bool] | None:
    """The plain grid move as `moved` does it; `None` for one that it cannot do."""
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
    group: Group, crossed: Mapping[str, Tensor], covariance: Tensor
) -> PlainRepresentation:
    r"""The representation of a group nearest to how its elements act on channels, in plain coordinates.

    Args:
        group: the elements, the identity first.
        crossed: `E[y xᵀ]` for elements that generate the others, `x` the moved cells of latents and `y` those
            of the moved images' latents, both less their mean; `(c, c)`.
        covariance: `E[x xᵀ]`, the same for every element, `(c, c)`.

    In coordinates where the covariance is the identity, the nearest orthogonal matrices are polar factors;
    averaged over the group, `U_g <- polar(mean_h U_gh U_hᵀ)`, they converge to an orthogonal representation.
    For an involution that is the matrix sign function of the least-squares map. It is then split into its
    irreducible parts: for flips and quarter turns these are signs, and the plane itself.

    Raises `InputError` for a group with other parts.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    values = values.clamp_min(float(values.max()) * 1e-10)
    whiten = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    table = _products(group)
    near = {name: whiten @ one.double() @ whiten for name, one in crossed.items()}
    exact = _orthogonal(table, near)
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
    return PlainRepresentation(adapted.T @ whiten, elements)


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
            raise InputError(
                f"group {group.name} is not closed: {g.name} after {h.name} is none of its elements; add it."
            )
        found[g.name, h.name] = product
    return found


def _orthogonal(
    table: Mapping[tuple[str, str], str], near: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Orthogonal matrices that obey the group law, near to matrices that nearly do."""
    names = list(dict.fromkeys(g for g, _ in table))
    like = next(iter(near.values()))
    found = {name: torch.eye(len(like)).to(like) for name in names}
    known = {"identity"}
    for g, h in table:  # a map and that of the inverse are transposes of one another
        if table[g, h] == "identity" and g in near:
            found[g] = _polar(near[g] + near.get(h, near[g].T).T)
            found[h] = found[g].T
            known |= {g, h}
    while len(known) < len(names):  # the others are products
        for g, h in itertools.product(sorted(known), sorted(known)):
            if table[g, h] not in known:
                found[table[g, h]] = found[g] @ found[h]
                known.add(table[g, h])
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
    return left @ right


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
    return vectors[:, values > 0.5]


def _characters(table: Mapping[tuple[str, str], str]) -> list[dict[str, int]]:
    """All homomorphisms to the signs, by the elements' names."""
    names = list(dict.fromkeys(g for g, _ in table))
    found = []
    for signs in itertools.product((1, -1), repeat=len(names)):
        sign = dict(zip(names, signs, strict=True))
        if all(sign[g] * sign[h] == sign[gh] for (g, h), gh in table.items()):
            found.append(sign)
    return found


def _unknown(group: Group) -> InputError:
    return InputError(
        f"method='conjugation' keeps the law of groups of flips and quarter turns, and {group.name!r} is none; "
        "use method='network'."
    )
