"""Inside the mask the pixel op and the latent op put everything at the same place, sample by sample."""

import dataclasses
import math
import warnings

import pytest
import torch
import torch.nn.functional as F

import equivae
from equivae.losses.reconstruction import masked, mse
from equivae.testing import ContractError, check_transform
from equivae.transforms import Blend, Scale, Warp

FACTOR = 8
get = equivae.get_transform


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def ramps(side=256):
    """The place of every pixel, in pixels: what resampling returns says where it looked."""
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    return torch.stack([y, x])[None]


def apart(text, x):
    """By how much, in pixels, the two ops look apart down and to the right; and the mask of the cells."""
    t = get(text).at_factor(FACTOR)
    pooled, moved = (
        F.avg_pool2d(t.pixel(x), FACTOR),
        t.latent(F.avg_pool2d(x, FACTOR)),
    )
    mask = t.mask(x)
    cells = torch.ones(pooled.shape[-2:], dtype=torch.bool)
    if mask is not None:
        cells = F.avg_pool2d(mask[None, None].double(), FACTOR)[0, 0] == 1
    return (pooled - moved)[0], cells


# Copying cells -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "scale(factor=0.5,interpolation='nearest')",
        "scale(factor=0.25,interpolation='nearest')",
        "scale(factor=(0.34375,0.8),interpolation='nearest')",
        "zoom(factor=0.5,interpolation='nearest')",
        "rotate(angle=30,interpolation='nearest')",
        "translate(y=0.03,x=-0.05,interpolation='nearest')",
        "translate(cells=(0.6,-1.3),interpolation='nearest')",
        "perspective(interpolation='nearest')",
    ],
)
def test_nearest_looks_at_one_place_on_both_grids(text):
    """3.5 pixels apart before, at factor 8 and half the size."""
    difference, cells = apart(text, ramps())
    assert cells.float().mean() > 0.2
    assert difference[:, cells].abs().max() <= 0.5 + 1e-9  # a pixel is copied whole as well


@pytest.mark.parametrize("name", ["scale", "zoom"])
@pytest.mark.parametrize("factor", [1.5, 1.75, 2, 3])
def test_copies_of_one_cell_lie_around_its_pixels(factor, name):
    """Enlarged, a cell has several copies, and they cannot all lie where its pixels do."""
    x = ramps()
    difference, cells = apart(f"{name}(factor={factor},interpolation='nearest')", x)
    copies = math.ceil(factor)
    assert difference[:, cells].abs().max() <= FACTOR * (copies - 1) / factor / 2 + 0.5
    middle = difference[0][:, 16]
    middle = middle[cells[:, 16]] if name == "zoom" else middle
    assert abs(float(middle.mean())) < 0.3
    t = get(name, factor=factor, interpolation="nearest", cell=FACTOR)
    jumps = t.pixel(x)[0, 0, :, 128].diff()
    if name == "scale" and factor == copies:
        assert jumps.max() <= 1  # in one piece
    assert jumps.abs().max() <= FACTOR / 2


def test_nearest_copies_and_stays_within_half_a_cell_of_the_map():
    x, z = ramps(), torch.rand(1, 4, 32, 32)
    t = get("scale", factor=11 / 32, interpolation="nearest", cell=FACTOR)
    assert torch.isin(t.latent(z), z).all()
    assert torch.isin(t.pixel(x), x).all()
    ideal = (torch.arange(88, dtype=torch.float64) + 0.5) * 32 / 11 - 0.5
    assert (t.pixel(x)[0, 0, :, 0] - ideal).abs().max() <= FACTOR / 2 + 0.5


@pytest.mark.parametrize(("name", "factor"), [("scale", 4), ("rotate", 4), ("zoom", 2)])
def test_nearest_has_to_know_the_factor(name, factor):
    t = get(name, interpolation="nearest")
    with pytest.raises(equivae.InputError, match="how many pixels one spans"):
        t.pixel(ramps(64))
    check_transform(t, factor=factor, max_examples=1)


# Borders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "scale(factor=0.5)",
        "scale(factor=0.5,interpolation='bicubic')",
        "scale(factor=(0.375,0.75))",
        "scale(factor=2)",
        "scale(factor=1.5,antialias=False)",
        "scale(factor=1.75,interpolation='bicubic')",
    ],
)
def test_scale_masks_the_borders_that_disagree(text):
    difference, cells = apart(text, ramps())
    assert 0.4 < cells.float().mean() < 1
    assert cells[5:-5, 5:-5].all() or len(cells) < 12
    difference = difference.abs().amax(0)
    assert difference[cells].max() < 0.3  # pixels; up to 2 at the border
    assert difference[~cells].max() > 0.3


@pytest.mark.parametrize("s", [8, 11, 16, 27, 31])
def test_where_the_kernel_stays_inside_there_is_no_mask(s):
    """EQ-VAE's scaling does not filter, and its two ops agree to the edge."""
    text = f"scale(factor={s / 32},antialias=False)"
    difference, cells = apart(text, ramps())
    assert cells.all()
    assert get(text).at_factor(FACTOR).mask(ramps()) is None
    assert difference.abs().max() < 1e-9
    assert get("scale", factor=1.0, cell=FACTOR).mask(ramps()) is None


@pytest.mark.parametrize(
    "options", [{}, {"interpolation": "bicubic"}, {"interpolation": "nearest"}]
)
@pytest.mark.parametrize("factor", [0.5, 0.34375, 1.5])
def test_inside_the_mask_of_scale_nothing_comes_from_outside(factor, options):
    """Inside, the scaled image is the scaled middle of a larger image, whatever lies around it."""
    t = Scale(factor=factor, cell=FACTOR, **options)
    x = torch.rand(1, 2, 256, 256, generator=seeded(0), dtype=torch.float64)
    mask = t.mask(x)
    inside = torch.ones(t.pixel(x).shape[-2:], dtype=torch.bool) if mask is None else mask
    out, edge = inside.shape[-1], 256
    for around in (0.0, 5.0):
        large = F.pad(x, (edge,) * 4, value=around)
        middle = t.pixel(large)[..., out : 2 * out, out : 2 * out]
        assert (middle - t.pixel(x)).abs().amax((0, 1))[inside].max() < 1e-2
    carried = t.carry_mask(x, torch.ones(1, 1, 256, 256, dtype=torch.bool))
    assert torch.equal(carried[0, 0], inside)


def test_scale_carries_what_was_invalid():
    x = torch.rand(2, 3, 64, 64, generator=seeded(0))
    valid = torch.ones(2, 1, 64, 64, dtype=torch.bool)
    valid[1, :, :, 32:] = False
    t = get("scale", factor=0.5, cell=FACTOR)
    carried = t.carry_mask(x, valid)
    assert carried.shape == (2, 1, 32, 32)
    assert torch.equal(carried[0, 0], t.mask(x))
    assert not carried[1, 0, :, 8:].any()
    assert carried[1, 0, 8:24, :8].sum() == 0  # the kernel of the second cell reaches the third
    turned = (get("rot90") @ t).mask(x)
    assert torch.equal(turned, t.mask(x).rot90())
    assert (get("scale", cell=FACTOR) @ get("translate", x=0.25, cell=FACTOR)).mask(x).any()


def test_the_border_of_a_scaled_image_costs_an_equivariant_vae_nothing():
    class Pooling(torch.nn.Module):
        def encode(self, x):
            return F.avg_pool2d(x, FACTOR)

        def decode(self, z):
            return F.interpolate(z, scale_factor=FACTOR, mode="nearest")

    x = ramps(128).float().repeat(1, 2, 1, 1)[:, :3] / 64 - 1
    t = get("scale", factor=0.5, cell=FACTOR)
    vae = Pooling()
    pooled, moved = vae.encode(t.pixel(x)), t.latent(vae.encode(x))
    everywhere = mse(pooled, moved)
    inside = masked(mse, vae.decode(pooled), vae.decode(moved), t.mask(x))
    assert float(inside) < 1e-3 * float(everywhere)


# One sample and the others ---------------------------------------------------------------------------


def row_of(t, row):
    """A drawn warp as it was drawn for one sample."""
    values = {f.name: getattr(t, f.name) for f in dataclasses.fields(t)}
    own = {k: v[row : row + 1] for k, v in values.items() if isinstance(v, torch.Tensor)}
    return dataclasses.replace(t, **own)


@pytest.mark.parametrize(
    "text",
    [
        "random_zoom(between=(0.2,1.5))",
        "random_affine(scale=(0.3,1.2),padding_mode='zeros')",
        "random_perspective(distortion_scale=0.9)",
        "random_rotate",
        "random_translate(padding_mode='circular')",
    ],
)
def test_a_warp_does_not_depend_on_the_other_samples(text):
    """The sample that shrinks most decided how all of its batch were filtered."""
    x = torch.rand(5, 3, 64, 64, generator=seeded(1), dtype=torch.float64)
    t = get(text).at_factor(FACTOR).draw(5, seeded(2))
    assert isinstance(t, Warp)
    assert not t.mixes_samples
    moved, latent, mask = t.pixel(x), t.latent(x), t.mask(x)
    for row in range(5):
        alone, own = row_of(t, row), x[row : row + 1]
        assert torch.equal(alone.pixel(own)[0], moved[row])
        assert torch.equal(alone.latent(own)[0], latent[row])
        if mask is not None:
            assert torch.equal(alone.mask(own), mask[row, 0])


def test_gradients_reach_every_sample_of_a_warp():
    x = torch.rand(4, 1, 32, 32, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    t = get("zoom", factor=torch.tensor([0.25, 1.0, 0.5, 0.25]))
    t.pixel(x).sum().backward()
    assert (x.grad.abs().sum((1, 2, 3)) > 0).all()


def test_the_batch_law_sees_a_sample_that_depends_on_how_many_there_are():
    class Counts(equivae.Transform):
        name = "counts"

        def pixel(self, x):
            return x * len(x)

        latent = pixel

    with pytest.raises(ContractError, match="alone"):
        check_transform(Counts(), laws=["batch independence"])


# Blending ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 3, 5])
def test_blending_gives_every_sample_another_partner(batch):
    """Of a pair, half the draws left both as they were."""
    partners = torch.stack(
        [get("random_blend").draw(batch, seeded(seed)).partner for seed in range(300)]
    )
    rows = torch.arange(batch)
    assert not (partners == rows).any()
    assert all(torch.equal(p.sort().values, rows) for p in partners)
    for row in rows.tolist():
        counts = torch.bincount(partners[:, row], minlength=batch)
        others = torch.cat([counts[:row], counts[row + 1 :]])
        assert others.min() > 0.6 * 300 / (batch - 1)


def test_a_pair_of_rows_is_blended_in_the_loss():
    x = torch.rand(2, 3, 32, 32, generator=seeded(0))
    for seed in range(10):
        drawn = get("random_blend", weight=(0.5, 0.6)).draw(2, seeded(seed))
        changed = (drawn.pixel(x) - x).abs().amax((1, 2, 3))
        assert (changed > 0.1).all()


def test_a_sample_without_another_is_said_to_stay_as_it_is():
    one = torch.rand(1, 3, 8, 8)
    for t in (Blend(), get("random_blend").draw(1, seeded(0))):
        with pytest.warns(RuntimeWarning, match="give at least two"):
            assert torch.allclose(t.pixel(one), one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_transform("random_blend", factor=4, max_examples=3)
        get("blend").pixel(one.repeat(2, 1, 1, 1))
