"""Transforms that take turns, and HakuLatent's five places, against its switch written out by hand."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import equivae
from equivae import InputError
from equivae.losses import Objective
from equivae.transforms import Choice
from models import noise, tiny_kl

get = equivae.get_transform
FIVE = ("ul", "ur", "dl", "dr", "center")
NAME = "hakulatent(method='round_robin')"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cut(x: Tensor, size: int, place: str) -> Tensor:
    rest = x.shape[-1] - size
    y = {"u": 0, "d": rest, "c": rest // 2}[place[0]]
    left = {"l": 0, "r": rest, "e": rest // 2}[place[1]]
    return x[..., y : y + size, left : left + size]


def by_hand(x: Tensor, step: int) -> Tensor:
    """What HakuLatent's switch in turn makes of a square batch, its place of a crop in turn too."""
    turn, kind = divmod(step, 5)
    share, place = (turn + 1) % 3, FIVE[(turn + 1) % 5]
    side = x.shape[-1]
    if kind == 0:
        return torch.rot90(x, -((turn + 1) % 4), (-2, -1))
    if kind == 1:
        factor = (0.25, 0.5, 0.75)[share]
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    if kind == 2:
        factor = (1.25, 1.5, 2.0)[share]
        large = F.interpolate(x, scale_factor=factor, mode="bicubic", align_corners=False)
        return cut(large, side, place)
    if kind == 3:
        return cut(x, int(side * (0.25, 0.5, 0.75)[share]), place)
    return x  # blended with others, below


def test_hakulatent_s_switch_in_turn() -> None:
    t, x = get(NAME).at_factor(1), noise(3, 2, 32, 32)
    for step in range(75):  # 5 members, of which the longest takes 15 turns
        seen, expected = t.at_step(step).draw(3, seeded()).pixel(x), by_hand(x, step)
        if step % 5 == 4:
            halves = [(x + x[list(order)]) / 2 for order in itertools.permutations(range(3))]
            assert any(torch.allclose(seen, one, atol=1e-6) for one in halves)
        elif step % 5 == 2:  # grid_sample and interpolate differ where the image ends
            inner = (..., slice(3, -3), slice(3, -3))
            assert torch.allclose(seen[inner], expected[inner], atol=2e-3), step
        else:
            assert torch.allclose(seen, expected, atol=1e-5), step


def test_a_run_takes_turns_and_goes_on_with_the_next() -> None:
    vae, x = tiny_kl(), noise(2, 3, 16, 16)
    loss_fn = equivae.EquivarianceLoss("choice(of='hflip,vflip,rot180',method='round_robin')")
    made = Objective(vae, loss_fn)
    found = []
    for step in (0, 1, 2, 3, 0):
        made.at_step(step)
        found.append(made(x, generator=seeded(step))[0].item())
    single = [equivae.EquivarianceLoss(n)(vae, x).loss.item() for n in ("hflip", "vflip", "rot180")]
    assert found == pytest.approx([*single, single[0], single[0]], rel=1e-6)


def test_turns_reach_through_what_is_around_them() -> None:
    inner = get("choice", of="hflip,vflip", method="round_robin")
    outer = Choice([inner, get("rot180")], "outer", method="round_robin")
    names = [outer.at_step(step).draw(2).name for step in range(4)]
    assert names == [
        "hflip",
        "rot180",
        "vflip",
        "rot180",
    ]  # each takes its next when it is its turn
    half, x = get("scale", factor=0.5).at_factor(1), noise(2, 3, 16, 16)
    product, expected = inner @ half, half.pixel(x).flip(-2)
    assert product.at_step(1).draw(2).pixel(x).equal(expected)
    assert inner.at_step(0) is inner
    assert get("hflip").at_step(3) is get("hflip")
    assert inner.at_step(1) != inner
    assert get(inner.name) == inner


@pytest.mark.parametrize("name", ["random_crop", "random_zoom"])
def test_five_places(name: str) -> None:
    placed = Counter(
        (drawn.y, drawn.x) if name == "random_crop" else (float(drawn.y), float(drawn.x))
        for seed in range(60)
        for drawn in [get(name, places="five", same_on_batch=True).draw(2, seeded(seed))]
    )
    assert set(placed) == {(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)}
    with pytest.raises(InputError, match="unknown places 'corner'"):
        get(name, places="corner")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "robin"}, "unknown method 'robin'"),
        ({"method": "round_robin", "weights": (1, 2)}, "leave weights and same_on_batch out"),
        ({"method": "round_robin", "same_on_batch": False}, "leave weights and same_on_batch out"),
    ],
)
def test_turns_that_contradict(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        get("choice", of="hflip,vflip", **options)
