"""Latents in a pipeline's range: scaling there and back, transforms of them, and their statistics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, Flux2Pipeline, StableDiffusionPipeline
from torch import Tensor, nn

import equivae
from equivae import InputError
from equivae.autoencoder import LatentConvention, register_latent_convention
from equivae.autoencoder.scaling import LatentScaling, scaling_of
from matrix_models import make
from models import ConvAE, PoolAE, noise, tiny_kl
from tiny_pipeline import save_tiny_pipeline

NUMBERS: dict[str, dict[str, Any]] = {
    "Stable Diffusion's": {"scaling_factor": 0.18215},
    "FLUX's": {"scaling_factor": 0.3611, "shift_factor": 0.1159},
    "per channel": {
        "scaling_factor": 0.5,
        "latents_mean": (0.1, -0.2, 0.3, 0.0),
        "latents_std": (1.0, 2.0, 0.5, 3.0),
    },
}
Z = noise(2, 4, 6, 8, seed=3, scale=3.0)


def by_hand(z: Tensor, numbers: dict[str, Any]) -> Tensor:
    """As the diffusers pipelines write it."""
    if "latents_mean" in numbers:
        mean = torch.tensor(numbers["latents_mean"]).view(1, 4, 1, 1)
        std = torch.tensor(numbers["latents_std"]).view(1, 4, 1, 1)
        return (z - mean) * numbers["scaling_factor"] / std
    return (z - numbers.get("shift_factor", 0.0)) * numbers["scaling_factor"]


@pytest.mark.parametrize("kind", NUMBERS)
def test_scaling_is_the_pipelines(kind: str) -> None:
    vae = tiny_kl(**NUMBERS[kind])
    scaled = equivae.scale_latents(Z, vae)
    assert scaled.allclose(by_hand(Z, NUMBERS[kind]), atol=1e-6)
    assert equivae.unscale_latents(scaled, vae).allclose(Z, atol=1e-5)


class Offset(equivae.Transform):
    """Its latent op is affine and differs between the channels, so that the scaling matters."""

    name = "offset_hflip"

    def pixel(self, x: Tensor) -> Tensor:
        return x.flip(-1)

    def latent(self, z: Tensor) -> Tensor:
        return z.flip(-1).roll(1, 1) + 0.25


@pytest.mark.parametrize("kind", NUMBERS)
def test_the_latent_op_sees_what_the_vae_made(kind: str) -> None:
    vae, transform = tiny_kl(**NUMBERS[kind]), Offset()
    moved = equivae.transform_latents(equivae.scale_latents(Z, vae), transform, vae)
    assert moved.allclose(by_hand(transform.latent(Z), NUMBERS[kind]), atol=1e-5)
    assert not moved.allclose(transform.latent(equivae.scale_latents(Z, vae)), atol=0.01)


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_stand_for_the_vae_and_one_latent_for_a_batch(kind: str) -> None:
    numbers = NUMBERS[kind]
    shift = numbers.get("latents_mean", numbers.get("shift_factor", 0.0))
    scaling = LatentScaling(numbers["scaling_factor"], shift, numbers.get("latents_std", 1.0))
    vae = tiny_kl(**numbers)
    assert scaling_of(vae, 4).scale(Z).allclose(scaling.scale(Z), atol=1e-6)
    assert scaling_of(equivae.Autoencoder(vae)) == scaling_of(vae) == scaling_of(vae, 4)
    scaled = by_hand(Z, numbers)
    expected = by_hand(Offset().latent(Z), numbers)
    found = equivae.transform_latents(scaled, Offset(), scaled=scaling)
    assert found.allclose(expected, atol=1e-5)
    one = equivae.transform_latents(scaled[1], Offset(), scaled=scaling)
    assert one.shape == (4, 6, 8)
    assert one.allclose(expected[1], atol=1e-5)
    assert equivae.transform_latents(scaled[1], Offset(), vae).allclose(expected[1], atol=1e-5)


def test_a_factor_alone_and_what_is_no_scaling() -> None:
    half = equivae.transform_latents(Z * 0.5, Offset(), scaled=0.5)
    assert half.allclose(Offset().latent(Z) * 0.5, atol=1e-6)
    vae = tiny_kl()
    for options, match in (
        ({}, "pass their VAE, or scaled"),
        ({"vae": vae, "scaled": 1.0}, "one of them"),
        ({"scaled": 0.0}, "positive factor"),
        ({"scaled": float("nan")}, "positive factor"),
        ({"scaled": LatentScaling(1.0, (0.0,) * 3, (1.0,) * 3)}, "3 channels does not fit"),
    ):
        with pytest.raises(InputError, match=match):
            equivae.transform_latents(Z, Offset(), **options)
    with pytest.raises(InputError, match=r"got .6, 8."):
        equivae.transform_latents(Z[0, 0], Offset(), scaled=1.0)
    with pytest.raises(InputError, match="positive deviations"):
        LatentScaling(1.0, 0.0, (1.0, 0.0))


def test_a_grid_move_is_the_plain_move() -> None:
    vae = tiny_kl()
    for name, plain in (("rot180", Z.flip(-1, -2)), ("rot90", Z.rot90(1, (-2, -1)))):
        moved = equivae.transform_latents(Z, name, vae)
        assert moved.allclose(plain, atol=1e-5), name


def test_a_module_without_a_config_has_no_scaling() -> None:
    assert equivae.scale_latents(Z, ConvAE()).equal(Z)
    assert equivae.transform_latents(Z, Offset(), ConvAE()).allclose(Offset().latent(Z), atol=1e-6)


def test_a_vae_that_scales_by_itself_is_left_alone() -> None:
    class Normalising(ConvAE):
        config = type("Config", (), {"scaling_factor": 2.0, "latents_mean": [1.0] * 4})()

        def _normalize_latents(self, z: Tensor) -> Tensor:
            return z

    assert equivae.scale_latents(Z, Normalising()).equal(Z)


def test_video_latents_and_buffers() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("latents_mean", torch.tensor([1.0, 2.0]))
            self.register_buffer("latents_std", torch.tensor([2.0, 4.0]))

    z = noise(1, 2, 3, 4, 4)
    expected = torch.stack([(z[:, 0] - 1) / 2, (z[:, 1] - 2) / 4], 1)
    assert equivae.scale_latents(z, Buffered()).allclose(expected)
    wan = AutoencoderKLWan.from_config(
        {"base_dim": 4, "z_dim": 2, "dim_mult": [1, 2], "temperal_downsample": [False]}
        | {"latents_mean": [1.0, 2.0], "latents_std": [2.0, 4.0], "num_res_blocks": 1}
    )
    assert equivae.scale_latents(z, wan).allclose(expected)


def test_the_dtype_and_the_factor() -> None:
    vae = tiny_kl()
    half = equivae.transform_latents(Z.half(), "hflip", vae)
    assert half.dtype == torch.float16
    assert half.allclose(Z.half().flip(-1), atol=2e-3)
    moved = equivae.transform_latents(Z, equivae.get_transform("scale", factor=0.5), vae)
    assert moved.shape[-2:] == (3, 4)


def test_a_seeded_draw() -> None:
    vae, random = tiny_kl(), "random_rot90"
    square = noise(4, 4, 8, 8)
    first, second = (
        equivae.transform_latents(square, random, vae, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert first.equal(second)


def test_the_vae_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = tiny_kl()
    first = equivae.transform_latents(Z, "hflip", vae)
    monkeypatch.setattr(vae, "encode", lambda *_: pytest.fail("encoded again"))
    assert equivae.transform_latents(Z, "hflip", vae).equal(first)
    with pytest.raises(InputError):
        equivae.transform_latents(noise(1, 3, 8, 8), "hflip", equivae.Autoencoder(tiny_kl()))


def test_bad_latents_and_transforms() -> None:
    vae = tiny_kl()
    with pytest.raises(InputError, match="stands for 7; pick one of rot90"):
        equivae.transform_latents(Z, "d4", vae)
    with pytest.raises(InputError, match="Did you mean"):
        equivae.transform_latents(Z, "hflp", vae)
    with pytest.raises(InputError, match="unpack packed latents"):
        equivae.transform_latents(noise(1, 64, 16), "hflip", vae)
    with pytest.raises(InputError, match=r"whose are \(B, 4, h, w\)"):
        equivae.transform_latents(noise(1, 3, 8, 8), "hflip", vae)


# Conventions -------------------------------------------------------------------------------------


def flux2() -> Any:
    """With the statistics of a batch norm that mean something."""
    vae: Any = make("AutoencoderKLFlux2")
    vae.bn.running_mean.copy_(noise(16, seed=1))
    vae.bn.running_var.copy_(noise(16, seed=2).abs() + 0.3)
    return vae


def test_flux2_is_its_pipelines() -> None:
    vae = flux2()
    patched = Flux2Pipeline._patchify_latents(Z)
    std = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps).view(1, -1, 1, 1)
    expected = (patched - vae.bn.running_mean.view(1, -1, 1, 1)) / std
    scaled = equivae.scale_latents(Z, vae)
    assert scaled.shape == (2, 16, 3, 4)
    assert scaled.allclose(expected, atol=1e-6)
    assert equivae.unscale_latents(scaled, vae).allclose(Z, atol=1e-5)
    for transform in (equivae.get_transform("hflip"), Offset()):
        moved = equivae.transform_latents(scaled, transform, vae)
        truth = equivae.scale_latents(transform.latent(Z), vae)
        assert moved.allclose(truth, atol=1e-5)
        assert not moved.allclose(scaled.flip(-1), atol=0.1)  # what is inside a patch moves too
    with pytest.raises(InputError, match="sides that divide by 2x2"):
        equivae.scale_latents(noise(1, 4, 5, 6), vae)
    with pytest.raises(InputError, match=r"whose are \(B, 16, h, w\)"):
        equivae.transform_latents(Z, "hflip", vae)


def test_cosmos_has_means_for_every_frame() -> None:
    vae: Any = make("AutoencoderKLCosmos")
    means, stds = noise(4 * 16, seed=1), noise(4 * 16, seed=2).abs() + 0.3
    vae.register_to_config(latents_mean=means.tolist(), latents_std=stds.tolist())
    z = noise(2, 4, 3, 8, 8, scale=3.0)
    mean, std = (
        t.view(1, 4, -1, 1, 1)[:, :, :3] for t in (means, stds)
    )  # as its pipelines write it
    scaled = equivae.scale_latents(z, vae)
    assert scaled.allclose((z - mean) / std, atol=1e-6)
    assert equivae.unscale_latents(scaled, vae).allclose(z, atol=1e-5)
    image = equivae.scale_latents(z[:, :, 0], vae)
    assert image.allclose(scaled[:, :, 0], atol=1e-6)
    moved = equivae.transform_latents(scaled, "hflip", vae)
    assert moved.allclose(scaled.flip(-1), atol=1e-5)
    with pytest.raises(InputError, match="means for 4 channels and 16 frames"):
        equivae.scale_latents(noise(1, 4, 17, 8, 8), vae)


def test_the_audio_of_ltx2_is_its_pipelines() -> None:
    vae: Any = make("AutoencoderKLLTX2Audio")
    means, stds = noise(16, seed=1), noise(16, seed=2).abs() + 0.3
    vae.latents_mean, vae.latents_std = means, stds
    z = noise(2, 4, 5, 4)
    packed = z.transpose(1, 2).flatten(2)  # (B, t, c * frequencies)
    expected = ((packed - means) / stds).view(2, 5, 4, 4).transpose(1, 2)
    assert equivae.scale_latents(z, vae).allclose(expected, atol=1e-6)
    with pytest.raises(InputError, match="16 means, one for each"):
        equivae.scale_latents(noise(2, 4, 5, 8), vae)
    with pytest.raises(InputError, match="moves the height axis"):
        equivae.transform_latents(z, "vflip", vae)


def test_a_convention_of_ones_own() -> None:
    register_latent_convention(
        LatentConvention(
            "squashed",
            applies=lambda vae: isinstance(vae, ConvAE),
            scale=lambda vae, z: z.tanh(),
            unscale=lambda vae, z: z.atanh(),
        )
    )
    z = noise(2, 4, 6, 8)
    assert equivae.scale_latents(z, ConvAE()).allclose(z.tanh())
    assert equivae.transform_latents(z.tanh(), Offset(), ConvAE()).allclose(
        Offset().latent(z).tanh(), atol=1e-5
    )
    assert equivae.scale_latents(z, PoolAE()).equal(z)


def test_causal_time_is_not_moved() -> None:
    wan, z = make("AutoencoderKLWan"), noise(1, 4, 3, 8, 8)
    with pytest.raises(InputError, match=r"moves the time axis.*spans 1 and every other 4"):
        equivae.transform_latents(z, "time_reverse", wan)
    assert equivae.transform_latents(z, "hflip", wan).allclose(z.flip(-1), atol=1e-6)
    refiner = make("AutoencoderKLHunyuanImageRefiner")  # one latent step for every frame
    assert equivae.transform_latents(z, "time_reverse", refiner).allclose(z.flip(2), atol=1e-6)


def test_latents_of_audio() -> None:
    vae, z = make("AutoencoderOobleck"), noise(2, 4, 8)
    assert equivae.transform_latents(z, "time_reverse", vae).allclose(z.flip(-1), atol=1e-6)
    assert equivae.transform_latents(z[0], "time_reverse", vae).allclose(z[0].flip(-1), atol=1e-6)
    with pytest.raises(InputError, match="not on audio"):
        equivae.transform_latents(z, "hflip", vae)
    with pytest.raises(InputError, match=r"\(B, 4, t\)"):
        equivae.transform_latents(noise(2, 5, 8), "time_reverse", vae)


@pytest.mark.parametrize("kind", NUMBERS)
def test_one_latent_without_a_batch_axis(kind: str) -> None:
    vae = tiny_kl(**NUMBERS[kind])
    scaled = equivae.scale_latents(Z, vae)
    assert equivae.scale_latents(Z[0], vae).equal(scaled[0])
    assert equivae.unscale_latents(scaled[0], vae).equal(equivae.unscale_latents(scaled, vae)[0])
    moved = equivae.transform_latents(scaled, Offset(), vae)
    assert equivae.transform_latents(scaled[0], Offset(), vae).allclose(moved[0], atol=1e-6)


def test_a_video_without_a_batch_axis_and_a_batch_of_images() -> None:
    wan = make("AutoencoderKLWan")
    for z in (noise(4, 3, 8, 8), noise(3, 4, 8, 8)):  # (c, t, h, w), (B, c, h, w)
        assert equivae.transform_latents(z, "hflip", wan).allclose(z.flip(-1), atol=1e-6)
        assert equivae.scale_latents(z, wan).shape == z.shape
    with pytest.raises(InputError, match=r"\(B, 4, t, h, w\)"):
        equivae.transform_latents(noise(3, 3, 8, 8), "hflip", wan)


@pytest.mark.parametrize("call", [equivae.scale_latents, equivae.unscale_latents])
def test_what_is_no_latent(call: Any) -> None:
    with pytest.raises(InputError, match=r"got a numpy ndarray; use torch\.from_numpy\(latents\)"):
        call(Z.numpy(), tiny_kl())
    with pytest.raises(InputError, match="got a list"):
        call([1.0], tiny_kl())
    with pytest.raises(InputError, match=r"floating point, got torch\.int64"):
        call(Z.long(), tiny_kl())
    with pytest.raises(InputError, match="from_numpy"):
        equivae.transform_latents(Z.numpy(), "hflip", tiny_kl())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a mean for each of 4"):
        call(noise(1, 3, 8, 8), tiny_kl(**NUMBERS["per channel"]))


# Statistics -------------------------------------------------------------------------------------


class Known(PoolAE):
    """Latents of channel means 1, 2, 3 and deviations 0.5, 1, 1.5 for images of unit-variance noise."""

    def encode(self, images: Tensor) -> Tensor:
        weight = torch.tensor([0.5, 1.0, 1.5]).view(1, 3, 1, 1)
        return images[..., ::2, ::2] * weight + torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)


def test_known_statistics() -> None:
    images = torch.where(noise(6, 3, 64, 64) > 0, 1.0, -1.0)
    found = equivae.latent_statistics(Known(), images, eval_batch_size=4, progress=False)
    z = Known().encode(images)
    assert found.mean == pytest.approx(z.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert found.std == pytest.approx(z.std((0, 2, 3), unbiased=False).tolist(), abs=1e-6)
    assert found.mean == pytest.approx((1, 2, 3), abs=0.05)
    assert found.std == pytest.approx((0.5, 1, 1.5), abs=0.02)
    assert found.shift_factor == pytest.approx(float(z.mean()), abs=1e-6)
    assert found.scaling_factor == pytest.approx(1 / float(z.std(unbiased=False)), abs=1e-6)
    assert found.images == 6
    assert found.to_dict()["mean"] == list(found.mean)


def test_scaled_by_its_statistics_a_latent_has_unit_variance() -> None:
    images = equivae.data.dead_leaves(8, size=32)
    vae = tiny_kl()
    found = equivae.latent_statistics(vae, images, progress=False)
    vae.register_to_config(scaling_factor=found.scaling_factor, shift_factor=found.shift_factor)
    draws = equivae.Autoencoder(vae).encode(images, sample=True).detach()
    scaled = equivae.scale_latents(draws, vae)
    assert float(scaled.std()) == pytest.approx(1, abs=0.05)
    assert float(scaled.mean()) == pytest.approx(0, abs=0.05)


def test_posteriors_are_sampled_and_seeded() -> None:
    images, vae = equivae.data.dead_leaves(4, size=16), tiny_kl().train()
    first = equivae.latent_statistics(vae, images, progress=False)
    assert first == equivae.latent_statistics(vae, images, progress=False)
    assert first != equivae.latent_statistics(vae, images, seed=1, progress=False)
    assert vae.training
    mode = equivae.Autoencoder(vae).encode(images).detach()
    assert first.overall_std > 1.05 * float(mode.std())


def test_latents_without_a_spread() -> None:
    with pytest.raises(InputError, match="no factor that brings them to 1"):
        equivae.latent_statistics(PoolAE(), torch.zeros(2, 3, 8, 8), progress=False)
    with pytest.raises(InputError, match="eval_batch_size"):
        equivae.latent_statistics(PoolAE(), torch.zeros(2, 3, 8, 8), eval_batch_size=0)


# In a pipeline ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_a_fine_tuned_vae_in_a_pipeline(tmp_path: Path) -> None:
    folder = save_tiny_pipeline(tmp_path / "pipeline")
    images = equivae.data.dead_leaves(6, size=32)
    out = tmp_path / "out"
    equivae.finetune(
        folder, images, "hflip", out, max_train_steps=2, train="decoder", progress=False
    )
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    before = pipeline.vae
    pipeline.vae = equivae.load_vae(out)
    assert type(pipeline.vae) is type(before)

    def draw(output_type: str, **options: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        call = {"num_inference_steps": 2, "generator": generator, "height": 32, "width": 32}
        return pipeline("a", output_type=output_type, **call, **options).images

    latents = draw("latent")
    assert latents.shape == (1, 4, 16, 16)
    image = draw("pt")
    assert image.shape == (1, 3, 32, 32)
    assert math.isfinite(float(image.sum()))
    with torch.no_grad():
        decoded = pipeline.vae.decode(equivae.unscale_latents(latents, pipeline.vae)).sample
        flipped = equivae.transform_latents(latents, "hflip", pipeline.vae)
        moved = pipeline.vae.decode(flipped / pipeline.vae.config.scaling_factor).sample
        plain = before.decode(latents / before.config.scaling_factor).sample
    assert decoded.div(2).add(0.5).clamp(0, 1).allclose(image, atol=1e-5)
    assert moved.shape == decoded.shape
    assert not decoded.equal(plain)  # the decoder is the fine-tuned one
