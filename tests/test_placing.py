"""What counts in latent cells is placed on a VAE's geometry once, explicitly, and never guessed."""

import re

import pytest
import torch

import equivae
from equivae import InputError
from equivae.transforms import CellTransform
from models import PoolAE

get = equivae.get_transform
BUILTIN = [row.name for row in equivae.transforms.transform_table() if row.source == "equivae"]
IMAGE, LATENT = torch.rand(1, 3, 64, 64), torch.rand(1, 4, 4, 4)
BY_CELLS = ["crop", "shift", "scale", "fractional_shift", "translate(cells=(0.5,0))"]
WARPS = ["rotate", "zoom", "translate", "shear", "affine", "perspective"]
AUDIO = torch.rand(1, 1, 64)


def refused(call):
    with pytest.raises(InputError, match="was not told how many pixels one spans") as caught:
        call()
    assert "Autoencoder(vae).place(t)" in str(caught.value)


@pytest.mark.parametrize("name", BY_CELLS)
def test_by_hand_a_pixel_op_that_counts_in_cells_is_refused_until_it_is_placed(name):
    t = get(name)
    refused(lambda: t.pixel(IMAGE))
    at16 = t.at_factor(16)
    assert at16.pixel(IMAGE).shape[-1] == 16 * at16.latent(LATENT).shape[-1]
    assert torch.equal(t.latent(LATENT), at16.latent(LATENT))
    assert torch.equal(get(name, cell=16).pixel(IMAGE), at16.pixel(IMAGE))


@pytest.mark.parametrize("name", [*WARPS, "fractional_shift"])
def test_by_hand_a_mask_is_refused_until_it_is_placed(name):
    t = get(name)
    refused(lambda: t.mask(IMAGE))
    refused(lambda: (get("hflip") @ t).mask(IMAGE))
    assert t.at_factor(16).mask(IMAGE).shape == (64, 64)
    if name != "zoom":  # one that enlarges has no border
        assert not torch.equal(t.at_factor(16).mask(IMAGE), t.at_factor(2).mask(IMAGE))


@pytest.mark.parametrize("name", WARPS)
def test_what_does_not_depend_on_the_factor_works_by_hand(name):
    t = get(name)
    assert torch.equal(t.pixel(IMAGE), t.at_factor(16).pixel(IMAGE))
    assert t.latent(LATENT).shape == LATENT.shape
    assert get(name, padding_mode="circular").mask(IMAGE) is None


def test_the_time_axis_counts_in_steps_of_its_own():
    t = get("time_shift")
    refused(lambda: t.pixel(AUDIO))
    assert t.at_factor(8) == t
    assert torch.equal(t.at_factor(1, 16).pixel(AUDIO), AUDIO.roll(16, -1))


def test_what_is_drawn_is_placed_as_what_it_is_drawn_from():
    generator = torch.Generator().manual_seed(0)
    refused(lambda: get("random_fractional_shift").draw(2, generator))
    for name in ("random_crop", "random_shift", "random_scale", "eqvae", "scale_equivariance"):
        refused(lambda name=name: get(name).draw(2, generator).pixel(IMAGE.repeat(2, 1, 1, 1)))
        drawn = get(name).at_factor(16).draw(2, generator)
        moved, latent = (
            drawn.pixel(IMAGE.repeat(2, 1, 1, 1)),
            drawn.latent(LATENT.repeat(2, 1, 1, 1)),
        )
        assert moved.shape[-1] == 16 * latent.shape[-1]


@pytest.mark.parametrize("name", BUILTIN)
def test_placing_says_where_once(name):
    t = get(name)
    placed = t.at_factor(16, 16)
    assert placed.name == t.name
    assert placed.at_factor(16, 16) is placed
    if placed is t:
        return
    assert placed != t
    with pytest.raises(InputError, match="is placed at 16 pixels per latent cell already"):
        placed.at_factor(8, 8)


def test_what_is_made_of_others_is_placed_with_them():
    crop = get("crop")
    made = [
        crop @ get("rot90"),
        crop.with_representation(equivae.transforms.SignFlips((0,))),
        get("choice", of="hflip,crop"),
        equivae.transforms.PerSample([(crop, [0])], "one"),
    ]
    for t in made:
        placed = t.at_factor(16)
        assert placed.at_factor(16) is placed
        with pytest.raises(InputError, match="placed at 16"):
            placed.at_factor(8)
    flips = get("random_flip")
    assert flips.at_factor(16) is flips


def test_a_transform_of_another_factor_is_refused_by_whoever_knows_the_vae():
    vae, images = PoolAE(), torch.rand(2, 3, 32, 32) * 2 - 1
    other = get("shift", cell=equivae.Autoencoder(vae).factor * 2)
    words = re.escape("pass it without `cell`")
    for use in (
        lambda: equivae.EquivarianceLoss(other)(vae, images),
        lambda: equivae.evaluate(vae, images, other, progress=False),
        lambda: equivae.Autoencoder(vae).place(other),
    ):
        with pytest.raises(InputError, match=words):
            use()
    with pytest.raises(InputError, match="placed at 4"):
        equivae.testing.check_transform(other)
    equivae.testing.check_transform(other, factor=4, laws=["shape"], max_examples=1)
    own = equivae.Autoencoder(vae).place(get("shift"))
    assert equivae.EquivarianceLoss(own)(vae, images).loss.isfinite()


@pytest.mark.parametrize("cell", [0, -8, 2.5, float("nan"), float("inf"), "8"])
def test_a_factor_that_is_none_is_refused(cell):
    with pytest.raises(InputError):
        get("crop", cell=cell)


def test_a_class_of_ones_own_is_placed_alike():
    class Half(CellTransform):
        name = "half"

        def pixel(self, x):
            return x.roll(self.pixels_per_cell // 2, -1)

        def latent(self, z):
            return (z + z.roll(1, -1)) / 2

    refused(lambda: Half().pixel(IMAGE))
    assert torch.equal(Half().at_factor(16).pixel(IMAGE), IMAGE.roll(8, -1))
