"""Latent operators: the least squares behind them, and the transforms that they make."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import equivae
from equivae.operators import (
    ConvOperator,
    ResidualOperator,
    closure_error,
    nearest_involution,
    operators_of,
    sign_signature,
)
from equivae.operators.build import build_operator
from equivae.operators.modules import pad_cells
from equivae.operators.pairs import latent_pairs
from equivae.operators.regression import PatchRegression

D4 = [t.name for t in equivae.get_group("d4") if t.name != "identity"]


class PatchAE(nn.Module):
    """Mixes the 12 values of every 2x2 patch by an invertible matrix, so that it loses nothing.

    Moving the pixels of a patch is then a 1x1 operator on its latent, which is known exactly.
    """

    def __init__(self, seed: int = 0, bias: float = 0.3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        matrix = torch.randn(12, 12, generator=generator) / 4 + torch.eye(12)
        self.matrix = nn.Parameter(matrix)
        self.bias = nn.Parameter(torch.full((12, 1, 1), bias))

    def encode(self, images: Tensor) -> Tensor:
        patches = F.pixel_unshuffle(images, 2)
        return torch.einsum("oc,bchw->bohw", self.matrix, patches) + self.bias

    def decode(self, latents: Tensor) -> Tensor:
        inverse = torch.linalg.inv(self.matrix)
        return F.pixel_shuffle(torch.einsum("oc,bchw->bohw", inverse, latents - self.bias), 2)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def fit(*args, **options):
    return equivae.fit_latent_op(*args, progress=False, **options)


# The regression ---------------------------------------------------------------------------------


KERNELS = [(1,), (5,), (1, 1), (3, 3), (5, 5), (3, 1), (1, 3, 3), (3, 1, 1), (3, 3, 3)]


@given(
    kernel=st.sampled_from(KERNELS),
    channels=st.integers(1, 3),
    sides=st.tuples(*[st.integers(4, 7)] * 3),
    padding=st.sampled_from(["zeros", "replicate", "reflect"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_a_known_operator_is_recovered(kernel, channels, sides, padding, seed):
    grid = sides[: len(kernel)]
    images = 2 + 40 * math.prod(kernel) * channels // math.prod(grid)
    x = gaussian(images, channels, *grid, seed=seed)
    weight = gaussian(channels, channels, *kernel, seed=seed + 1)
    bias = gaussian(channels, seed=seed + 2)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]
    y = convolve(pad_cells(x, kernel, padding), weight, bias)
    equations = PatchRegression(channels, kernel, padding)
    for rows in torch.arange(images).split(3):
        equations.add(x[rows], y[rows])
    solution = equations.solve(0.0)
    torch.testing.assert_close(solution.weight, weight, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(solution.bias, bias, atol=1e-8, rtol=1e-8)
    assert equations.error(solution) < 1e-6
    operator = equations.operator(solution).double()
    torch.testing.assert_close(operator(x), y, atol=1e-4, rtol=1e-4)
    assert build_operator(operator.config()).kernel == kernel


def test_streaming_agrees_with_one_least_squares_problem():
    x, y = gaussian(6, 2, 5, 5), gaussian(6, 2, 5, 5, seed=1)
    equations = PatchRegression(2, (3, 3), "zeros")
    for rows in torch.arange(6).split(2):
        equations.add(x[rows], y[rows])
    solution = equations.solve(0.0)
    patches = F.unfold(F.pad(x, [1] * 4), 3).transpose(1, 2).flatten(0, 1)
    patches = torch.cat([patches, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
    goals = y.flatten(2).transpose(1, 2).flatten(0, 1)
    expected = torch.linalg.lstsq(patches, goals).solution
    torch.testing.assert_close(solution.weight.flatten(1).T, expected[:-1])
    torch.testing.assert_close(solution.bias, expected[-1])
    residual = (patches @ expected - goals).norm() / goals.norm()
    assert equations.error(solution) == pytest.approx(float(residual), rel=1e-9)


def test_a_smaller_kernel_out_of_a_larger_one_is_its_own_fit():
    x, y = gaussian(8, 2, 6, 6), gaussian(8, 2, 6, 6, seed=1)
    large, small = PatchRegression(2, (5, 5), "zeros"), PatchRegression(2, (3, 3), "zeros")
    large.add(x, y)
    small.add(x, y)
    torch.testing.assert_close(large.solve(1e-3, (3, 3)).weight, small.solve(1e-3).weight)


def test_cells_outside_the_mask_have_no_say():
    x, y = gaussian(4, 2, 6, 6), gaussian(4, 2, 6, 6, seed=1)
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[2:5, 1:4] = True
    masked, spoiled = PatchRegression(2, (1, 1), "zeros"), PatchRegression(2, (1, 1), "zeros")
    masked.add(x, y, mask)
    spoiled.add(x, torch.where(mask, y, 1e6), mask)
    assert masked.count == 4 * 9
    assert masked.solve(0.0).weight.equal(spoiled.solve(0.0).weight)


def test_a_ridge_shrinks_the_kernel_and_not_the_bias():
    x = gaussian(8, 2, 6, 6)
    equations = PatchRegression(2, (1, 1), "zeros")
    equations.add(x, 2 * x + 7)
    loose, tight = equations.solve(0.0), equations.solve(1e6)
    assert tight.weight.abs().max() < 1e-3 < loose.weight.abs().max()
    torch.testing.assert_close(tight.bias, torch.full((2,), 7.0).double(), atol=0.2, rtol=0)


def test_the_ridge_is_chosen_on_held_out_cells():
    # Few noisy cells and many entries: without a ridge the held-out error is far worse.
    weight = gaussian(2, 2, 3, 3) / 10
    train, held_out = PatchRegression(2, (3, 3), "zeros"), PatchRegression(2, (3, 3), "zeros")
    for equations, seed in ((train, 1), (held_out, 2)):
        x = gaussian(1, 2, 5, 5, seed=seed)
        y = F.conv2d(F.pad(x, [1] * 4), weight) + 0.5 * gaussian(1, 2, 5, 5, seed=seed + 10)
        equations.add(x, y)
    solution, error = train.best(held_out)
    assert error < held_out.error(train.solve(0.0))
    assert solution.ridge > 1e-3


# The fit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", D4)
def test_an_exact_operator_is_found(name):
    vae, images = PatchAE(), noise(8, 3, 16, 16)
    t = fit(vae, name, images, kernel_size=1)
    with torch.no_grad():
        z = vae.encode(images)
        torch.testing.assert_close(t.latent(z), vae.encode(t.pixel(images)), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(t.inverse.latent(t.latent(z)), z, atol=2e-3, rtol=2e-3)
    assert t.report.latent_error < 1e-3 < 0.1 < t.report.grid_error


def test_the_vae_stays_bit_for_bit():
    vae = equivae.zoo.load().train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    fit(vae, "hflip", noise(4, 3, 16, 16), kernel_size=3)
    assert all(value.equal(before[name]) for name, value in vae.state_dict().items())
    assert vae.training
    assert all(p.grad is None and p.requires_grad for p in vae.parameters())


def test_it_beats_the_grid_move_on_images_it_has_not_seen():
    vae = equivae.zoo.load()
    t = fit(vae, "rot180", equivae.data.dead_leaves(16, 64), kernel_size=3)
    unseen = equivae.data.dead_leaves(4, 64, seed=1)
    report = equivae.evaluate(vae, unseen, ["rot180", t], progress=False)
    found = report.metrics.transforms
    assert found["rot180_fitted"].round_trip_psnr > found["rot180"].round_trip_psnr + 1


def test_a_larger_kernel_fits_the_training_cells_better():
    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(16, 64)
    errors = [fit(vae, "hflip", images, kernel_size=k).report.latent_error for k in (1, 3, 5)]
    assert errors[0] > errors[1] > errors[2]


def test_auto_names_its_evidence():
    report = fit(PatchAE(), "rot180", noise(6, 3, 16, 16), kernel_size="auto").report
    assert [c.kernel_size for c in report.candidates] == [1, 3, 5, 7]
    assert all(c.decoded_psnr is not None for c in report.candidates)
    assert report.kernel_size == 1  # exact already, and a larger one adds nothing
    assert "| linear 3x3 |" in report.to_markdown()
    assert repr(report) == report.summary() == report.to_markdown().split("\n\n|")[0].strip()
    assert "latent error" in repr(report)
    assert "candidates" not in repr(report)


@pytest.mark.parametrize(
    "options", [{"kernel_size": "auto"}, {"method": "network", "max_train_steps": 2}]
)
def test_candidates_are_decoded_under_mixed_precision(options):
    images = equivae.data.dead_leaves(4, size=48, seed=1)
    vae = equivae.zoo.load()
    fitted = equivae.fit_latent_op(
        vae, "hflip", images, mixed_precision="bf16", progress=False, **options
    )
    exact = equivae.fit_latent_op(vae, "hflip", images, progress=False, **options)
    for one, other in zip(fitted.report.candidates, exact.report.candidates, strict=True):
        assert one.decoded_psnr == pytest.approx(other.decoded_psnr, abs=0.3)


def test_the_network_starts_at_the_convolution_and_is_trained():
    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(12, 32)
    base = ConvOperator(4, 3)
    z = gaussian(2, 4, 6, 6).float()
    assert ResidualOperator(base)(z).equal(base(z))
    linear = fit(vae, "rot180", images, kernel_size=3)
    trained = fit(vae, "rot180", images, kernel_size=3, method="network", max_train_steps=60)
    assert [c.method for c in trained.report.candidates] == ["linear", "network"]
    assert trained.report.latent_error < linear.report.latent_error


def test_pairs_carry_the_way_back():
    vae, images = equivae.Autoencoder(PatchAE()), equivae.data.load_images(noise(2, 3, 8, 8))
    rot90 = equivae.get_transform("rot90")
    ((forward, back),) = latent_pairs(vae, images, [rot90], progress=False)
    assert (forward.transform.name, back.transform.name) == ("rot90", "rot270")
    assert back.target.equal(vae.encode(forward.source))
    assert back.moved.equal(rot90.inverse.latent(forward.target))


def test_a_masked_transform_is_fitted_inside_its_mask():
    class Erase(equivae.Transform):
        """Moves two pixels to the right; the first two columns are undetermined."""

        name = "erase"

        def pixel(self, x):
            return torch.cat([torch.ones_like(x[..., :2]), x[..., :-2]], -1)

        def latent(self, z):
            return torch.cat([torch.zeros_like(z[..., :1]), z[..., :-1]], -1)

        def mask(self, x):
            return torch.arange(x.shape[-1]).ge(2).expand(x.shape[-2:])

    t = fit(PatchAE(), Erase(), noise(8, 3, 16, 16), kernel_size=1)
    assert t.report.cells == 8 * 8 * 7
    assert t.report.latent_error < 1e-3
    torch.testing.assert_close(t.operator.weight[:, :, 0, 0], torch.eye(12), atol=1e-3, rtol=0)
    with pytest.raises(NotImplementedError):
        _ = t.inverse


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kernel_size": 4}, "kernel_size"),
        ({"kernel_size": 0}, "kernel_size"),
        ({"method": "linaer"}, "linear"),
        ({"padding": "zero"}, "zeros"),
        ({"ridge": -1.0}, "ridge"),
        ({"validation_split": 0.0}, "validation_split"),
        ({"eval_batch_size": 0}, "eval_batch_size"),
        ({"involution": True}, "kernel_size=1"),
        ({"method": "network", "max_train_steps": 0}, "max_train_steps"),
        ({"transform": "d4"}, "fit_latent_group"),
        ({"transform": "rot90", "kernel_size": 1, "involution": True}, "not an involution"),
        ({"transform": "rot18"}, "rot180"),
        ({"images": noise(1, 3, 16, 16)}, "two images"),
        ({"images": noise(2, 3, 15, 16)}, "factor"),
    ],
)
def test_bad_input(options, word):
    given_ = {"transform": "rot180", "images": noise(2, 3, 16, 16), **options}
    transform, images = given_.pop("transform"), given_.pop("images")
    with pytest.raises(equivae.InputError, match=word):
        fit(PatchAE(), transform, images, **given_)


# The fitted transform ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def turned() -> equivae.FittedTransform:
    return fit(PatchAE(), "rot90", noise(6, 3, 16, 16), kernel_size=3)


def test_it_keeps_the_contract_of_transforms(turned):
    for z in (gaussian(12, 4, 6), gaussian(2, 12, 4, 6).half(), gaussian(2, 3, 12, 4, 6)):
        moved = turned.latent(z)
        assert moved.shape == (*z.shape[:-2], 6, 4)
        assert moved.dtype == z.dtype
    z = gaussian(2, 12, 4, 6).requires_grad_()
    turned.latent(z).square().sum().backward()
    assert z.grad.abs().min() > 0
    batch = gaussian(3, 12, 4, 4)
    torch.testing.assert_close(turned.latent(batch)[1:2], turned.latent(batch[1:2]))
    assert turned.swaps_axes
    assert turned.draw(4) is turned
    assert turned.inverse.inverse.name == turned.name


def test_latents_of_another_vae_are_refused(turned):
    with pytest.raises(equivae.InputError, match="12 latent channels"):
        turned.latent(torch.zeros(1, 4, 8, 8))


def test_registered_it_is_found_by_name(turned):
    made = turned.register("my_quarter_turn", override=True)
    assert equivae.get_transform("my_quarter_turn") is made
    assert equivae.resolve_transforms("my_quarter_turn") == [made]
    with pytest.raises(equivae.InputError, match="registered already"):
        turned.register("my_quarter_turn")


def test_composed_it_applies_both(turned):
    z = gaussian(1, 12, 4, 4)
    hflip = equivae.get_transform("hflip")
    assert (hflip @ turned).latent(z).equal(hflip.latent(turned.latent(z)))
    assert operators_of([hflip @ turned, turned]) == [turned.operator]


def test_a_loss_trains_the_vae_and_not_the_operator():
    vae, images = PatchAE(), noise(4, 3, 16, 16)
    t = fit(vae, "rot180", images, kernel_size=1)
    out = equivae.EquivarianceLoss(t)(vae, images)
    out.loss.backward()
    assert list(out.terms) == ["reconstruction", "equivariance/rot180_fitted"]
    assert vae.matrix.grad is not None
    assert t.operator.weight.grad is None


# Training along ---------------------------------------------------------------------------------


def test_finetune_trains_the_operator_along_and_leaves_the_one_given(tmp_path):
    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(6, 16)
    t = fit(vae, "rot180", images, kernel_size=3)
    before = t.operator.weight.clone()
    options = {
        "train": "decoder",
        "train_operator": True,
        "max_train_steps": 4,
        "train_batch_size": 2,
        "progress": False,
    }
    result = equivae.finetune(vae, images, t, tmp_path / "a", **options)
    (tuned,) = result.transforms
    assert t.operator.weight.equal(before)
    assert not tuned.operator.weight.equal(before)
    assert not tuned.operator.weight.requires_grad
    loaded = equivae.load_latent_op(tmp_path / "a" / "operators" / t.name)
    assert loaded.operator.weight.equal(tuned.operator.weight)
    for mine, old in zip(result.vae.encoder.parameters(), vae.encoder.parameters(), strict=True):
        assert mine.equal(old)
    options["resume_from_checkpoint"] = "latest"
    again = equivae.finetune(vae, images, t, tmp_path / "a", **options)
    assert again.transforms[0].operator.weight.equal(tuned.operator.weight)


def test_an_operator_left_fixed_stays_as_it_is(tmp_path):
    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(4, 16)
    t = fit(vae, "rot180", images, kernel_size=1)
    before = t.operator.weight.clone()
    result = equivae.finetune(
        vae, images, t, tmp_path / "a", recipe="decoder", max_train_steps=2, progress=False
    )
    assert result.transforms == [t]
    loaded = equivae.load_latent_op(tmp_path / "a" / "operators" / t.name)
    assert loaded.operator.weight.equal(t.operator.weight)
    assert loaded.operator.weight.equal(before)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"train": "decoder"}, "fitted transforms"), ({"train": "all"}, "decoder")],
)
def test_there_has_to_be_an_operator_to_train(tmp_path, options, word):
    with pytest.raises(equivae.InputError, match=word):
        equivae.finetune(
            equivae.zoo.load(),
            noise(2, 3, 16, 16),
            "rot180",
            tmp_path,
            train_operator=True,
            **options,
        )


# Groups and representations ---------------------------------------------------------------------


@pytest.mark.parametrize("basis", ["elements", "generators"])
@pytest.mark.parametrize("group", ["c2", "d2", "c4", "d4"])
def test_a_group_of_exact_operators_closes(group, basis):
    vae, images = PatchAE(), noise(6, 3, 16, 16)
    fitted = equivae.fit_latent_group(vae, group, images, 1, basis=basis, progress=False)
    assert list(fitted.transforms) == [t.name for t in equivae.get_group(group)]
    assert fitted.closure_error < 1e-2
    with torch.no_grad():
        for name, t in fitted.transforms.items():
            expected = vae.encode(equivae.get_transform(name).pixel(images))
            assert (t.latent(vae.encode(images)) - expected).norm() / expected.norm() < 1e-2


def test_the_grid_moves_of_generators_multiply_to_the_element():
    fitted = equivae.fit_latent_group(
        PatchAE(), "d4", noise(3, 3, 8, 8), 1, basis="generators", progress=False
    )
    x = noise(1, 3, 8, 6)
    for name, t in fitted.transforms.items():
        assert t.pixel(x).equal(equivae.get_transform(name).pixel(x))


def test_closure_error_of_a_known_defect():
    identity, z = equivae.get_transform("identity"), gaussian(2, 3, 4, 4)
    doubling = equivae.FittedTransform(identity, ConvOperator(3))
    doubling.operator.weight.mul_(2)
    assert closure_error(doubling, doubling, identity, z) == pytest.approx(3.0)
    assert closure_error(identity, identity, identity, z) == 0.0


@given(seed=st.integers(0, 1000), channels=st.integers(1, 6), negative=st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_signs_are_counted_and_noise_is_projected_away(seed, channels, negative):
    negative = min(negative, channels)
    signs = torch.tensor([-1.0] * negative + [1.0] * (channels - negative)).double()
    basis = gaussian(channels, channels, seed=seed) / 4 + torch.eye(channels)
    noisy = basis @ (signs + 0.1 * gaussian(channels, seed=seed + 1)).diag() @ basis.inverse()
    operator = ConvOperator(channels)
    operator.weight.copy_(noisy[:, :, None, None])
    operator.bias.copy_(gaussian(channels, seed=seed + 2))
    found = sign_signature(operator)
    assert (found.positive, found.negative) == (channels - negative, negative)
    assert found.residual > 1e-4
    projected = nearest_involution(operator)
    z = gaussian(1, channels, 3, 3).float()
    scale = 1 + float(projected.weight.abs().max()) ** 2
    torch.testing.assert_close(projected(projected(z)), z, atol=1e-4 * scale, rtol=1e-4)
    assert sign_signature(projected).negative == negative


def test_an_involution_undoes_itself():
    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(8, 32)
    t = fit(vae, "hflip", images, kernel_size=1, involution=True)
    assert t.inverse is t
    assert t.report.inverse_consistency < 1e-4
    with pytest.raises(equivae.InputError, match="1x1"):
        nearest_involution(ConvOperator(4, 3))
