"""Gradient steps that go on from the closed form, and the convolutions that they are taken through."""

from __future__ import annotations

import itertools
import time

import pytest
import torch
from torch import Tensor

import equivae
from equivae.data import load_images
from equivae.errors import InputError
from equivae.operators import FitOptions, fit_operators
from equivae.operators.geometry import phase_operator
from equivae.operators.options import NetworkOptions
from equivae.operators.phases import Geometry
from models import ConvAE
from test_fit import PatchAE, fit, noise

LEARNT = [
    "rot180",
    "scale(factor=2)",
    "scale(factor=0.5)",
    "scale(factor=1.5)",
    "exposure(factor=0.6)",
]


@pytest.mark.parametrize("transform", LEARNT)
def test_a_network_of_every_head_goes_on_from_the_closed_form(transform):
    vae, images = ConvAE(), noise(16, 3, 16, 16)
    options = {"validation_split": 0.25, "max_train_steps": 12, "learning_rate": 3e-3}
    t = fit(
        vae, transform, images, kernel_size=3, network="small", objective="decoded",
        inverse=False, **options,
    )  # fmt: skip
    linear, network = t.report.candidates
    assert (t.operator.width, len(t.operator.network)) == (32, 3)
    assert network.decoded_psnr > linear.decoded_psnr


def test_a_network_is_seeded():
    def weights(seed: int) -> Tensor:
        made = fit(
            ConvAE(), "rot180", noise(8, 3, 16, 16), kernel_size=1, network="small",
            max_train_steps=4, crop=8, seed=seed,
        )  # fmt: skip
        return torch.cat([p.flatten() for p in made.operator.parameters()])

    assert weights(0).equal(weights(0))
    assert not weights(0).equal(weights(1))


@pytest.mark.parametrize("objective", ["latent", "decoded"])
@pytest.mark.parametrize("transform", ["rot90", "scale(factor=0.5)", "zoom(factor=1.25)"])
def test_steps_learn_from_random_crops(transform, objective):
    vae = ConvAE()
    seen: list[int] = []
    inner = vae.encode
    vae.encode = lambda x: seen.append(x.shape[-1]) or inner(x)
    t = fit(
        vae, transform, noise(8, 3, 24, 40), kernel_size=1, objective=objective, crop=16,
        method="network", width=4, max_train_steps=3, inverse=False, phases=False,
    )  # fmt: skip
    assert seen.count(16) >= 3
    assert t.latent(torch.zeros(1, 4, 8, 8)).isfinite().all()


def test_seconds_end_the_steps():
    began = time.monotonic()
    fit(
        ConvAE(), "rot180", noise(8, 3, 16, 16), kernel_size=1, objective="decoded",
        max_train_steps=10**6, max_seconds=0.5,
    )  # fmt: skip
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("method", ["linear", "network"])
def test_steps_that_do_harm_are_given_back(method):
    """What is left is then the closed form of all images, not that of the training images alone."""
    options = {"kernel_size": 3, "validation_split": 0.25}
    images = noise(8, 3, 16, 16)
    t = fit(
        ConvAE(), "rot180", images, objective="decoded", method=method,
        max_train_steps=20, learning_rate=10.0, **options,
    )  # fmt: skip
    z = noise(2, 4, 8, 8)
    torch.testing.assert_close(t.latent(z), fit(ConvAE(), "rot180", images, **options).latent(z))
    linear, steps = t.report.candidates
    assert steps.decoded_psnr == linear.decoded_psnr


def test_the_inverse_is_left_out_when_it_is_not_wanted():
    images = noise(6, 3, 16, 16)
    assert fit(PatchAE(), "rot90", images, kernel_size=1, inverse=False).inverse_operator is None
    assert (
        fit(PatchAE(), "rot180", images, kernel_size=1, inverse=False).inverse.name
        == "rot180_fitted"
    )


def test_convolutions_are_what_the_windows_say():
    """Where windows repeat they are computed as strided convolutions; the two agree."""
    torch.manual_seed(0)
    ratios = [((1, 2), (1, 2)), ((3, 4), (3, 2)), ((2, 1), (2, 1)), ((1, 4), (4, 1))]
    geometries = [Geometry("scale", ratio=ratio) for ratio in ratios]
    geometries += [
        Geometry("shift", cells=cells) for cells in ((0.5, -1.25), (9.0, 0.0), (-30.5, 1e5))
    ]
    for geometry, side in itertools.product(geometries, (3, 4)):
        op = phase_operator(
            geometry, 3, (8, 8), 10**6, side, 5000, border=True, magnitude=True
        )  # fmt: skip
        op.weight.normal_()
        op.bias.normal_()
        z = torch.randn(2, 3, 8, 12)
        windows, phase, size = op.windows(z)
        expected = torch.einsum("bne,nce->bcn", windows, op.weight[phase]) + op.bias[phase].T
        torch.testing.assert_close(op(z), expected.reshape(2, 3, *size), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"crop": 32}, "at most as large"),
        ({"crop": 7}, "factor 2"),
        ({"crop": 8, "transform": "scale(factor=0.5)"}, "choose larger crops"),
        ({"crop": 10, "transform": "scale(factor=0.5)"}, "divide by 2"),
        ({"crop": 8, "objective": "latent"}, "takes none"),
        ({"network": "huge"}, "small"),
        ({"max_seconds": 0}, "max_seconds"),
    ],
)
def test_bad_input_of_the_steps(options, word):
    given = {"transform": "rot180", "objective": "decoded", **options}
    with pytest.raises(InputError, match=word):
        fit(ConvAE(), given.pop("transform"), noise(4, 3, 16, 16), kernel_size=1, **given)


def test_the_report_says_how_far_the_law_holds():
    """An exact involution is one; a network on latents that have none is not, and never said to be."""
    images = noise(12, 3, 16, 16)
    exact = fit(PatchAE(), "rot180", images, kernel_size=1, ridge=1e-9).report
    assert exact.inverse_consistency < 1e-4
    t = fit(ConvAE(), "rot180", images, kernel_size=1, network="small", max_train_steps=2)
    z = noise(2, 4, 8, 8)
    assert (t.latent(t.latent(z)) - z).norm() / z.norm() > 0.01
    assert t.report.inverse_consistency > 0.01
    assert f"changes latents by {t.report.inverse_consistency:.2g}" in t.report.to_markdown()


@pytest.mark.parametrize(
    ("transform", "side", "options", "word"),
    [
        ("scale(factor=0.5)", 10, {}, "divide by 2"),
        ("scale(factor=0.75)", 12, {}, "divide by 4"),
        ("scale(factor=0.5)", 16, {"objective": "decoded", "crop": 10}, "divide by 2"),
        ("rot90", 16, {"objective": "decoded", "crop": 32}, "at most as large"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_is_encoded(
    transform, side, options, word
):
    vae = ConvAE()
    seen: list[int] = []
    inner = vae.encode
    vae.encode = lambda x: seen.append(len(x)) or inner(x)
    with pytest.raises(InputError, match=word):
        fit(vae, transform, noise(4, 3, side, side), kernel_size=1, **options)
    assert sum(seen) <= 1  # the look at what the VAE's latents are


def test_several_transforms_learn_from_one_pass_of_encodes():
    """Every image is encoded once, and once more under each transform."""
    vae, images = ConvAE(), noise(6, 3, 16, 16)
    view = equivae.Autoencoder(vae)
    assert view.latent_channels == 4
    seen: list[int] = []
    inner = vae.encode
    vae.encode = lambda x: seen.append(len(x)) or inner(x)
    network = NetworkOptions(2, width=4, layers=2)
    options = FitOptions(
        3, "network", objective="decoded", network=network, inverse=False, progress=False
    )
    names = ["rot180", "scale(factor=0.5)", "exposure(factor=0.6)"]
    transforms = [equivae.get_transform(name) for name in names]
    made = fit_operators(view, transforms, load_images(images), options)
    assert sum(seen) - 1 == len(images) * (1 + len(transforms))  # one more for the fingerprint
    assert [one.operator.kind for one in made.values()] == ["network"] * 3
