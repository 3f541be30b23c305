"""Feature cosine, Fréchet distance and perceptual distance, with backbones of one's own."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

import equivae
from equivae import InputError
from equivae.evaluation.features import (
    FeatureSums,
    frechet_distance,
    resolve_features,
    resolve_lpips,
)
from models import ConvAE, PoolAE, cells, noise


def evaluate(vae, images, transforms="rot180", **options):
    return equivae.evaluate(vae, images, transforms, sweep_samples=0, progress=False, **options)


def sums(features: torch.Tensor) -> FeatureSums:
    found = FeatureSums()
    for part in features.split(7):
        found.add(part)
    return found


def test_frechet_distance_of_gaussians_known_by_hand():
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    a, b = signs * torch.tensor([1.0, 2]), signs * torch.tensor([3.0, 5]) + torch.tensor([1.0, -2])
    # Of diagonal covariances: |μ₁ - μ₂|² + Σ (σ₁ - σ₂)², with the unbiased σ² = 4/3 of ±1.
    expected = 1 + 4 + 4 / 3 * ((3 - 1) ** 2 + (5 - 2) ** 2)
    assert frechet_distance(sums(a), sums(b)) == pytest.approx(expected)
    assert frechet_distance(sums(a), sums(a)) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_against_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Flat(nn.Module):
        num_features = 12

        def forward(self, images):
            return images.flatten(1)[:, :12]

    a, b = torch.rand(64, 3, 2, 2), torch.rand(64, 3, 2, 2) ** 2
    metric = fid.FrechetInceptionDistance(Flat(), normalize=True)
    metric.update(a, real=True)
    metric.update(b, real=False)
    found = frechet_distance(sums(a.flatten(1)), sums(b.flatten(1)))
    assert found == pytest.approx(float(metric.compute()), abs=1e-4)


def test_a_backbone_gives_cosine_and_rfid():
    seen = []

    def backbone(images):
        seen.append(images)
        return images.mean((2, 3))

    x = noise(5, 3, 8, 8)
    found = evaluate(ConvAE(), x, ["rot180", "rotate(angle=30.0)"], features=backbone).metrics
    assert all(t.min() >= 0 and t.max() <= 1 for t in seen)
    with torch.no_grad():
        made = ConvAE().decode(ConvAE().encode(x))
    before, after = (((t.clamp(-1, 1) + 1) / 2).mean((2, 3)) for t in (x, made))
    cosine = torch.cosine_similarity(before, after).mean()
    assert found.reconstruction_feature_cosine == pytest.approx(float(cosine), abs=1e-5)
    distance = frechet_distance(sums(after), sums(before))
    assert found.reconstruction_rfid == pytest.approx(distance, rel=1e-3)
    for one in found.transforms.values():
        assert 0 < one.round_trip_feature_cosine < 1
        assert one.round_trip_rfid > 0


def test_a_perfect_vae_has_perfect_features():
    found = evaluate(
        PoolAE(), cells(4, 8, 8), features=lambda x: x.flatten(1)[:, :5], lpips=_distance
    ).metrics
    one = found.transforms["rot180"]
    assert one.round_trip_feature_cosine == found.reconstruction_feature_cosine
    assert found.reconstruction_feature_cosine == pytest.approx(1)
    assert found.reconstruction_rfid == pytest.approx(0, abs=1e-5)
    assert one.round_trip_lpips == found.reconstruction_lpips == 0


def _distance(a, b):
    return (a - b).abs().mean((1, 2, 3))


def test_a_perceptual_distance_of_ones_own():
    x = noise(3, 3, 8, 8)
    found = evaluate(ConvAE(), x, lpips=_distance).metrics
    with torch.no_grad():
        made = ConvAE().decode(ConvAE().encode(x))
    expected = (made.clamp(-1, 1) - x).abs().mean() / 2
    assert found.reconstruction_lpips == pytest.approx(float(expected), rel=1e-5)
    assert len(found.per_image["reconstruction/lpips"]) == 3
    assert evaluate(ConvAE(), x).metrics.reconstruction_lpips is None


def test_the_named_networks_get_what_they_expect(monkeypatch):
    """torchmetrics' FID network takes bytes, its LPIPS two batches in [0, 1]; local ones stand in here."""

    class Inception:
        def __init__(self, feature):
            assert feature == 2048
            self.inception = nn.Flatten()

    class Lpips:
        def __init__(self, net_type):
            self.net = nn.Module()
            self.net.forward = lambda a, b, normalize: (a - b).mean((1, 2, 3), True) * normalize
            assert net_type == "vgg"

    for name, holds in (
        ("fid", {"FrechetInceptionDistance": Inception}),
        ("lpip", {"LearnedPerceptualImagePatchSimilarity": Lpips}),
    ):
        module = types.ModuleType(f"torchmetrics.image.{name}")
        module.__dict__.update(holds)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(sys.modules, "torchmetrics", types.ModuleType("torchmetrics"))
        monkeypatch.setitem(sys.modules, "torchmetrics.image", types.ModuleType("image"))
    a, b = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    features = resolve_features("inception", torch.device("cpu"))(a)
    assert features.dtype == torch.uint8
    assert torch.equal(features, a.flatten(1).mul(255).round().byte())
    distances = resolve_lpips("vgg", torch.device("cpu"))(a, b)
    assert torch.allclose(distances, (a - b).mean((1, 2, 3)))


def test_weights_that_cannot_be_had_are_said_in_one_sentence(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Name or service not known\nand more")

    module = types.ModuleType("torchmetrics.image.fid")
    module.FrechetInceptionDistance = unreachable
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(InputError) as caught:
        resolve_features("inception", torch.device("cpu"))
    said = str(caught.value)
    assert "\n" not in said
    assert "pip install 'equivae[metrics]' and run it with a connection" in said


@pytest.mark.parametrize(
    ("options", "module"),
    [
        ({"features": "inception"}, "torchmetrics.image.fid"),
        ({"lpips": "alex"}, "torchmetrics.image.lpip"),
    ],
)
def test_what_is_not_installed_is_named(monkeypatch, options, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"torchmetrics.*pip install 'equivae\[metrics\]'"):
        evaluate(ConvAE(), noise(1, 3, 8, 8), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "resnet"}, "features must be 'inception' or a callable"),
        ({"lpips": "lexa"}, "lpips must be one of"),
        ({"features": lambda x: x}, r"must return a tensor \(2, D\)"),
    ],
)
def test_what_cannot_be_used(options, message):
    with pytest.raises(InputError, match=message):
        evaluate(ConvAE(), noise(2, 3, 8, 8), **options)
