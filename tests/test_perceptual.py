"""Perceptual terms: backbones of every kind, from folders and modules, LPIPS, and what is refused."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import equivae
from equivae import InputError
from equivae.losses import PerceptualLoss, make_terms
from models import noise, tiny_kl
from test_finetune import finetune
from test_terms import compared, decoding, term


@pytest.fixture(scope="module")
def convnext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ConvNextConfig, ConvNextModel

    folder = tmp_path_factory.mktemp("convnext")
    config = ConvNextConfig(hidden_sizes=[4, 4, 8, 8], depths=[1, 1, 1, 1])
    ConvNextModel(config).save_pretrained(folder)
    prepared = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    return folder


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dinov2")
    config = Dinov2Config(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    return folder


def test_features_of_transformers_convnext(convnext: Path) -> None:
    from transformers import AutoModel

    made = term("perceptual", backbone=convnext, layers=(1, 2))
    decoded, target = noise(2, 3, 64, 64), noise(2, 3, 64, 64, seed=1)
    network = AutoModel.from_pretrained(convnext).eval()
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), 0.5
    first, second = (
        network((one / 2 + 0.5 - mean) / std, output_hidden_states=True).hidden_states
        for one in (decoded, target)
    )
    distances = []
    for layer in (1, 2):
        a, b = (one[layer] / one[layer].norm(dim=1, keepdim=True) for one in (first, second))
        distances.append((a - b).square().sum(1).mean())
    expected = float(torch.stack(distances).mean())
    (one,) = made(compared(decoded.requires_grad_(True), target))
    assert one.value.item() == pytest.approx(expected, rel=1e-4)
    one.value.backward()
    assert decoded.grad is not None
    assert decoded.grad.any()
    assert not any(p.requires_grad for p in made.network.parameters())


def test_style_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3, stride=2))
    made = term("style", backbone=network, layers=("1", "2"))
    decoded, target = noise(2, 3, 12, 16), noise(2, 3, 12, 16, seed=1)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    values = []
    for depth in (2, 3):
        f, g = (network[:depth]((one / 2 + 0.5 - mean) / std) for one in (decoded, target))
        f, g = f.detach().double(), g.detach().double()
        power = (g**2).mean((0, 2, 3))
        strength = (power + 0.01 * power.mean()).sqrt()
        total = 0.0
        for a, b in zip(f, g, strict=True):
            for i, j in itertools.product(range(len(a)), repeat=2):
                apart = (a[i] * a[j]).mean() - (b[i] * b[j]).mean()
                total += float(apart / strength[i] / strength[j]) ** 2
        values.append(total / len(f[0]) ** 2 / 2)
    (one,) = made(compared(decoded.requires_grad_(True), target))
    assert one.value.item() == pytest.approx(sum(values) / 2, rel=1e-4)
    assert one.name == "style/part"
    one.value.backward()
    assert decoded.grad is not None
    # A texture that lies elsewhere is the same.
    wide = noise(1, 3, 64, 64)
    made = term("style", backbone=network, layers=("1",))
    assert made.compare(wide.roll(7, -1), wide) < 0.01 * made.compare(wide / 2, wide)


def test_style_of_tokens(dinov2: Path) -> None:
    made = term("style", backbone=str(dinov2), layers=(1, 2))
    images = noise(1, 3, 28, 28)
    assert made.compare(images, images) == 0 < made.compare(images, -images)


def test_tokens_of_transformers_dinov2_at_sides_that_are_no_multiples(dinov2: Path) -> None:
    made = term("perceptual", backbone=str(dinov2))
    images = noise(1, 3, 32, 40)
    assert made.compare(images, images) == 0
    assert made.compare(images, -images) > 0
    (features,) = made.network(images)
    assert features.shape == (1, 1 + 3 * 3, 8)


def test_the_encoder_of_a_diffusers_autoencoder_looks(tmp_path: Path) -> None:
    tiny_kl().save_pretrained(tmp_path)
    made = PerceptualLoss(backbone=tmp_path, layers=("conv_in", "mid_block"), distance="l1")
    images = noise(1, 3, 16, 16)
    first, second = made.network(images)
    assert torch.allclose(first, tiny_kl().encoder.conv_in(images), atol=1e-5)
    assert second.shape == (1, 8, 8, 8)


def test_a_timm_folder_is_loaded_through_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, stride=2)

        def forward_intermediates(self, x: Tensor, intermediates_only: bool) -> list[Tensor]:
            assert intermediates_only
            return [self.stem(x)]

    stub = ModuleType("timm")
    made: list[Any] = []

    def create_model(name: str, pretrained: bool) -> nn.Module:
        made.append((name, pretrained))
        return Net()

    stub.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", stub)
    weights = Net().state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    config = {"architecture": "tiny", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = PerceptualLoss(backbone=tmp_path)
    images = noise(1, 3, 16, 16)
    (features,) = loaded.network(images)
    expected = nn.functional.conv2d(images, weights["stem.weight"], weights["stem.bias"], stride=2)
    assert torch.allclose(features, expected, atol=1e-5)
    assert made == [("tiny", False)]


def test_a_backbone_moves_with_its_term_and_is_saved_with_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.9)).train()
    made = PerceptualLoss(backbone=network, layers=("1",))
    assert made.state_dict() == {}
    assert next(made.double().network.parameters()).dtype == torch.float64
    made.train()
    images = noise(1, 3, 8, 8).double()
    assert made.compare(images, images) == 0  # no dropout
    assert network.training  # the user's own stays as it was
    assert next(network.parameters()).dtype == torch.float32


def test_grey_images_and_videos_are_looked_at() -> None:
    made = PerceptualLoss(backbone=nn.Conv2d(3, 4, 3), layers=("",))
    grey = noise(2, 1, 16, 16)
    assert made.compare(grey, -grey) == made.compare(grey.expand(-1, 3, -1, -1), -grey)
    assert made.compare(grey.unsqueeze(2), -grey.unsqueeze(2)) == made.compare(grey, -grey)
    with pytest.raises(InputError, match="grey or colour images"):
        made.compare(noise(1, 4, 16, 16), noise(1, 4, 16, 16))


class Distance(nn.Module):
    """Stands for LPIPS: `(B, 1, 1, 1)` of two batches in [-1, 1]."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options, self.weight = options, nn.Parameter(torch.ones(()))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        assert a.shape[1] == b.shape[1] == 3
        return self.weight * (a - b).square().mean((1, 2, 3), keepdim=True)


def _without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_lpips_comes_from_the_package_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = ModuleType("lpips")
    stub.LPIPS = Distance  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", stub)
    made = term("lpips", net="alex")
    assert made.network.options == {"net": "alex", "verbose": False}
    decoded = torch.full((2, 1, 8, 8), 0.5, requires_grad=True)
    (one,) = made(compared(decoded, torch.zeros(2, 1, 8, 8)))
    assert one.name == "lpips/part"
    assert one.value.item() == pytest.approx(0.25)
    one.value.backward()
    assert decoded.grad is not None
    assert made.network.weight.grad is None

    metrics = ModuleType("torchmetrics.image.lpip")

    class Metric(nn.Module):
        def __init__(self, net_type: str) -> None:
            super().__init__()
            self.net = Distance(net=net_type)

    metrics.LearnedPerceptualImagePatchSimilarity = Metric  # type: ignore[attr-defined]
    _without(monkeypatch, "lpips")
    for name in ("torchmetrics", "torchmetrics.image"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", metrics)
    assert term("lpips").network.options == {"net": "vgg"}

    _without(monkeypatch, "torchmetrics.image.lpip")
    with pytest.raises(InputError, match=r"pip install 'equivae\[perceptual\]'"):
        term("lpips")


def test_a_backbone_that_cannot_be_had_is_refused_before_any_work(
    tmp_path: Path, convnext: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str, **options: Any) -> None:
        with pytest.raises(InputError) as error:
            make_terms({"perceptual": options})
        assert said in str(error.value), str(error.value)
        assert "\n" not in str(error.value)

    refused("neither a folder nor a repository", backbone="convnext")
    refused("neither a folder nor a repository", backbone=tmp_path / "none")
    refused("no config.json that can be read", backbone=tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "convnext"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    refused("no weights as .safetensors", backbone=tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    _without(monkeypatch, "timm")
    refused("pip install 'equivae[perceptual]'", backbone=tmp_path)
    (tmp_path / "config.json").write_text("{}")
    refused("neither of transformers nor of timm nor of diffusers", backbone=tmp_path)
    refused("has no features at the places [9]", backbone=convnext, layers=(9,))
    refused("has no layer 'embedding'. Did you mean", backbone=convnext, layers=("embedding",))
    refused("are names or places, not both", backbone=convnext, layers=(1, "embeddings"))
    refused("lists no features of its own", backbone=nn.Sequential(nn.Conv2d(3, 4, 3)), layers=(0,))

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    refused("is not available (no route to the hub); `hf download a/b`", backbone="a/b")
    terms = {"perceptual": {"backbone": "a/b"}}
    with pytest.raises(InputError, match="a/b"):  # and so does a run, which writes nothing
        equivae.finetune(tiny_kl(), noise(2, 3, 16, 16), "hflip", tmp_path / "out", terms=terms)
    assert not (tmp_path / "out").exists()


def test_alignment_by_hand(dinov2: Path) -> None:
    """VA-VAE's formula, pair by pair of cells; DINOv2's features without its class token."""
    from transformers import AutoModel

    vae, images = tiny_kl(), noise(2, 3, 28, 56)
    margins = {"distance_margin": 0.1, "cosine_margin": 0.2}
    made = term("alignment", backbone=dinov2, **margins)
    step = decoding(vae, images)
    (one,) = made(step)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        network = AutoModel.from_pretrained(dinov2).eval()
        states = network((images / 2 + 0.5 - mean) / std, output_hidden_states=True).hidden_states
        features = states[-1][:, 1:].reshape(2, 2, 4, 8).permute(0, 3, 1, 2)
        size = step.latents.shape[-2:]
        f = torch.nn.functional.interpolate(features, size=size, mode="bilinear").flatten(2)
        z = torch.einsum("dc,bchw->bdhw", made.projection.weight[..., 0, 0], step.latents)
        z = z.flatten(2)
        cosine = torch.nn.functional.cosine_similarity
        first = [
            (cosine(z, z[..., [i]]) - cosine(f, f[..., [i]])).abs().sub(0.1).clamp_min(0).mean()
            for i in range(z.shape[-1])
        ]
        second = (1 - 0.2 - cosine(z, f)).clamp_min(0).mean()
        expected = float(torch.stack(first).mean() + second)
    assert one.value.item() == pytest.approx(expected, rel=1e-4)
    assert made.adaptive == "encoder"
    assert [p.shape for p in made.learning_along()] == [made.projection.weight.shape]


def test_alignment_learns_its_map_with_a_run(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    terms = {"alignment": {"weight": 0.1, "backbone": network, "layers": ["0"]}}
    options = {"terms": terms, "max_train_steps": 2, "checkpointing_steps": 1}
    finetune(tmp_path / "run", tiny_kl(), **options)
    first, second = (
        load_file(tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors") for step in (1, 2)
    )
    (name,) = [name for name in first if name.endswith("projection.weight")]
    assert not torch.equal(first[name], second[name])
    saved = load_file(tmp_path / "run" / "diffusion_pytorch_model.safetensors")
    assert set(saved) == set(tiny_kl().state_dict())
    with pytest.raises(InputError, match="one layer, got 2"):
        make_terms({"alignment": {"backbone": network, "layers": ["0", ""]}})
    with pytest.raises(InputError, match="looks at latents alone"):
        finetune(tmp_path / "no", tiny_kl(), terms=terms, train="decoder", max_train_steps=1)
