"""Tiling, slicing, gradient checkpointing and half precision: the module's own, and they work as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import equivae
from equivae import InputError
from equivae.autoencoder import Autoencoder
from equivae.training.config import make_config
from equivae.training.latents import cache_latents
from equivae.training.layout import channels_last, wants_channels_last
from matrix_models import inputs, make
from models import ConvAE, noise, tiny_kl

MODELS = {
    "AutoencoderKL": (lambda: tiny_kl(sample_size=16), noise(2, 3, 32, 32)),
    "AutoencoderTiny": (lambda: make("AutoencoderTiny"), inputs("AutoencoderTiny")),
    "AutoencoderKLWan": (lambda: make("AutoencoderKLWan"), noise(2, 3, 5, 16, 16)),
    "AutoencoderOobleck": (lambda: make("AutoencoderOobleck"), inputs("AutoencoderOobleck")),
}
TRANSFORM = {4: "hflip", 5: "hflip", 3: "time_reverse"}


@pytest.fixture(params=MODELS)
def case(request):
    build, x = MODELS[request.param]
    return build(), x


def _loss(module: nn.Module, x: Tensor) -> Tensor:
    module.zero_grad(set_to_none=True)
    loss = equivae.EquivarianceLoss(TRANSFORM[x.ndim])(module, x).loss
    loss.backward()
    return loss.detach()


def _gradients(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def test_slicing_changes_nothing(case):
    module, x = case
    whole, gradients = _loss(module, x), _gradients(module)
    if not hasattr(module, "enable_slicing"):
        pytest.skip("this class has no slicing")
    module.enable_slicing()
    assert module.use_slicing
    torch.testing.assert_close(_loss(module, x), whole)
    sliced = _gradients(module)
    assert gradients.keys() == sliced.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(sliced[name], gradient, rtol=1e-3, atol=1e-6)


TILES = {"tile_sample_min_height": 16, "tile_sample_min_width": 16}
STRIDES = {"tile_sample_stride_height": 8, "tile_sample_stride_width": 8}
TILED = {
    "AutoencoderKL": (lambda: tiny_kl(sample_size=16), {}, noise(2, 3, 32, 32)),
    "AutoencoderDC": (lambda: make("AutoencoderDC"), TILES | STRIDES, noise(1, 3, 32, 32)),
    "AutoencoderKLWan": (lambda: make("AutoencoderKLWan"), TILES | STRIDES, noise(1, 3, 5, 32, 32)),
}


@pytest.mark.parametrize("name", TILED)
def test_tiling_trains_and_measures(name):
    build, options, x = TILED[name]
    module = build()
    plain = equivae.Autoencoder(build())
    module.enable_tiling(**options)
    vae = equivae.Autoencoder(module)
    assert (vae.layout, vae.factor, vae.time_factor) == (
        plain.layout,
        plain.factor,
        plain.time_factor,
    )
    with torch.no_grad():
        tiled, whole = vae.encode(x), plain.encode(x)
        assert tiled.shape == whole.shape
        assert not torch.allclose(tiled, whole), "one tile held it all, so nothing was tested"
        assert vae.decode(tiled).shape == x.shape
    assert torch.isfinite(_loss(module, x))
    assert (
        set(_gradients(module)) == vae.geometry.encoder_parameters | vae.geometry.decoder_parameters
    )
    report = equivae.evaluate(module, x, "rot180", progress=False)
    assert report.metrics.transforms["rot180"].round_trip_mse > 0


CHECKPOINTED = {
    "AutoencoderKL": MODELS["AutoencoderKL"],
    "AutoencoderKLLTXVideo": (
        lambda: make("AutoencoderKLLTXVideo"),
        inputs("AutoencoderKLLTXVideo"),
    ),
    "AutoencoderKLCogVideoX": (
        lambda: make("AutoencoderKLCogVideoX"),
        inputs("AutoencoderKLCogVideoX"),
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_gradient_checkpointing_changes_no_gradient(name):
    build, x = CHECKPOINTED[name]
    module = build().train()
    whole, gradients = _loss(module, x), _gradients(module)
    module.enable_gradient_checkpointing()
    assert module.is_gradient_checkpointing
    torch.testing.assert_close(_loss(module, x), whole)
    checkpointed = _gradients(module)
    assert gradients.keys() == checkpointed.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-3, atol=1e-6)


def test_finetune_with_gradient_checkpointing_and_slicing(tmp_path):
    plain, saving = tiny_kl(), tiny_kl()
    saving.enable_slicing()
    images = noise(6, 3, 16, 16)
    options = {"max_train_steps": 2, "train_batch_size": 2, "progress": False}
    a = equivae.finetune(plain, images, "hflip", tmp_path / "a", **options)
    b = equivae.finetune(
        saving, images, "hflip", tmp_path / "b", gradient_checkpointing=True, **options
    )
    assert not b.vae.is_gradient_checkpointing  # a means of the run, not of its result
    assert b.vae.use_slicing
    for name, value in a.vae.state_dict().items():
        torch.testing.assert_close(b.vae.state_dict()[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AutoencoderKLWan", "AutoencoderKLWan has no gradient checkpointing"),
        ("AutoencoderTiny", "AutoencoderTiny computes something else under gradient checkpointing"),
        ("AutoencoderKLMagvit", "AutoencoderKLMagvit computes something else"),
    ],
)
def test_gradient_checkpointing_that_is_wrong_or_missing(tmp_path, name, message):
    x = inputs(name)
    with pytest.raises(InputError, match=message):
        equivae.finetune(
            make(name),
            torch.cat([x, x]),
            "hflip",
            tmp_path / "out",
            gradient_checkpointing=True,
            max_train_steps=1,
            progress=False,
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_encodes_and_decodes(case, dtype):
    module, x = case
    reference = equivae.Autoencoder(module)
    with torch.no_grad():
        wanted = reference.decode(reference.encode(x))
    vae = equivae.Autoencoder(module.to(dtype))
    assert vae.geometry.encoder_parameters == reference.geometry.encoder_parameters
    with torch.no_grad():
        z = vae.encode(x.to(dtype))
        y = vae.decode(z)
    assert z.dtype == y.dtype == dtype
    assert (y.float() - wanted).abs().mean() < 0.05 * wanted.abs().mean() + 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_trains(tmp_path, dtype):
    """A copy learns in float32; what is returned and saved has the dtype that came in."""
    module = tiny_kl().to(dtype)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result = equivae.finetune(
        module,
        noise(4, 3, 16, 16),
        "hflip",
        tmp_path / "out",
        max_train_steps=2,
        train_batch_size=2,
        learning_rate=1e-2,
        progress=False,
    )
    assert {p.dtype for p in result.vae.parameters()} == {dtype}
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())
    assert any(not value.equal(before[name]) for name, value in result.vae.state_dict().items())


# force_upcast -------------------------------------------------------------------------------------


class Watching(ConvAE):
    """Records the dtype of its weights and of what its convolution gives at every encode."""

    def __init__(self, force_upcast: bool) -> None:
        super().__init__()
        self.config = type("Config", (), {"force_upcast": force_upcast, "in_channels": 3})()
        self.seen: list[tuple[torch.dtype, torch.dtype]] = []

    def encode(self, images: Tensor) -> Tensor:
        latents = super().encode(images)
        self.seen.append((self.encoder.weight.dtype, latents.dtype))
        return latents


@pytest.mark.parametrize(
    ("dtype", "force_upcast", "measured"),
    [
        (torch.float16, True, torch.float32),
        (torch.float16, False, torch.float16),
        (torch.bfloat16, True, torch.bfloat16),
        (torch.float32, True, torch.float32),
    ],
)
def test_float16_is_measured_in_float32_where_the_config_says_so(dtype, force_upcast, measured):
    module = Watching(force_upcast).to(dtype)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    _ = equivae.Autoencoder(module).factor
    module.seen.clear()
    equivae.evaluate(module, noise(2, 3, 8, 8), "hflip", progress=False)
    assert set(module.seen) == {(measured, measured)}
    assert all(
        value.dtype == dtype and value.equal(before[n]) for n, value in module.state_dict().items()
    )


def test_the_upcast_ends_with_an_error():
    module = Watching(True).half()

    def fail() -> None:
        with equivae.Autoencoder(module).full_precision():
            assert module.encoder.weight.dtype == torch.float32
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert module.encoder.weight.dtype == torch.float16


@pytest.mark.parametrize(
    ("autocast", "force_upcast", "computed"),
    [
        (torch.float16, True, torch.float32),
        (torch.float16, False, torch.float16),
        (torch.bfloat16, True, torch.bfloat16),
    ],
)
def test_fp16_autocast_ends_at_a_vae_that_forces_the_upcast(autocast, force_upcast, computed):
    module = Watching(force_upcast)
    vae = equivae.Autoencoder(module)
    with torch.autocast("cpu", autocast):
        z = vae.encode(noise(1, 3, 8, 8))
        assert vae.decode(z).dtype == computed
        # What a latent op computed under autocast is brought to the weights' dtype.
        assert vae.decode(z.to(autocast)).dtype == computed
        assert torch.is_autocast_enabled("cpu")
    assert module.seen[-1] == (torch.float32, computed)


def test_the_configs_of_diffusers_are_read():
    from diffusers import AutoencoderKL

    from equivae.autoencoder.precision import forces_upcast

    assert forces_upcast(tiny_kl())
    assert not forces_upcast(tiny_kl(force_upcast=False))
    assert not forces_upcast(make("AutoencoderTiny"))
    assert not forces_upcast(ConvAE())
    assert AutoencoderKL(force_upcast=True).config.force_upcast


def test_channels_last_is_a_means_of_the_run_and_not_of_its_result(tmp_path, monkeypatch):
    monkeypatch.setattr(equivae.Report, "figures", lambda self: {})
    images = noise(6, 3, 16, 16)
    options = {"max_train_steps": 2, "train_batch_size": 2, "progress": False, "use_ema": True}
    options |= {"checkpointing_steps": 1, "keep_best": "validation_loss", "bottleneck_steps": 0}
    options["channels_last"] = True
    found = equivae.finetune(tiny_kl(), images, "hflip", tmp_path / "last", **options)
    again = equivae.finetune(
        tiny_kl(),
        images,
        "hflip",
        tmp_path / "again",
        resume_from_checkpoint=str(tmp_path / "last" / "checkpoint-1"),
        **options,
    )
    saved = type(found.vae).from_pretrained(tmp_path / "last")
    for name, ours in found.vae.state_dict().items():
        assert ours.is_contiguous()
        assert again.vae.state_dict()[name].equal(ours)
        assert saved.state_dict()[name].equal(ours)
    assert (tmp_path / "last" / "best" / "config.json").is_file()
    module, x = tiny_kl(), noise(2, 3, 16, 16)
    loss, gradients = _loss(module, x), _gradients(module)
    with channels_last(module):
        assert not module.decoder.conv_in.weight.is_contiguous()
        torch.testing.assert_close(_loss(module, x), loss)
        for name, gradient in _gradients(module).items():
            torch.testing.assert_close(gradient, gradients[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({}, False),
        ({"mixed_precision": "bf16"}, True),
        ({"mixed_precision": "fp16"}, True),
        ({"mixed_precision": "bf16", "freeze": "encoder.conv_in*"}, False),
        ({"mixed_precision": "bf16", "channels_last": False}, False),
        ({"channels_last": True}, True),
    ],
)
def test_channels_last_is_the_default_of_lower_precisions(options, last):
    assert wants_channels_last(make_config("equivae", options)) is last


def test_a_run_in_bf16_is_in_channels_last(tmp_path, monkeypatch):
    monkeypatch.setattr(equivae.Report, "figures", lambda self: {})
    seen = []

    def mse(decoded, target):
        if decoded.requires_grad:
            seen.append(decoded.is_contiguous(memory_format=torch.channels_last))
        return (decoded.float() - target).square().mean()

    images, some = noise(2, 3, 16, 16), {"max_train_steps": 1, "bottleneck_steps": 0}
    options = {"reconstruction": mse, "mixed_precision": "bf16", "progress": False, **some}
    equivae.finetune(tiny_kl(), images, "hflip", tmp_path, validation_images=images, **options)
    assert set(seen) == {True}


def test_channels_last_with_frozen_layers_is_refused_on_a_cpu(tmp_path):
    with pytest.raises(InputError, match="crashes torch on a CPU"):
        equivae.finetune(
            tiny_kl(),
            noise(4, 3, 16, 16),
            "hflip",
            tmp_path / "out",
            channels_last=True,
            freeze="encoder.conv_in*",
            progress=False,
        )


def test_a_call_holds_as_many_images_as_the_processor_runs_fastest(monkeypatch):
    module, x = tiny_kl().train(), noise(5, 3, 32, 32)
    sizes = []
    module.decoder.register_forward_pre_hook(lambda part, given: sizes.append(len(given[0])))
    loss_fn = equivae.EquivarianceLoss("hflip")
    whole = loss_fn(module, x).loss
    assert sizes == [10]  # small images need no look
    largest = 8 * 32 * 32 * 4  # bytes of eight channels of one image
    monkeypatch.setattr("equivae.autoencoder.at_once._CPU_BYTES", 3 * largest + 1)
    random = torch.get_rng_state()
    split = loss_fn(module, x).loss
    assert torch.get_rng_state().equal(random)
    assert sizes == [10, 1, 3, 3, 3, 1]  # one to look at, then at most three in a call
    assert module.training
    torch.testing.assert_close(split, whole)
    split.backward()
    loss_fn(module, x)
    assert sizes[6:] == [3, 3, 3, 1]  # looked at once


def test_measuring_keeps_to_that_size_too(monkeypatch):
    module, x = tiny_kl(), noise(4, 3, 32, 32)
    sizes = []
    module.decoder.register_forward_pre_hook(lambda part, given: sizes.append(len(given[0])))
    module.encoder.register_forward_pre_hook(lambda part, given: sizes.append(len(given[0])))
    whole = equivae.evaluate(module, x, "hflip", progress=False).metrics
    assert max(sizes) == 4
    sizes.clear()
    # The encoder pads a row and a column before it halves the image.
    monkeypatch.setattr("equivae.autoencoder.at_once._CPU_BYTES", 2 * 8 * 33 * 33 * 4)
    split = equivae.evaluate(module, x, "hflip", progress=False).metrics
    assert max(sizes) == 2
    assert split.reconstruction_mse == pytest.approx(whole.reconstruction_mse, rel=1e-5)
    sizes.clear()
    cache_latents(Autoencoder(module), equivae.data.load_images(x), Path(), progress=False)
    assert max(sizes) == 2


def test_layers_that_normalise_over_the_batch_get_all_of_it(monkeypatch):
    class Batched(ConvAE):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(self.encoder, nn.BatchNorm2d(4))

    monkeypatch.setattr("equivae.autoencoder.at_once._CPU_BYTES", 1)
    sizes = []
    module = Batched().train()
    module.encoder.register_forward_pre_hook(lambda part, given: sizes.append(len(given[0])))
    loss_fn, x = equivae.EquivarianceLoss("hflip"), noise(4, 3, 16, 16)
    loss_fn(module, x)
    assert sizes == [4]
    loss_fn(module.eval(), x)
    assert sizes == [4, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("mixed", [False, True])
def test_gradients_of_channels_last_weights_have_their_strides(mixed: bool) -> None:
    """Those of 1x1 kernels too: processes that share gradients copy and warn otherwise."""
    vae = tiny_kl(block_out_channels=(8, 16))
    parameters = [one for one in vae.parameters() if one.ndim == 4]
    before = [one.stride() for one in parameters]
    images = torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    with channels_last(vae):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = vae(images).sample.float().square().mean()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert sum(one.shape[-1] == 1 for one in parameters) >= 4
        for one, gradient in zip(parameters, gradients, strict=True):
            assert gradient is None or gradient.stride() == one.stride()
    assert [one.stride() for one in parameters] == before
