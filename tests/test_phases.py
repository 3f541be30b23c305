"""Resampled latent ops: one filter for every phase, regressed on the untouched latent."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import equivae
from equivae.operators.build import build_operator
from equivae.operators.geometry import geometry_of, phase_operator
from equivae.operators.phases import Geometry, PhaseOperator
from equivae.operators.regression import PhaseRegression
from equivae.transforms.base import mask_of_cells


class UnshuffleAE(nn.Module):
    """Mixes the 12 values of every 2x2 patch by an invertible matrix, so that it loses nothing."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(12, 12, generator=generator) / 4 + torch.eye(12))

    def encode(self, images: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", self.matrix, F.pixel_unshuffle(images, 2))

    def decode(self, latents: Tensor) -> Tensor:
        patches = torch.einsum("oc,bchw->bohw", torch.linalg.inv(self.matrix), latents)
        return F.pixel_shuffle(patches, 2)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scale(p: int, q: int) -> Geometry:
    return Geometry("scale", ratio=((p, q), (p, q)))


GEOMETRIES = {
    "scale(factor=0.5)": 1,
    "scale(factor=2)": 4,
    "scale(factor=1.5)": 9,
    "scale(factor=0.75)": 9,
    "scale(factor=(1, 2))": 2,
    "fractional_shift(y=0.5, x=0.25)": 1,
    "fractional_shift(y=0.5, x=0, cyclic=True)": 1,
    "translate(cells=(0.5, -1.25))": 1,
    "rotate(angle=15)": 36,
}


@pytest.mark.parametrize(("name", "phases"), GEOMETRIES.items())
def test_a_known_operator_is_recovered(name, phases):
    geometry = geometry_of(equivae.get_transform(name))
    template = phase_operator(geometry, 2, (12, 12), 10**6, 3, 1000, border=True, magnitude=True)
    assert len(template.phases) == phases
    template = template.double()
    template.blended = False  # what is blended is no sample of one phase
    template.weight.copy_(gaussian(*template.weight.shape, seed=1))
    template.bias.copy_(gaussian(*template.bias.shape, seed=2))
    x = gaussian(80 if phases == 36 else 24, 2, 12, 12)
    y = template(x)
    assert y.shape[-2:] == geometry.size(12, 12)
    equations = PhaseRegression(template)
    for rows in torch.arange(len(x)).split(8):
        equations.add(x[rows], y[rows])
    solution = equations.solve(0.0)
    assert equations.error(solution) < 1e-6
    fresh = gaussian(2, 2, 12 if phases == 36 else 24, 12, seed=5)
    found = equations.operator(solution).double()
    torch.testing.assert_close(found(fresh), template(fresh), atol=1e-3, rtol=1e-3)


WARPS = [
    "rotate(angle=15)",
    "zoom(factor=1.5)",
    "zoom(factor=0.8, y=0.2)",
    "translate(y=0.1, x=-0.05)",
    "shear(x=10)",
    "affine",
    "perspective",
    "translate(cells=(0.5, -1.25))",
    "scale(factor=1.5)",
    "scale(factor=0.75, antialias=False)",
]


@given(name=st.sampled_from(WARPS), inverted=st.booleans(), height=st.sampled_from([8, 12, 16]))
@settings(max_examples=30, deadline=None)
def test_the_places_are_those_that_the_plain_op_reads(name, inverted, height):
    """A latent that holds its own coordinates is interpolated to the places."""
    t = equivae.get_transform(name)
    if inverted and not name.startswith("scale"):
        t = t.inverse
    width = 12
    grid = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ).double()
    found = geometry_of(t).places(height, width).permute(2, 0, 1)
    if hasattr(t, "antialias"):
        t = type(t)(**{**{k: getattr(t, k) for k in t.__dataclass_fields__}, "antialias": False})
    read = t.latent(grid[None])[0]
    limit = torch.tensor([height - 1.0, width - 1.0]).view(2, 1, 1)
    inside = ((found >= 0) & (found <= limit)).all(0)
    assert inside.float().mean() > 0.2
    torch.testing.assert_close(read[:, inside], found[:, inside], atol=1e-6, rtol=1e-6)


def test_what_numbers_cannot_describe_is_interpolated_as_before():
    assert geometry_of(equivae.get_transform("rot90")) is None
    assert geometry_of(equivae.get_transform("rotate", padding_mode="reflection")) is None
    assert geometry_of(equivae.get_transform("scale", factor=0.7071)) is None
    images = equivae.data.dead_leaves(8, size=32)
    t = equivae.fit_latent_op(
        UnshuffleAE(), "scale(factor=0.5)", images, 3, phases=False, progress=False
    )
    assert not t.operator.moves_grid
    assert not t.report.is_plain


@pytest.mark.parametrize("inverse", [False, True])
def test_a_shift_by_half_a_cell_is_exact_where_nothing_is_lost(inverse):
    """One pixel of a cell of two: linear in the neighbours, which interpolation has thrown away."""
    images = (torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(0)) - 0.5) * 1.8
    shift = equivae.get_transform("fractional_shift", y=0.5, x=0.5)
    vae = UnshuffleAE()
    t = equivae.fit_latent_op(vae, shift, images, 3, progress=False)
    old = equivae.fit_latent_op(vae, shift, images, 3, progress=False, phases=False)
    assert t.report.latent_error < 1e-2 < 0.1 < old.report.latent_error
    moving = t.inverse if inverse else t
    with torch.no_grad():
        moved = moving.latent(vae.encode(images))[..., 2:-2, 2:-2]
        expected = vae.encode(moving.pixel(images))[..., 2:-2, 2:-2]
    assert (moved - expected).norm() / expected.norm() < 1e-2


def test_between_the_phases_of_a_rotation_is_interpolated():
    """Bilinear sampling is linear between cells, so phases that have the cells among them tell all of it."""
    turn = equivae.get_transform("rotate", angle=15)
    axis = torch.arange(5) / 5 - 0.4
    phases = torch.cartesian_prod(axis, axis)
    operator = PhaseOperator(
        1, (3, 3), geometry_of(turn), phases, 0.1, border=False, blended=True
    ).double()
    hats = (1 - (phases.double()[:, :, None] - torch.arange(-1, 2)).abs()).clamp_min(0)
    operator.weight.copy_((hats[:, 0, :, None] * hats[:, 1, None, :]).flatten(1)[:, None])
    x = gaussian(2, 1, 16, 12)
    expected, places = turn.latent(x), geometry_of(turn).places(16, 12)
    whole = ((places >= 0) & (places <= torch.tensor([15, 11]))).all(-1)
    assert whole.sum() > 50
    torch.testing.assert_close(operator(x)[..., whole], expected[..., whole], atol=1e-5, rtol=0)
    config = operator.config()
    assert build_operator(config).blended
    del config["blended"]  # as earlier files are
    nearest = build_operator(config).double()
    nearest.load_state_dict(operator.state_dict())
    assert (nearest(x) - expected)[..., whole].abs().max() > 0.1


def test_a_rotation_fitted_between_its_phases_has_less_error():
    images, vae = equivae.data.dead_leaves(36, size=32), UnshuffleAE()
    t = equivae.fit_latent_op(vae, "rotate(angle=15)", images, 3, inverse=False, progress=False)
    assert t.operator.blended
    fresh = equivae.data.dead_leaves(8, size=32, seed=5)
    inside = mask_of_cells(t.mask(fresh), (16, 16))[0, 0]

    @torch.no_grad()
    def error() -> float:
        expected = vae.encode(t.pixel(fresh))[..., inside]
        return float((t.latent(vae.encode(fresh))[..., inside] - expected).norm() / expected.norm())

    between = error()
    assert between == pytest.approx(t.report.latent_error, rel=0.3)
    t.operator.blended = False
    assert between < 0.9 * error()
    fixed = [
        equivae.fit_latent_op(
            vae, "rotate(angle=15)", images, 3, ridge=ridge, inverse=False, progress=False
        ).report.latent_error
        for ridge in (1e-4, 1e-2, 1e-1)
    ]
    assert t.report.latent_error <= min(fixed)  # the ridge suits what is blended


def test_a_rotation_has_as_many_phases_as_its_cells_can_bear():
    geometry = geometry_of(equivae.get_transform("rotate", angle=15))
    none, few, many = (
        phase_operator(geometry, 2, (16, 16), cells, 3, 1000, border=True, magnitude=False)
        for cells in (100, 1000, 10**6)
    )
    assert none is None  # a single phase is worse than interpolating first
    assert len(few.phases) == 16
    assert len(many.phases) == 36
    assert many(gaussian(1, 2, 9, 14)).shape == (1, 2, 9, 14)


def test_the_report_says_when_a_rotation_is_interpolated_first():
    vae, sentence = UnshuffleAE(), "too few for a filter for every phase"
    images = equivae.data.dead_leaves(36, size=32)

    def report(count: int, phases: bool = True) -> equivae.operators.FitReport:
        t = equivae.fit_latent_op(
            vae, "rotate(angle=15)", images, 3, max_samples=count, phases=phases, progress=False
        )
        assert not t.report.is_plain
        assert t.operator.moves_grid == (count == 36)
        return t.report

    few, many = report(8), report(36)
    assert few.interpolates
    assert sentence in few.to_markdown()
    for other in (many, report(8, phases=False)):  # asked for, it needs no word
        assert not other.interpolates
        assert sentence not in other.to_markdown()


def test_a_window_grows_where_the_grid_shrinks_and_stays_within_its_entries():
    def kernel(p: int, q: int, most: int = 10**6) -> tuple[int, ...]:
        return phase_operator(
            scale(p, q), 4, (16, 16), 10**6, 3, most, border=False, magnitude=False
        ).kernel

    assert kernel(2, 1) == (3, 3)
    assert kernel(1, 2) == (4, 4)
    assert kernel(1, 4) == (10, 10) or kernel(1, 4)[0] % 2 == 0
    assert kernel(1, 4)[0] > kernel(1, 2)[0]
    assert 4 * kernel(1, 4, most=300)[0] ** 2 <= 300


@pytest.mark.parametrize("side", [7, 9])
def test_sides_that_a_ratio_does_not_divide_are_refused(side):
    operator = PhaseOperator(2, (3, 3), scale(3, 2), torch.zeros(1, 2))
    with pytest.raises(equivae.InputError, match="divide by 2"):
        operator(torch.zeros(1, 2, side, 8))


def test_a_constant_entry_gets_no_weight():
    """Inside the mask of a rotation the channel of ones is 1 everywhere, and tells nothing."""
    images = equivae.data.dead_leaves(12, size=64)
    t = equivae.fit_latent_op(
        equivae.zoo.load(), "rotate(angle=15)", images, 3, ridge=1e-9, inverse=False, progress=False
    )
    assert t.operator.weight.abs().max() < 10


def test_a_grid_with_other_phases_is_refused():
    geometry = Geometry("warp", matrix=((1.0, 0.0, 0.05), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    operator = phase_operator(geometry, 2, (20, 20), 100, 3, 99, border=False, magnitude=False)
    operator(torch.zeros(1, 2, 20, 20))
    with pytest.raises(equivae.InputError, match="phases"):
        operator(torch.zeros(1, 2, 20, 31))


def test_it_follows_the_contract():
    images = (torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(0)) - 0.5) * 1.8
    laws = ["shape", "dtype", "device", "mask", "determinism", "gradient", "batch independence"]
    for name in ("rotate(angle=15)", "scale(factor=2)"):
        t = equivae.fit_latent_op(UnshuffleAE(), name, images, 3, progress=False)
        equivae.testing.check_transform(t, factor=2, latent_channels=12, laws=laws, max_examples=4)


@pytest.mark.parametrize("phases", [True, False])
def test_cells_outside_the_mask_stay_of_the_size_of_latents(phases):
    vae = equivae.load_vae("embedded")
    images = equivae.data.dead_leaves(16, size=64, seed=1)
    made = equivae.fit_latent_op(
        vae, "rotate(angle=15)", images, phases=phases, inverse=False, progress=False
    )
    larger = equivae.Autoencoder(vae).encode(equivae.data.dead_leaves(1, size=128, seed=2)[0][None])
    assert made.latent(larger).abs().max() < 2 * larger.abs().max()


@pytest.mark.parametrize(
    ("name", "learns"),
    [("rot180", True), ("rotate(angle=15)", False), ("translate(cells=(0.5, 0))", False)],
)
def test_a_border_is_learned_only_where_the_mask_shows_it(name, learns):
    made = equivae.fit_latent_op(
        UnshuffleAE(), name, equivae.data.dead_leaves(8, size=32), kernel_size=3, inverse=False
    )
    learned = getattr(made.operator, "border", False) or "border_weight" in dict(
        made.operator.named_parameters()
    )
    assert learned is learns
