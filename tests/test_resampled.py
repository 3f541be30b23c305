"""Resampled transforms: one continuous map on both grids, against lattice moves, theory and kornia."""

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.geometry.transform import warp_perspective

import equivae
from equivae.transforms import FractionalShift, Scale

FACTOR = 4
get = equivae.get_transform


def at8(name, **parameters):
    """The transform for a VAE whose latent cells span 8 pixels."""
    return get(name, **parameters).at_factor(8)


def encode(x):
    """Average pooling: the exactly equivariant encoder of the tests."""
    return F.avg_pool2d(x, FACTOR)


def wave(side, channels=2, periods=1.0, seed=0):
    """Smooth images with values at pixel centres of a continuous function on [-1, 1]²."""
    g = torch.Generator().manual_seed(seed)
    at = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 - 1
    phase = torch.rand(2, channels, 1, generator=g, dtype=torch.float64) * 6
    y, x = (torch.cos(math.pi * periods * at + phase[i]) for i in (0, 1))
    return ((y[:, :, None] + x[:, None, :]) / 2)[None]


def random_image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("padding_mode", ["zeros", "reflection", "border", "circular"])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, -1])
def test_a_lattice_angle_is_the_lattice_rotation(turns, padding_mode):
    x = random_image(2, 3, 32, 32)
    t = at8("rotate", angle=90.0 * turns, padding_mode=padding_mode)
    for op in (t.pixel, t.latent):
        assert torch.allclose(op(x), torch.rot90(x, turns, (-2, -1)), atol=2e-5)
    mask = t.mask(x)
    assert mask is None if padding_mode == "circular" else mask.all()


def test_half_turn_of_an_oblong_image_is_the_lattice_one():
    x = random_image(1, 3, 16, 48)
    assert torch.allclose(get("rotate", angle=180).pixel(x), x.flip((-2, -1)), atol=2e-5)


@pytest.mark.parametrize(("y", "x"), [(1, 0), (0, 2), (-1, 3)])
def test_a_shift_by_whole_cells_is_the_lattice_shift(y, x):
    image, latent = random_image(2, 3, 32, 64), random_image(2, 4, 8, 16)
    t = get("translate", cells=(y, x), padding_mode="circular", cell=FACTOR)
    lattice = get("shift", y=y, x=x, cell=FACTOR)
    assert torch.allclose(t.pixel(image), lattice.pixel(image), atol=2e-5)
    assert torch.allclose(t.latent(latent), lattice.latent(latent), atol=2e-5)
    share = get("translate", y=y / 8, x=x / 16, padding_mode="circular", cell=FACTOR)
    assert torch.allclose(share.pixel(image), lattice.pixel(image), atol=2e-5)


def test_translation_goes_down_and_to_the_right_and_masks_what_enters():
    x = random_image(1, 1, 32, 32)
    t = get("translate", y=0.25, x=0.0, cell=FACTOR)
    moved, mask = t.pixel(x), t.mask(x)
    assert torch.allclose(moved[:, :, 8:], x[:, :, :24], atol=1e-5)
    assert moved[:, :, :8].abs().max() < 1e-5
    assert mask[8:].all()
    assert not mask[:8].any()


@pytest.mark.parametrize("name", ["scale", "zoom"])
def test_scale_one_is_the_identity(name):
    x = random_image(1, 3, 32, 32)
    assert torch.allclose(at8(name, factor=1.0).pixel(x), x, atol=2e-5)


def test_zoom_by_two_into_a_corner_is_scaling_up_and_cropping():
    x = wave(64, periods=2)
    t = get("zoom", factor=2.0, y=0.0, x=1.0)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear")[..., :64, 64:]
    inside = (
        slice(None),
        slice(None),
        slice(2, None),
        slice(None, -2),
    )  # interpolate clamps the edge
    assert torch.allclose(t.pixel(x)[inside], expected[inside], atol=1e-6)


def test_zooming_out_averages_what_it_shrinks():
    x = random_image(1, 1, 64, 64)
    plain = get("zoom", factor=0.25, antialias=False).pixel(x)
    smooth = get("zoom", factor=0.25).pixel(x)
    centre = (slice(None), slice(None), slice(24, 40), slice(24, 40))
    assert torch.allclose(smooth[centre], F.avg_pool2d(x, 4), atol=1e-5)
    assert smooth[centre].std() < 0.5 * plain[centre].std()


def test_anisotropy_stretches_horizontally():
    x = wave(64)
    t = get("zoom", factor=2.0, anisotropy=4.0)  # 1x vertically, 4x horizontally
    assert torch.allclose(t.pixel(x)[..., 32, 32], x[..., 32, 32], atol=0.02)
    assert torch.allclose(t.pixel(x)[..., 10, 31:33], x[..., 10, 31:33], atol=0.03)
    spread = t.pixel(x)[..., 1:] - t.pixel(x)[..., :-1]
    assert spread.abs().max() < 0.4 * (x[..., 1:] - x[..., :-1]).abs().max()


def test_shear_moves_rows_by_their_height():
    x = torch.zeros(1, 1, 64, 64)
    x[..., 32] = 1.0
    sheared = get("shear", x=45.0, y=0.0).pixel(x)
    columns = sheared[0, 0].argmax(-1)
    steps = columns[8:56].diff()
    assert (steps.abs() == 1).all()
    assert steps.unique().numel() == 1


def test_rotation_keeps_angles_on_oblong_images():
    x = torch.zeros(1, 1, 64, 128)
    x[..., 30:34, :] = 1.0  # a horizontal bar
    turned = get("rotate", angle=90.0).pixel(x)
    ys, xs = turned[0, 0].nonzero(as_tuple=True)
    assert xs.max() - xs.min() <= 5
    assert ys.max() - ys.min() >= 62


def test_perspective_sends_the_corners_where_it_says():
    moves = ((0.1, 0.2), (0.05, -0.1), (-0.1, -0.05), (-0.2, 0.1))
    side = 64
    t = at8("perspective", corners=moves)
    matrix = t.homography(1.0)[0]
    corners = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    points = F.pad(corners, (0, 1), value=1.0) @ matrix.T
    goal = corners + 2 * torch.tensor(moves, dtype=torch.float64).flip(-1)
    assert torch.allclose(points[:, :2] / points[:, 2:], goal, atol=1e-9)
    assert not t.mask(random_image(1, 1, side, side)).all()


@settings(max_examples=20, deadline=None)
@given(
    st.floats(-170, 170),
    st.floats(0.7, 1.5),
    st.floats(-0.2, 0.2),
    st.floats(-20, 20),
    st.sampled_from([(32, 32), (24, 40)]),
)
def test_the_warp_is_kornias(angle, scale, move, shear, size):
    x = random_image(2, 3, *size).double()
    t = get(
        "affine",
        angle=angle,
        scale=scale,
        translate_y=move,
        translate_x=-move,
        shear_x=shear,
        antialias=False,
    )
    height, width = size
    # From relative coordinates to kornia's pixel indices, whose centres are whole numbers.
    to_pixels = torch.tensor(
        [[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]],
        dtype=torch.float64,
    )
    matrix = to_pixels @ t.homography(width / height)[0] @ torch.linalg.inv(to_pixels)
    expected = warp_perspective(x, matrix[None].expand(2, 3, 3), size, align_corners=False)
    assert torch.allclose(t.pixel(x), expected, atol=1e-9)


# Theory: pooling commutes with every map, up to interpolation -------------------------------------

MAPS = [
    "rotate(angle=30)",
    "rotate(angle=-77,interpolation='bicubic')",
    "translate(y=0.1,x=-0.07)",
    "zoom(factor=1.4,y=0.3,x=0.8)",
    "zoom(factor=0.6)",
    "shear(y=5,x=15)",
    "affine",
    "perspective",
    "scale(factor=0.5)",
    "scale(factor=(0.75,0.5))",
    "scale(factor=1.5)",
    "fractional_shift(y=0.5,x=-1.25)",
]


@pytest.mark.parametrize("text", MAPS)
def test_an_equivariant_vae_has_only_the_interpolation_error(text):
    """`pool(T x)` against `ρ(pool x)`: of second order in the cell, as bilinear interpolation is.

    A half-pixel mistake on either grid would leave an error of first order.
    """
    errors = {}
    for side in (64, 128):
        x = wave(side)
        t = get(text).at_factor(FACTOR)
        ours, theirs = encode(t.pixel(x)), t.latent(encode(x))
        assert ours.shape == theirs.shape
        mask = t.mask(x)
        cells = torch.ones_like(ours[:, :1], dtype=torch.bool)
        if mask is not None:
            cells = F.avg_pool2d(mask[None, None].double(), FACTOR) == 1
        else:  # at the edge, interpolation clamps; that is of first order
            cells[..., :1, :] = cells[..., -1:, :] = cells[..., :1] = cells[..., -1:] = False
        assert cells.float().mean() > 0.2
        errors[side] = float((ours - theirs)[cells.expand_as(ours)].abs().max())
    assert errors[64] < 0.08
    if not text.startswith("fractional"):  # its error is that of wrapping, not of interpolation
        # torch's cubic kernel (a = -0.75) does not reproduce slopes, so that its error is of first order.
        assert errors[128] < (0.55 if "bicubic" in text else 0.35) * errors[64]


def test_fractional_shift_commutes_with_pooling_exactly_on_periodic_images():
    x = wave(64)
    t = FractionalShift(y=0.5, x=-1.25, cyclic=True, cell=FACTOR)
    assert torch.allclose(encode(t.pixel(x)), t.latent(encode(x)), atol=1e-12)
    assert torch.allclose(t.inverse.latent(t.latent(encode(x))), encode(x), atol=1e-12)


def test_a_perfect_vae_has_no_equivariance_gap():
    """Up-sampling by repetition decodes what pooling encodes; whole-cell moves lose nothing."""

    class Pooling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(()))

        def encode(self, x):
            return F.avg_pool2d(x, 8) * self.gain

        def decode(self, z):
            return F.interpolate(z, scale_factor=8, mode="nearest") * self.gain

    images = random_image(3, 3, 64, 64).float()
    names = ["rotate(angle=90)", "translate(y=0.125,x=0.25)", "crop", "shift", "rot180"]
    report = equivae.evaluate(Pooling(), images, names, progress=False)
    for name, found in report.metrics.transforms.items():
        assert abs(found.equivariance_gap_db) < 0.01, name
        assert found.encoder_relative_error < 1e-4, name


# Masks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [m for m in MAPS if not m.startswith("scale")])
def test_inside_the_mask_nothing_comes_from_outside(text):
    """Change what lies beyond the edge: embed the image in a larger one, and compare inside the mask."""
    t = get(text).at_factor(FACTOR)
    if text.startswith("fractional"):
        pytest.skip("its ideal interpolation reaches everywhere; the mask is AF-LDM's")
    x = random_image(1, 2, 64, 64)
    mask = t.mask(x)
    others = [dataclasses.replace(t, padding_mode=mode) for mode in ("border", "reflection")]
    for other in others:
        difference = (other.pixel(x) - t.pixel(x)).abs().amax((0, 1))
        assert difference[mask].max() < 5e-3
        cells = F.avg_pool2d(mask[None, None].float(), FACTOR)[0, 0] == 1
        z = encode(x)
        assert (other.latent(z) - t.latent(z)).abs().amax((0, 1))[cells].max() < 5e-3
    if not mask.all():
        assert (others[0].pixel(x) - t.pixel(x)).abs().amax((0, 1))[~mask].max() > 0.1


def test_a_cell_that_reaches_outside_invalidates_all_its_pixels():
    x = random_image(1, 1, 64, 64)
    for text in ("rotate(angle=20)", "translate(y=0.03,x=0)", "perspective"):
        mask = get(text).at_factor(8).mask(x)
        blocks = mask.reshape(8, 8, 8, 8).float().mean((1, 3))
        fine = get(text).at_factor(1).mask(x)
        assert fine.float().mean() > mask.float().mean()
        assert not (mask & ~fine).any()
        # A shift by 1.92 pixels of 64 makes the whole first row of cells invalid on the latent grid.
        if text.startswith("translate"):
            assert blocks[0].max() == 0
            assert blocks[1:].min() == 1


def test_what_is_behind_the_horizon_is_invalid():
    steep = ((0.0, 0.45), (0.0, -0.45), (-0.4, 0.0), (-0.4, 0.0))
    x = torch.ones(1, 1, 64, 64)
    t = get("perspective", corners=steep, cell=1)
    assert t.pixel(x).isfinite().all()
    assert t.pixel(x)[0, 0][t.mask(x)].min() > 0.99


def test_composed_masks_carry_what_was_invalid():
    x = random_image(1, 3, 64, 64)
    t = get("hflip") @ at8("translate", y=0.0, x=0.25)
    mask = t.mask(x).reshape(64, 64)
    assert mask[:, :48].all()
    assert not mask[:, 48:].any()
    there_and_back = at8("translate", y=0.0, x=-0.25) @ at8("translate", y=0.0, x=0.25)
    mask = there_and_back.mask(x).reshape(64, 64)
    assert mask[:, :48].all()
    assert not mask[:, 48:].any()


def test_a_user_function_carries_masks_through_nan():
    t = equivae.register_transform(
        "swap_and_negate",
        pixel=lambda x: -x[:, [2, 1, 0]].flip(-1),
        latent=lambda z: -z.flip(-1),
        override=True,
    )
    x = random_image(1, 3, 32, 32)
    mask = (t @ at8("translate", y=0.0, x=0.25)).mask(x)
    assert mask[..., :24].all()
    assert not mask[..., 24:].any()


# Sizes and options --------------------------------------------------------------------------------


@given(st.integers(8, 31), st.integers(8, 31))
def test_the_eqvae_grid_gives_whole_cells(s, r):
    t = at8("scale", factor=(s / 32, r / 32))
    assert t.pixel(torch.empty(1, 1, 256, 256, device="meta")).shape[-2:] == (8 * s, 8 * r)
    assert t.latent(torch.empty(1, 1, 32, 32, device="meta")).shape[-2:] == (s, r)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.2, 2.5), st.sampled_from([2, 4, 8]))
@settings(max_examples=30, deadline=None)
def test_scaled_sizes_agree_between_the_grids(height, width, by, cell):
    t = Scale(factor=by).at_factor(cell)
    image = t.pixel(torch.empty(1, 1, height * cell, width * cell, device="meta"))
    latent = t.latent(torch.empty(1, 1, height, width, device="meta"))
    assert image.shape[-2:] == tuple(side * cell for side in latent.shape[-2:])


@pytest.mark.parametrize("size", [(2, 1), (1, 1), (3, 1), (1, 4)])
def test_scaling_down_to_one_pixel_of_width_is_right(size):
    """torch 2.13 repeats the first row here when anti-aliasing."""
    z = torch.rand(2, 3, size[0] * 2, size[1] * 2, dtype=torch.float64)
    expected = F.interpolate(z.repeat_interleave(2, 0), size, mode="area")[::2]
    got = get("scale", factor=0.5).latent(z)
    assert (got - expected).abs().max() < 0.5
    column = torch.arange(4.0).reshape(1, 1, 4, 1).expand(1, 1, 4, 2)
    low, high = get("scale", factor=0.5).latent(column)[0, 0, :, 0]
    assert low < 1.5 < high


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("text", ["rotate(angle=20)", "scale(factor=0.5)", "fractional_shift"])
def test_half_precision_is_resampled_in_float32(text, dtype):
    x = random_image(1, 2, 128, 128)
    t = at8(text)
    assert t.pixel(x.to(dtype)).dtype == dtype
    assert torch.allclose(t.pixel(x.to(dtype)).float(), t.pixel(x.to(dtype).float()), atol=0.02)


def test_video_frames_move_alike():
    video = random_image(2, 3, 4, 32, 32)
    t = get("rotate", angle=25)
    assert torch.allclose(t.pixel(video)[:, :, 2], t.pixel(video[:, :, 2]), atol=1e-6)
    scaled = at8("scale", factor=0.5).pixel(video)
    assert scaled.shape == (2, 3, 4, 16, 16)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rotate(angle=3,padding_mode='mirror')", "padding_mode"),
        ("rotate(interpolation='lanczos')", "interpolation"),
        ("scale(factor=-1)", "above 0"),
        ("scale(factor=(1,2,3))", "pair"),
        ("zoom(factor=0)", "above 0"),
        ("perspective(corners=((0,0),))", "four pairs"),
        ("crop(size=1.5)", "size"),
        ("shift(y=0.5)", "fractional_shift"),
    ],
)
def test_options_outside_their_range_are_named(text, words):
    with pytest.raises(equivae.InputError, match=words.replace("(", r"\(")):
        get(text)


def test_a_side_of_no_whole_cells_is_refused():
    with pytest.raises(equivae.InputError, match="cell"):
        at8("scale").pixel(random_image(1, 3, 60, 64))
    assert get("scale").at_factor(4).pixel(random_image(1, 3, 64, 64)).shape[-1] == 32


def test_inverse_of_inverse_is_the_map_and_names_can_be_read_back():
    for name, inverted in itertools.product(
        ["rotate", "affine", "perspective", "zoom"], [False, True]
    ):
        t = get(name).inverse if inverted else get(name)
        again = get(t.name)
        x = random_image(1, 1, 32, 32)
        assert torch.equal(again.pixel(x), t.pixel(x))
        assert t.inverse.inverse.name == t.name
