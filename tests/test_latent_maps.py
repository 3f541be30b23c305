"""Maps between the latents of two VAEs and previews: known answers, files, scaling, and bad input."""

from __future__ import annotations

import ast
import sys

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

import equivae
from equivae.operators import LatentMap, LatentPreview, load_latent_op, measure_latent_map
from equivae.operators.runtime import load
from models import ConvAE, PoolAE, cells, noise, tiny_kl
from tiny_pipeline import save_tiny_pipeline, tiny_vae


class MixedAE(PoolAE):
    """A `PoolAE` whose five latent channels are mixtures of the three colours."""

    def __init__(self, factor: int) -> None:
        super().__init__(factor)
        self.mix = noise(5, 3, seed=3)

    def encode(self, images: Tensor) -> Tensor:
        return torch.einsum("dc,bchw->bdhw", self.mix, super().encode(images)) + 0.25

    def decode(self, latents: Tensor) -> Tensor:
        back = torch.linalg.pinv(self.mix)
        return super().decode(torch.einsum("cd,bdhw->bchw", back, latents - 0.25))


def coarse(count: int, side: int = 32) -> Tensor:
    """Images that are constant on 4x4 cells, so that both factors lose nothing."""
    return cells(count, side // 2, side // 2).repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize(("factor", "other", "kernel"), [(2, 2, 1), (2, 4, 3), (4, 2, 3)])
def test_a_linear_map_is_found(factor, other, kernel):
    a, b = PoolAE(factor), MixedAE(other)
    op = equivae.fit_latent_map(a, b, coarse(8), kernel, progress=False)
    x = coarse(3)
    found, expected = op.latent(a.encode(x)), b.encode(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert op.report.latent_error < 1e-3
    assert op.report.mapped_psnr > 50
    assert (op.report.images, op.report.held_out_images) == (8, 1)


def test_what_it_decodes_to_is_measured_beside_encoding_again():
    a, b, x = tiny_kl(), ConvAE(), noise(12, 3, 16, 16)
    op = equivae.fit_latent_map(a, b, x, 3, magnitude=True, progress=False)
    numbers = measure_latent_map(op, a, b, x)
    with torch.no_grad():
        ways = {
            "ceiling_psnr": b.encode(x),
            "mapped_psnr": op.latent(a.encode(x).latent_dist.mode()),
            "reencoded_psnr": b.encode(
                a.decode(a.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
            ),
        }
        for name, latents in ways.items():
            error = (b.decode(latents).clamp(-1, 1) - x).div(2).square().mean()
            expected = float(-10 * error.log10())
            assert getattr(numbers, name) == pytest.approx(expected, abs=1e-3), name
    assert "encoded again" in op.report.to_markdown()


def test_saved_and_loaded_it_is_the_same_and_needs_no_library(tmp_path):
    op = equivae.fit_latent_map(PoolAE(2), MixedAE(4), noise(4, 3, 16, 16), 3, progress=False)
    op.save(tmp_path / "map")
    again, alone = LatentMap.load(tmp_path / "map"), load(tmp_path / "map")
    z = noise(2, 3, 8, 12)
    assert again.latent(z).equal(op.latent(z))
    assert alone(z).equal(op.latent(z))
    assert (alone.channels, alone.header["kind"], alone.inverse) == (3, "map", None)
    same = ("name", "source", "target", "scalings", "report")
    assert all(getattr(again, key) == getattr(op, key) for key in same)
    with pytest.raises(equivae.InputError, match=r"LatentMap\.load"):
        load_latent_op(tmp_path / "map")
    with pytest.raises(equivae.InputError, match="no preview"):
        LatentPreview.load(tmp_path / "map")
    flip = equivae.fit_latent_op(PoolAE(2), "hflip", noise(4, 3, 16, 16), 1, progress=False)
    flip.save(tmp_path / "op")
    with pytest.raises(equivae.InputError, match="load_latent_op"):
        LatentMap.load(tmp_path / "op")


def test_another_vae_is_warned_of_or_refused():
    a, b = ConvAE(), tiny_kl()
    op = equivae.fit_latent_map(a, b, noise(4, 3, 16, 16), 1, progress=False)
    op.check_vaes(a, b, strict=True)
    with pytest.raises(equivae.InputError, match="fit one"):
        op.check_vaes(a, tiny_kl(seed=1), strict=True)
    with pytest.warns(UserWarning, match="fit one"):
        op.check_vaes(ConvAE(seed=1))


def test_scaled_latents_are_those_of_pipelines():
    a, b = tiny_kl(scaling_factor=0.3), tiny_kl(1, scaling_factor=1.5, shift_factor=0.1)
    op = equivae.fit_latent_map(a, b, noise(4, 3, 16, 16), 1, progress=False)
    z = noise(2, 4, 8, 8)
    expected = equivae.scale_latents(op.latent(z), b)
    scaled = equivae.scale_latents(z, a)
    torch.testing.assert_close(op.latent(scaled, scaled=True), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(op.latent(scaled[0], scaled=True), expected[0], atol=1e-5, rtol=1e-4)
    op.scalings = (None, None)
    with pytest.raises(equivae.InputError, match="unscale_latents"):
        op.latent(scaled, scaled=True)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"images": noise(1, 3, 16, 16)}, "at least two"),
        ({"images": noise(4, 3, 18, 18)}, "factor"),
        ({"kernel_size": 2}, "odd"),
        ({"kernel_size": "auto"}, "odd"),
        ({"kernel_size": 7, "ridge": 0.0, "images": noise(2, 3, 8, 8)}, "singular"),
        ({"name": "../evil"}, "name"),
    ],
)
def test_bad_input(arguments, word):
    options = {"images": noise(4, 3, 16, 16), **arguments}
    with pytest.raises(equivae.InputError, match=word):
        equivae.fit_latent_map(PoolAE(2), MixedAE(4), **options, progress=False)


# Previews ---------------------------------------------------------------------------------------


def test_the_preview_of_mixed_colours_is_the_small_image():
    vae, x = MixedAE(4), noise(6, 3, 16, 16)
    preview = equivae.fit_preview(vae, x, progress=False)
    small = torch.nn.functional.avg_pool2d(x, 4)
    torch.testing.assert_close(preview.image(vae.encode(x)), small, atol=1e-3, rtol=1e-3)
    assert preview.report.psnr > 50


def test_what_is_printed_for_comfyui_is_for_scaled_latents(tmp_path):
    vae = tiny_kl(scaling_factor=0.25, shift_factor=0.5)
    preview = equivae.fit_preview(vae, noise(4, 3, 16, 16), progress=False)
    found = {
        statement.targets[0].id: torch.tensor(ast.literal_eval(statement.value))
        for statement in ast.parse(preview.to_comfyui()).body
    }
    z = noise(2, 4, 8, 8)
    held = equivae.scale_latents(z, vae)
    # As ComfyUI's Latent2RGBPreviewer has it.
    rgb = torch.nn.functional.linear(
        held.permute(0, 2, 3, 1),
        found["latent_rgb_factors"].T,
        found["latent_rgb_factors_bias"],
    )
    expected = preview.image(z)
    shown = rgb.permute(0, 3, 1, 2).clamp(-1, 1)
    torch.testing.assert_close(shown, expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(preview.image(held, scaled=True), expected, atol=1e-5, rtol=1e-4)
    preview.save(tmp_path)
    again = LatentPreview.load(tmp_path)
    assert again.to_comfyui() == preview.to_comfyui()
    assert again.report == preview.report
    assert load(tmp_path)(z).clamp(-1, 1).equal(expected)


def test_the_callback_runs_in_a_pipeline(tmp_path):
    pipe = StableDiffusionPipeline.from_pretrained(save_tiny_pipeline(tmp_path / "pipe"))
    pipe.set_progress_bar_config(disable=True)
    preview = equivae.fit_preview(pipe.vae, noise(4, 3, 32, 32), progress=False)
    scope: dict = {}
    exec(preview.to_diffusers(), scope)
    latents = pipe(
        "a cat",
        num_inference_steps=2,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=scope["preview"],
        callback_on_step_end_tensor_inputs=["latents"],
    ).images
    assert len(scope["previews"]) == 2
    last = scope["previews"][-1][0]
    assert isinstance(last, Image.Image)
    assert last.size == (latents.shape[-1], latents.shape[-2])
    expected = preview.image(latents, scaled=True)[0].add(1).mul(127.5)
    shown = torch.from_numpy(np.array(last)).permute(2, 0, 1)
    assert (shown - expected).abs().max() < 1.5


def test_a_preview_is_one_of_colour_images():
    with pytest.raises(equivae.InputError, match="colour"):
        equivae.fit_preview(tiny_kl(in_channels=1, out_channels=1), noise(4, 1, 16, 16))


# The command line -------------------------------------------------------------------------------


def test_the_commands_write_what_they_fit(monkeypatch, tmp_path, capsys):
    from equivae.cli import main

    def call(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["equivae", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    tiny_vae().save_pretrained(tmp_path / "vae")
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, one in enumerate(noise(3, 3, 32, 32).add(1).mul(127).byte()):
        Image.fromarray(one.permute(1, 2, 0).numpy()).save(photos / f"{i}.png")
    common = ("--pretrained_model_name_or_path", tmp_path / "vae", "--train_data_dir", photos)
    common = (*common, "--resolution", 32)
    out = tmp_path / "map"
    words = ("--target_model_name_or_path", "embedded", "--output_dir", out, "--kernel_size", 1)
    assert call("fit-map", *common, *words) == 0
    assert "encoded again" in capsys.readouterr().out
    assert LatentMap.load(out).report.images == 3
    assert call("fit-map", *common, *words, "--no_border") == 2
    assert "holds files already" in capsys.readouterr().err
    assert call("fit-preview", *common, "--output_dir", tmp_path / "small") == 0
    printed = capsys.readouterr().out
    assert printed == LatentPreview.load(tmp_path / "small").to_comfyui()
    assert call("fit-preview", *common, "--format", "json") == 2
    assert "comfyui or diffusers" in capsys.readouterr().err
