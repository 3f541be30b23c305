"""Every autoencoder class of the installed diffusers, and that the docs say what the run says."""

from __future__ import annotations

import re

import diffusers
import pytest
import torch
from diffusers.utils import BaseOutput
from torch import nn

import equivae
import matrix_models
from equivae import InputError
from matrix_models import (
    ENTRIES,
    autoencoder_classes,
    class_of,
    documented,
    examine,
    make,
    variants,
)
from models import ConvAE, noise

CLASSES = autoencoder_classes()
ROWS = sorted([*CLASSES, *variants()])


def test_no_class_is_skipped():
    missing = sorted(set(CLASSES) - set(ENTRIES))
    assert not missing, f"diffusers exports {missing}: give each an entry in tests/matrix_models.py"
    assert sorted(documented()) == ROWS
    assert {class_of(name) for name in ROWS} == set(CLASSES)


def test_the_list_comes_from_diffusers():
    for name in ("AutoencoderKL", "VQModel", "AutoencoderOobleck", "MMAudioVocoder"):
        assert name in CLASSES
    assert "UNet2DModel" not in CLASSES
    assert all(issubclass(getattr(diffusers, name), nn.Module) for name in CLASSES)


@pytest.mark.parametrize("name", ROWS)
def test_what_the_docs_say(name):
    assert examine(name).markdown() == documented()[name], (
        "python tests/matrix_models.py --write docs/autoencoders.md"
    )


# What is found by looking at calls and outputs -------------------------------------------------------


def test_a_class_that_comes_tomorrow_is_read_by_its_output():
    class Tomorrow(BaseOutput):
        quantised: torch.Tensor
        codes: torch.Tensor

    class Picture(BaseOutput):
        pixels: torch.Tensor

    class AutoencoderOfTomorrow(ConvAE):
        def encode(self, images, return_dict=True, quality="high"):
            codes = torch.zeros(len(images), dtype=torch.long)
            return Tomorrow(quantised=super().encode(images), codes=codes)

        def decode(self, latents, return_dict=True):
            return Picture(pixels=super().decode(latents))

    x = noise(1, 3, 8, 8)
    vae, plain = equivae.Autoencoder(AutoencoderOfTomorrow()), equivae.Autoencoder(ConvAE())
    assert vae.encode(x).equal(plain.encode(x))
    assert vae.decode(vae.encode(x)).equal(plain.decode(plain.encode(x)))
    assert (vae.layout, vae.factor, vae.time_factor) == ("image", 2, None)


def test_codes_are_no_latent():
    class Codes(ConvAE):
        def encode(self, images):
            return super().encode(images).long()

    with pytest.raises(InputError, match=r"returned torch\.int64 codes.*register_adapter"):
        equivae.Autoencoder(Codes()).encode(noise(1, 3, 8, 8))


def test_arguments_that_nobody_can_guess_are_named():
    class Conditional(ConvAE):
        def decode(self, latents, caption, *, style, strength=1.0):
            return super().decode(latents)

    with pytest.raises(InputError, match=r"`decode` of Conditional needs caption, style beside"):
        equivae.Autoencoder(Conditional())
    equivae.register_adapter(
        lambda module: isinstance(module, Conditional),
        encode=lambda module, images, sample, generator: module.encode(images),
        decode=lambda module, latents: module.decode(latents, "a cat", style="oil"),
    )
    assert equivae.Autoencoder(Conditional()).factor == 2


def test_a_decoder_that_scales_up_has_nothing_to_compare_with():
    class Upscaler(ConvAE):
        def decode(self, latents):
            return nn.functional.interpolate(super().decode(latents), scale_factor=2)

    with pytest.raises(
        InputError, match=r"decodes the latent of \(B, C, H, W\) = \(1, 3, 64, 64\) to"
    ):
        _ = equivae.Autoencoder(Upscaler()).factor


def test_numbers_of_frames():
    vae = equivae.Autoencoder(make("AutoencoderKLWan"))
    check = equivae.autoencoder.check_images
    check(noise(1, 3, 9, 32, 32), vae)
    check(noise(1, 3, 32, 32), vae)
    with pytest.raises(InputError, match=r"takes 4 k \+ 1 frames, got 8; use 5"):
        check(noise(1, 3, 8, 32, 32), vae)
    with pytest.raises(InputError, match=r"must be a tensor \(B, C, T, H, W\), got \(1, 3, 64\)"):
        check(noise(1, 3, 64), vae)
    audio = equivae.Autoencoder(make("AutoencoderOobleck"))
    with pytest.raises(InputError, match=r"takes 8 k samples, got 60; use 56"):
        check(noise(1, 2, 60), audio)
    with pytest.raises(InputError, match="audio, which has no resolution"):
        equivae.autoencoder.check_resolution(64, audio)


def test_one_frame_is_an_image():
    vae = equivae.Autoencoder(make("AutoencoderKLWan"))
    video = noise(2, 3, 1, 16, 16)
    with torch.no_grad():
        latent = vae.encode(video)
        assert vae.encode(video[:, :, 0]).equal(latent[:, :, 0])
        assert vae.decode(latent[:, :, 0]).equal(vae.decode(latent)[:, :, 0])


@pytest.mark.parametrize("name", ["time_reverse", "time_shift", "maybe(transform='time_reverse')"])
def test_causal_time_is_not_moved(name):
    module = make("AutoencoderKLWan")
    with pytest.raises(InputError, match=r"moves the time axis.*spans 1 and every other 4"):
        equivae.EquivarianceLoss(name)(module, noise(1, 3, 5, 16, 16))


def test_a_transform_of_another_layout_is_refused():
    with pytest.raises(InputError, match="acts on image and video tensors, not on audio"):
        equivae.EquivarianceLoss("rot180")(make("AutoencoderOobleck"), noise(1, 2, 64))


def test_masks_hold_for_every_frame():
    """The loss of a video is the mean of its frames' losses, for an autoencoder that goes frame by frame."""

    class Frames(ConvAE):
        def encode(self, videos):
            return torch.stack([super(Frames, self).encode(f) for f in videos.unbind(2)], 2)

        def decode(self, latents):
            return torch.stack([super(Frames, self).decode(f) for f in latents.unbind(2)], 2)

    video = noise(2, 3, 3, 16, 16)
    loss_fn = equivae.EquivarianceLoss(["rotate(angle=30)", "hflip"], encoder_weight=0.5)
    together = loss_fn(Frames(), video)
    apart = [loss_fn(ConvAE(), frame) for frame in video.unbind(2)]
    for name in ("reconstruction", "equivariance/rotate(angle=30)", "equivariance/hflip"):
        mean = torch.stack([out.terms[name] for out in apart]).mean()
        torch.testing.assert_close(together.terms[name], mean)


def test_per_sample_masks_of_videos():
    """Two videos under two angles: each inside its own mask."""
    video = noise(2, 3, 5, 16, 16)
    module = make("AutoencoderKLWan")
    angles = torch.tensor([10.0, 40.0])
    both = equivae.get_transform("rotate", angle=angles)
    term = equivae.EquivarianceLoss(both)(module, video).loss
    single = [
        equivae.EquivarianceLoss(equivae.get_transform("rotate", angle=float(a)))(
            module, v[None]
        ).loss
        for a, v in zip(angles, video, strict=True)
    ]
    assert torch.isfinite(term)
    # Masks of different size: the whole lies between the two.
    assert min(single) * 0.9 < term < max(single) * 1.1


def test_evaluate_videos_and_audio():
    video = noise(2, 3, 5, 16, 16)
    report = equivae.evaluate(
        make("AutoencoderKLWan"), video, ["hflip", "rotate(angle=10)"], progress=False
    )
    assert set(report.metrics.transforms) == {"hflip", "rotate(angle=10)"}
    assert report.panels[0].original.shape == (3, 16, 16)
    assert 0 < report.metrics.transforms["hflip"].round_trip_ssim < 1
    wave = noise(2, 2, 64)
    report = equivae.evaluate(
        make("AutoencoderOobleck"), wave, ["time_shift", "polarity"], progress=False
    )
    assert report.panels == []
    assert report.to_dict()["metrics"]["reconstruction_ssim"] is None
    assert report.metrics.reconstruction_mse > 0


@pytest.mark.parametrize(
    ("name", "transform", "data"),
    [
        ("AutoencoderKLWan", "hflip", (3, 3, 5, 16, 16)),
        ("AutoencoderKLQwenImage", "rot90", (3, 3, 16, 16)),
        ("AutoencoderOobleck", "time_reverse", (3, 2, 64)),
    ],
)
def test_finetune_videos_images_and_audio(tmp_path, name, transform, data):
    module = make(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    result = equivae.finetune(
        module,
        noise(*data),
        transform,
        tmp_path / "out",
        max_train_steps=2,
        train_batch_size=2,
        progress=False,
    )
    assert all(value.equal(before[key]) for key, value in module.state_dict().items())
    loaded = type(module).from_pretrained(tmp_path / "out")
    assert any(not value.equal(before[key]) for key, value in loaded.state_dict().items())
    assert transform in result.report.metrics.transforms


def test_the_code_in_the_docs_runs():
    blocks = re.findall(
        r"```python\n(.*?)```", matrix_models.DOCS.read_text(encoding="utf-8"), re.S
    )
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, matrix_models.DOCS.name, "exec"), {})


def test_the_command_writes_the_table(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{matrix_models.BEGIN}\nold\n{matrix_models.END}\nbelow\n")
    monkeypatch.setattr(
        matrix_models, "autoencoder_classes", lambda: ["AutoencoderTiny", "MMAudioVocoder"]
    )
    monkeypatch.setattr(matrix_models, "variants", lambda: [])
    matrix_models.write(page)
    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert documented()["AutoencoderTiny"] in text
