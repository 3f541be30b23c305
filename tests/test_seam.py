"""The calls of a VAE as people write them: posteriors, adapters that come with the library, precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equivae
from equivae import InputError
from equivae.autoencoder import dtypes_of, restore_dtypes
from matrix_models import make
from models import ConvAE, noise, tiny_kl

X = noise(2, 3, 8, 8)


class CompVis:
    """As CompVis' latent-diffusion has it: `sample()` takes nothing, `mode()` is a call."""

    def __init__(self, mean: Tensor) -> None:
        self.mean, self.std = mean, torch.full_like(mean, 0.5)

    def sample(self) -> Tensor:
        return self.mean + self.std * torch.randn(self.mean.shape)

    def mode(self) -> Tensor:
        return self.mean


class MeanAlone:
    def __init__(self, mean: Tensor) -> None:
        self.center = mean

    @property
    def mode(self) -> Tensor:
        raise NotImplementedError

    def mean(self) -> Tensor:
        return self.center

    def sample(self) -> Tensor:
        return self.center + torch.rand(self.center.shape)


POSTERIORS: dict[str, Any] = {
    "CompVis": CompVis,
    "Normal": lambda mean: torch.distributions.Normal(mean, 0.5),
    "Independent": lambda mean: torch.distributions.Independent(
        torch.distributions.Normal(mean, 0.5), 3
    ),
    "Laplace": lambda mean: torch.distributions.Laplace(mean, 0.5),
    "in latent_dist": lambda mean: type("Out", (), {"latent_dist": CompVis(mean)})(),
    "in a tuple": lambda mean: (torch.distributions.Normal(mean, 0.5), "more"),
    "mean alone": MeanAlone,
}


class WithPosterior(ConvAE):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def encode(self, images: Tensor) -> Any:  # type: ignore[override]
        return POSTERIORS[self.kind](super().encode(images))


@pytest.mark.parametrize("kind", POSTERIORS)
def test_posteriors_of_every_kind(kind: str) -> None:
    vae, plain = equivae.Autoencoder(WithPosterior(kind)), equivae.Autoencoder(ConvAE())

    def draw(seed: int) -> Tensor:
        return vae.encode(X, sample=True, generator=torch.Generator().manual_seed(seed))

    assert vae.encode(X).allclose(plain.encode(X))
    state = torch.get_rng_state()
    assert draw(0).equal(draw(0))
    assert not draw(0).equal(draw(1))
    assert torch.get_rng_state().equal(state)
    assert not vae.encode(X, sample=True).equal(vae.encode(X, sample=True))
    assert (vae.factor, vae.latent_channels) == (2, 4)
    assert len(vae.encoder_parameters()) == 2
    draw(0).sum().backward()
    assert vae.module.encoder.weight.grad is not None  # reparametrised


def test_a_decoder_that_needs_a_timestep_gets_one() -> None:
    module = make("AutoencoderKLLTXVideo(timestep_conditioning=True)")
    vae = equivae.Autoencoder(module)
    z = noise(2, 8, 2, 2, 2)
    state = torch.get_rng_state()
    with torch.no_grad():
        decoded = vae.decode(z)
        assert vae.decode(z).equal(decoded)  # the same noise
        assert torch.get_rng_state().equal(state)
        torch.manual_seed(0)
        assert module.decode(z, torch.full((2,), 0.05)).sample.equal(decoded)
        torch.manual_seed(0)
        assert not module.decode(z, torch.full((2,), 0.5)).sample.equal(decoded)
    assert decoded.shape == (2, 3, 9, 16, 16)


@pytest.mark.parametrize("axis", ["none", "width", "width-compatibility"])
def test_a_decode_keeps_the_length_that_it_was_given(axis: str) -> None:
    from diffusers import AutoencoderKLLTX2Audio

    from matrix_models import ENTRIES

    config = ENTRIES['AutoencoderKLLTX2Audio(causality_axis="none")'].config
    module = AutoencoderKLLTX2Audio(**{**config, "causality_axis": axis}).eval()
    x = noise(2, 2, 8, 16)
    vae = equivae.Autoencoder(module)
    with torch.no_grad():
        whole = vae.decode(vae.encode(x))
        short = module.decode(module.encode(x).latent_dist.mode()).sample
    assert whole.shape == x.shape
    assert short.shape[2] == 5
    assert whole[:, :, :5].equal(short)
    assert module.decoder.causality_axis == axis


def test_a_length_that_a_causal_axis_cannot_have_is_named() -> None:
    vae = equivae.Autoencoder(make("AutoencoderKLLTX2Audio"))
    with pytest.raises(
        InputError, match=r"8x16 pixels are none of .*, which takes 4 k \+ 1 by 4 k; .* 5x16"
    ):
        equivae.autoencoder.check_images(noise(1, 2, 8, 16), vae)


# Precision --------------------------------------------------------------------------------------


def _mixed() -> nn.Module:
    vae = tiny_kl()
    vae.encoder.to(torch.bfloat16)
    vae.quant_conv.to(torch.bfloat16)
    return vae


def test_halves_of_two_dtypes() -> None:
    module = _mixed()
    vae = equivae.Autoencoder(module)
    assert vae.geometry == equivae.Autoencoder(tiny_kl()).geometry
    with torch.no_grad():
        z = vae.encode(X)
        assert z.dtype == torch.bfloat16
        decoded = vae.decode(z)
    assert decoded.dtype == torch.float32
    assert decoded.equal(tiny_kl().decode(z.float()).sample)
    report = equivae.evaluate(module, X, "hflip", sweep_samples=0, progress=False)
    assert report.metrics.reconstruction_mse > 0


def test_dtypes_come_back_as_they_were() -> None:
    module = _mixed()
    module.register_buffer("counter", torch.zeros(2, dtype=torch.float64))
    module.register_buffer("steps", torch.zeros(2, dtype=torch.long))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    identities = {name: id(p) for name, p in module.named_parameters()}
    dtypes = dtypes_of(module)
    module.float()
    assert dtypes_of(module) != dtypes
    restore_dtypes(module, dtypes)
    after = module.state_dict()
    assert {n: t.dtype for n, t in after.items()} == {n: t.dtype for n, t in before.items()}
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    assert {name: id(p) for name, p in module.named_parameters()} == identities


def test_dtypes_are_noted_under_plain_names() -> None:
    module = _mixed()
    module.decoder = torch.compile(module.decoder)
    assert dtypes_of(module) == dtypes_of(_mixed())
    restore_dtypes(module.float(), dtypes_of(_mixed()))
    assert dtypes_of(module) == dtypes_of(_mixed())
    with pytest.raises(InputError, match="whose dtype was not noted"):
        restore_dtypes(module, {})
