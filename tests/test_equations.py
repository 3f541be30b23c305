"""How a fit is solved and judged: sums that keep their digits, errors on images that it has not seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import equivae
from equivae.operators import FitOptions, ResidualOperator
from equivae.operators.modules import ConvOperator
from equivae.operators.moments import Moments
from equivae.operators.options import NetworkOptions
from equivae.operators.pairs import latent_pairs
from equivae.operators.problems import gather
from equivae.operators.regression import PatchRegression
from equivae.operators.solve import candidates, finished, latent_error, operator_psnr, solved
from models import ConvAE, noise


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem_of(options: FitOptions, images: Tensor, name: str = "rot180"):
    vae = equivae.Autoencoder(ConvAE())
    dataset = equivae.data.load_images(images)
    problems, _ = gather(vae, [equivae.get_transform(name)], dataset, options)
    return vae, problems[name]


# Sums -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_a_large_mean_costs_no_digits(mean):
    x = (gaussian(40, 3, 6, 6) + mean).float()
    weight = gaussian(3, 3, seed=1)
    y = torch.einsum("oc,bchw->bohw", weight, x.double() - mean).float()
    equations = PatchRegression(3, (1, 1), "zeros")
    for rows in torch.arange(40).split(8):
        equations.add(x[rows], y[rows])
    solution = equations.solve(0.0)
    torch.testing.assert_close(solution.weight[:, :, 0, 0], weight, atol=2e-3, rtol=2e-3)
    assert equations.error(solution) < 1e-3


def test_sums_about_other_means_add_up():
    a, y = gaussian(60, 4) + 5, gaussian(60, 2) - 3
    whole, first, second = Moments(4, 2), Moments(4, 2), Moments(4, 2)
    for rows in torch.arange(60).split(20):
        whole.add(a[rows], y[rows])
    first.add(a[:25], y[:25])
    second.add(a[25:] * 1.0, y[25:])
    both = first + second
    assert not first.shift.equal(second.shift)
    expected, found = whole.solve(1e-3), both.solve(1e-3)
    torch.testing.assert_close(found.weight, expected.weight)
    torch.testing.assert_close(found.bias, expected.bias)
    torch.testing.assert_close(both.residuals(found), whole.residuals(expected))
    torch.testing.assert_close(both.power, y.square().sum(0))
    torch.testing.assert_close(
        both.residuals(found), (a @ found.weight + found.bias - y).square().sum(0)
    )


def test_eigenvectors_and_cholesky_agree(monkeypatch):
    moments = Moments(6, 2)
    moments.add(gaussian(50, 6), gaussian(50, 2, seed=1))
    first = moments.solve(1e-2)
    monkeypatch.setattr("equivae.operators.moments._MOST_FOR_EIGENVECTORS", 0)
    torch.testing.assert_close(moments.solve(1e-2).weight, first.weight)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1)])
def test_a_border_and_magnitudes_are_recovered(kernel):
    true = ConvOperator(2, 3, border=True, magnitude=3).double()
    for i, parameter in enumerate(true.parameters()):
        parameter.copy_(gaussian(*parameter.shape, seed=i))
    x = gaussian(30, 2, 7, 7, seed=9)
    equations = PatchRegression(2, (3, 3), "zeros", border=True, magnitude=3)
    equations.add(x, true(x))
    solution = equations.solve(0.0, kernel)
    if kernel == (3, 3):
        assert equations.error(solution) < 1e-6
        found = equations.operator(solution).double()
        torch.testing.assert_close(found(x), true(x), atol=1e-4, rtol=1e-4)
    else:
        found = equations.operator(solution).double()
        error = (found(x) - true(x)).norm() / true(x).norm()
        assert equations.error(solution) == pytest.approx(float(error), rel=1e-4)


def test_the_border_channel_keeps_the_edge_out_of_the_kernel():
    true = ConvOperator(2, 3, border=True).double()
    for i, parameter in enumerate(true.parameters()):
        parameter.copy_(gaussian(*parameter.shape, seed=i))
    x = gaussian(30, 2, 5, 5, seed=9) + 1
    errors = []
    for border in (False, True):
        equations = PatchRegression(2, (3, 3), "zeros", border=border)
        equations.add(x, true(x))
        errors.append(equations.error(equations.solve(0.0)))
    assert errors[1] < 1e-6 < 0.05 < errors[0]


# Wide latents -----------------------------------------------------------------------------------


def test_all_principal_components_are_the_whole_kernel():
    x, y = gaussian(20, 4, 6, 6), gaussian(20, 4, 6, 6, seed=1)
    whole = PatchRegression(4, (3, 3), "zeros")
    reduced = PatchRegression(4, (3, 3), "zeros", rank=4)
    for equations in (whole, reduced):
        equations.add(x, y)
    expected, found = (e.operator(e.solve(1e-9)) for e in (whole, reduced))
    torch.testing.assert_close(found.weight, expected.weight, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found(x.float()), expected(x.float()), atol=1e-4, rtol=1e-3)


def test_wide_latents_are_fitted_through_fewer_components(monkeypatch):
    monkeypatch.setattr("equivae.operators.problems._MOST_ENTRIES", 30)
    vae, problem = problem_of(FitOptions(3, progress=False), noise(6, 3, 16, 16))
    train = problem.equations.train
    assert (train.rank, train.entries) == (1, 4 + 9 + 9)
    chosen = solved(problem, vae, FitOptions(3, progress=False))
    made = finished(problem, chosen, vae, [], FitOptions(3, progress=False))
    assert made.operator.kernel == (3, 3)
    assert made.latent_error < problem.grid_error
    with pytest.raises(equivae.InputError, match="too large for 4 latent channels"):
        problem_of(FitOptions(7, progress=False), noise(6, 3, 16, 16))


# Held out ---------------------------------------------------------------------------------------


def test_candidates_are_judged_on_images_that_they_have_not_seen():
    options = FitOptions("auto", validation_split=0.5, progress=False)
    vae, problem = problem_of(options, noise(4, 3, 16, 16))
    for one in candidates(problem, options):
        assert one.latent_error == pytest.approx(latent_error(problem, one.operator), rel=1e-3)
    chosen = solved(problem, vae, options)
    # A kernel of 7x7 has more unknowns than there are cells: it fits them, and nothing else.
    errors = [c.latent_error for c in chosen.candidates]
    assert errors[-1] > min(errors)
    made = finished(problem, chosen, vae, [], options)
    assert not made.operator.weight.equal(chosen.operator.weight)  # refitted on all images
    assert latent_error(problem, made.operator) < made.latent_error


def test_the_decoded_psnr_of_a_report_is_that_of_the_candidate():
    options = FitOptions("auto", progress=False)
    vae, problem = problem_of(options, noise(6, 3, 16, 16))
    chosen = solved(problem, vae, options)
    found = operator_psnr(problem, vae, chosen.operator)
    assert found == pytest.approx(chosen.decoded_psnr)
    (pair,) = problem.decoded()
    with torch.no_grad():
        moved = vae.decode(chosen.operator(pair.moved)).clamp(-1, 1)
    error = (moved - pair.source.flip(-2, -1)).div(2).square().mean()
    assert found == pytest.approx(float(-10 * torch.log10(error)), rel=1e-4)


def test_too_few_images_say_how_many_are_needed():
    with pytest.raises(
        equivae.InputError, match=r"singular: 64 cells for 125 .* at least 7 images"
    ):
        equivae.fit_latent_op(
            ConvAE(), "rot90", noise(3, 3, 16, 8), 5, ridge=0, validation_split=0.4, progress=False
        )


# Precision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed_precision", ["no", "bf16", "fp16"])
def test_only_the_encoder_runs_in_half_precision(mixed_precision):
    vae = equivae.Autoencoder(ConvAE())
    images = equivae.data.load_images(noise(4, 3, 16, 16))
    rot90 = equivae.get_transform("rot90")
    for batch in latent_pairs(
        vae, images, [rot90], mixed_precision=mixed_precision, progress=False
    ):
        assert not torch.is_autocast_enabled("cpu")
        assert {pair.moved.dtype for pair in batch} == {torch.float32}
    made = equivae.fit_latent_op(
        ConvAE(), "rot90", noise(4, 3, 16, 16), 3, mixed_precision=mixed_precision, progress=False
    )
    assert made.operator.weight.isfinite().all()


# Gradient steps ---------------------------------------------------------------------------------


def test_a_network_has_its_own_seed():
    def network(seed: int, around: int) -> Tensor:
        torch.manual_seed(around)
        before = torch.random.get_rng_state()
        made = ResidualOperator(ConvOperator(2, 3), 4, seed=seed).network[0].weight
        assert torch.random.get_rng_state().equal(before)
        return made

    assert network(0, 1).equal(network(0, 2))
    assert not network(0, 1).equal(network(1, 1))


def test_network_and_convolution_are_judged_on_the_same_images():
    options = FitOptions(
        3, "network", validation_split=0.5, progress=False, network=NetworkOptions(1, 1e-12)
    )
    vae, problem = problem_of(options, noise(24, 3, 8, 8))
    made = finished(problem, solved(problem, vae, options), vae, [], options)
    linear, network = made.candidates
    assert network.latent_error == pytest.approx(linear.latent_error, rel=1e-5)
    assert network.decoded_psnr == pytest.approx(linear.decoded_psnr, rel=1e-5)


def test_a_decoded_objective_trades_latent_error_for_decoded_error():
    vae, images = ConvAE(), noise(24, 3, 16, 16)
    made = equivae.fit_latent_op(
        vae, "rot180", images, 3, objective="decoded", max_train_steps=80, learning_rate=1e-2,
        validation_split=0.25, progress=False,
    )  # fmt: skip
    linear, decoded = made.report.candidates
    assert (linear.method, decoded.method) == ("linear", "decoded")
    assert decoded.decoded_psnr > linear.decoded_psnr + 0.1
    assert decoded.latent_error > linear.latent_error
    assert all(p.grad is None and p.requires_grad for p in vae.parameters())
    assert not made.operator.weight.requires_grad


# A transform of its own -------------------------------------------------------------------------


def test_a_fitted_transform_computes_values_and_says_so():
    made = equivae.fit_latent_op(ConvAE(), "rot90", noise(4, 3, 16, 16), 3, progress=False)
    assert made.base.exact
    assert not made.exact
    laws = ["shape", "dtype", "device", "determinism", "gradient", "batch independence"]
    equivae.testing.check_transform(made, factor=2, laws=laws, max_examples=4)
