"""One context for every run of a VAE for numbers, whatever its caller has switched on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equivae
from equivae import InputError
from equivae.autoencoder import find_bottleneck, measuring
from equivae.evaluation.latent_space import same_encoder
from equivae.units import is_finite, psnr, require_finite
from models import ConvAE, noise, tiny_kl

IMAGES = noise(6, 3, 16, 16)
CALLERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
    "inference_mode": torch.inference_mode,
    "bf16 autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "fp16 autocast": lambda: torch.autocast("cpu", torch.float16),
}


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Modes, flags, dtypes and values of a module, and torch's own modes, are the same afterwards."""

    def state() -> list[Any]:
        return [
            [part.training for part in module.modules()],
            [(p.requires_grad, p.dtype, p.grad is None) for p in module.parameters()],
            [
                *(torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
                *(torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
            ],
        ]

    before, values = state(), {n: t.clone() for n, t in module.state_dict().items()}
    yield
    assert state() == before
    assert all(t.equal(values[n]) for n, t in module.state_dict().items())


def _train_mode(module: nn.Module) -> nn.Module:
    module.train()
    module.encoder.conv_in.eval()
    module.decoder.requires_grad_(False)
    return module


@pytest.mark.parametrize("caller", CALLERS)
def test_it_leaves_the_callers_modes_and_comes_back(caller: str) -> None:
    vae = _train_mode(tiny_kl().half())
    with CALLERS[caller](), unchanged(vae):
        with measuring(vae):
            assert not torch.is_inference_mode_enabled()
            assert not torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")
            assert not any(part.training for part in vae.modules())
            assert {p.dtype for p in vae.parameters()} == {torch.float32}
            with measuring(vae):
                assert not torch.is_grad_enabled()
            assert {p.dtype for p in vae.parameters()} == {torch.float32}
        with pytest.raises(ZeroDivisionError), measuring(vae):
            raise ZeroDivisionError


def _fit(vae: nn.Module) -> Any:
    report = equivae.fit_latent_op(vae, "hflip", IMAGES, 1, progress=False).report
    return report.latent_error, report.decoded_psnr, report.plain_decoded_psnr


def _margins(vae: nn.Module) -> Any:
    made = equivae.symmetrize(
        vae, "hflip", images=noise(3, 3, 32, 32), kernel_size=1, progress=False
    )
    return made.report.to_dict()["margins"] | {"plain": made.report.plain_psnr}


def _evaluate(vae: nn.Module) -> Any:
    report = equivae.evaluate(vae, IMAGES, "hflip", sweep_samples=0, progress=False)
    shown = [float(panel.moved.double().sum()) for panel in report.panels]
    return report.metrics.reconstruction_mse, shown


MEASUREMENTS: dict[str, Callable[[nn.Module], Any]] = {
    "evaluate": _evaluate,
    "latent_statistics": lambda vae: equivae.latent_statistics(vae, IMAGES, progress=False),
    "analyze_latents": lambda vae: equivae.analyze_latents(
        vae, IMAGES, "hflip", progress=False
    ).to_dict(),
    "fit_latent_op": _fit,
    "fit by what is decoded": lambda vae: (
        equivae.fit_latent_op(
            vae, "hflip", IMAGES, 1, objective="decoded", max_train_steps=2, progress=False
        ).report.latent_error
    ),
    "fit_latent_group": lambda vae: (
        equivae.fit_latent_group(vae, "d2", IMAGES, 1, progress=False).closure
    ),
    "symmetrize": _margins,
}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_number_is_the_same_under_every_caller(name: str) -> None:
    measure = MEASUREMENTS[name]
    expected = measure(tiny_kl())
    for make in CALLERS.values():
        vae = _train_mode(tiny_kl())
        with make(), unchanged(vae):
            assert measure(vae) == expected


class Overflowing(ConvAE):
    """Its activations reach 1e5, which float16 does not hold; its config says so."""

    def __init__(self, force_upcast: bool = True) -> None:
        super().__init__()
        self.config = type("Config", (), {"force_upcast": force_upcast, "in_channels": 3})()

    def encode(self, images: Tensor) -> Tensor:
        large = self.encoder(images) * 1e4 * 50
        return large / (1e4 * 50)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.tanh(self.decoder(latents))


# What random weights make of a fitted latent may be worse than what they make of the plain one.
@pytest.mark.filterwarnings("ignore:the latent op fitted for '.*' decodes at:UserWarning")
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_an_fp16_vae_that_forces_the_upcast_is_measured_in_float32(name: str) -> None:
    measure = MEASUREMENTS[name]
    rounded = Overflowing().half().float()
    found, expected = measure(Overflowing().half()), measure(rounded)
    if name == "symmetrize":  # whose latent ops are saved in float16 like the VAE: by 1e-6 dB here
        assert found == pytest.approx(expected, abs=1e-5)
    else:
        assert found == expected


@pytest.mark.parametrize(
    "name", ["latent_statistics", "analyze_latents", "fit_latent_op", "symmetrize"]
)
def test_numbers_that_are_none_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(
        InputError, match=r"the latents of Overflowing hold NaN or infinite values; check"
    ):
        MEASUREMENTS[name](Overflowing(force_upcast=False).half())


def test_a_decoder_that_overflows_is_not_called_perfect() -> None:
    class Broken(ConvAE):
        def decode(self, latents: Tensor) -> Tensor:
            return super().decode(latents) * float("nan")

    with pytest.raises(InputError, match="the decodes of Broken hold NaN"):
        equivae.analyze_latents(Broken(), IMAGES, "hflip", progress=False)
    with pytest.raises(InputError, match="the decodes of Broken hold NaN"):
        equivae.fit_latent_op(Broken(), "hflip", IMAGES, "auto", progress=False)
    with pytest.raises(InputError, match="the decodes of Broken hold NaN"):
        equivae.symmetrize(
            Broken(), "hflip", images=noise(3, 3, 32, 32), kernel_size=1, progress=False
        )


def test_what_is_a_number() -> None:
    assert is_finite(1.5)
    assert is_finite([torch.zeros(2), (1.0, 2)])
    for bad in (
        float("nan"),
        float("-inf"),
        [1.0, [float("nan")]],
        torch.tensor([1.0, float("inf")]),
    ):
        assert not is_finite(bad)
        with pytest.raises(
            InputError, match="the errors hold NaN or infinite values; look at them"
        ):
            require_finite(bad, "the errors", "look at them")
    assert psnr(0.0) == float("inf")
    assert psnr(float("nan")) != psnr(float("nan"))


def test_pairs_leave_no_mode_open_for_who_takes_them() -> None:
    from equivae.data import load_images
    from equivae.operators.pairs import latent_pairs

    vae = equivae.Autoencoder(tiny_kl())
    pairs = latent_pairs(
        vae,
        load_images(IMAGES),
        [equivae.get_transform("hflip")],
        mixed_precision="bf16",
        progress=False,
    )
    next(pairs)
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert vae.module.training is False
    pairs.close()


# Geometry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", CALLERS)
def test_the_geometry_is_the_same_whatever_the_callers_modes(caller: str) -> None:
    expected = equivae.Autoencoder(tiny_kl()).geometry
    assert expected.encoder_parameters
    module = tiny_kl()
    with CALLERS[caller]():
        _ = equivae.Autoencoder(module).geometry
    assert equivae.Autoencoder(module).geometry == expected


def test_a_call_under_inference_mode_does_not_make_the_encoder_unchanged() -> None:
    base, tuned = tiny_kl(), tiny_kl(seed=1)
    with torch.inference_mode():
        equivae.Autoencoder(base).encode(IMAGES)
        _ = equivae.Autoencoder(base).factor
    assert not same_encoder(equivae.Autoencoder(base), equivae.Autoencoder(tuned))


def test_an_encoder_without_gradients_is_compared_as_a_whole() -> None:
    class Locked(ConvAE):
        @torch.no_grad()
        def encode(self, images: Tensor) -> Tensor:
            return super().encode(images)

    a, b, same = (equivae.Autoencoder(Locked(seed)) for seed in (0, 1, 0))
    assert not same_encoder(a, b)
    assert same_encoder(a, same)


def test_a_vae_made_under_inference_mode_is_refused_in_a_sentence() -> None:
    with torch.inference_mode():
        module = tiny_kl()
    with pytest.raises(InputError, match=r"was made under torch\.inference_mode\(\).*deep copy"):
        equivae.Autoencoder(module)


def test_images_made_under_inference_mode_can_be_learned_from() -> None:
    with torch.inference_mode():
        images = IMAGES.clone()
    vae = tiny_kl()
    equivae.EquivarianceLoss("hflip")(vae, images).loss.backward()
    assert all(p.grad is not None for p in vae.parameters())


def test_other_layers_are_looked_at_anew() -> None:
    module = ConvAE()
    vae = equivae.Autoencoder(module)
    assert (vae.factor, vae.latent_channels) == (2, 4)
    module.encoder = nn.Conv2d(3, 6, 4, stride=4)
    module.decoder = nn.ConvTranspose2d(6, 3, 4, stride=4)
    for view in (vae, equivae.Autoencoder(module)):
        assert (view.factor, view.latent_channels) == (4, 6)
    latents = equivae.scale_latents(vae.encode(IMAGES), module)
    assert equivae.transform_latents(latents, "hflip", module).allclose(latents.flip(-1))


@pytest.mark.parametrize("words", ["the valve is stuck", "no room for {shape}"])
def test_a_hopeless_module_is_refused_soon(words: str) -> None:
    calls = []

    class Hopeless(ConvAE):
        def encode(self, images: Tensor) -> Tensor:
            calls.append(images.shape)
            raise RuntimeError(words.format(shape=tuple(images.shape)))

    with pytest.raises(
        InputError, match=r"could neither encode nor decode .*: (the valve|no room)"
    ):
        _ = equivae.Autoencoder(Hopeless()).factor
    assert len(calls) <= (30 if "valve" in words else 48)


def test_the_bottleneck_is_found_under_every_caller() -> None:
    vae = equivae.Autoencoder(tiny_kl(mid_block_add_attention=True))
    expected = find_bottleneck(vae, IMAGES)
    for make in (nullcontext, *CALLERS.values()):
        with make():
            assert find_bottleneck(vae, IMAGES) == expected


def test_what_is_fitted_under_inference_mode_can_still_learn() -> None:
    vae = tiny_kl()
    with torch.inference_mode():
        fitted = equivae.fit_latent_op(
            vae, "hflip", IMAGES, 1, method="network", max_train_steps=2, progress=False
        )
    assert not any(p.is_inference() for p in fitted.module.parameters())
