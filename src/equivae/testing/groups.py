"""`check_group`: the group laws, for pairs of pixel op and latent op."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch

from equivae.testing.cases import Case
from equivae.testing.errors import ContractError
from equivae.transforms import Transform, get_transform

__all__ = ["check_group"]


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
