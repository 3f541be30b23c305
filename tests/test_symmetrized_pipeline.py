"""A symmetrized VAE inside diffusers' pipelines: passed in, saved, loaded, moved, sliced and tiled."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ModelMixin, StableDiffusionPipeline

import equivae
import equivae.symmetry
from equivae.files.pretrained import save_vae
from equivae.symmetry import SymmetrizedVAE
from models import ConvAE, noise, tiny_kl
from tiny_pipeline import save_tiny_pipeline


def images_of(pipe: StableDiffusionPipeline) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe("a cat", num_inference_steps=1, generator=generator, output_type="np").images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("pipeline") / "plain")


@pytest.fixture(scope="module")
def symmetrized(folder):
    vae = equivae.load_vae(folder)
    images = noise(4, 3, 32, 32)
    return equivae.symmetrize(vae, "d4", images=images, kernel_size=3, margin=2, progress=False)


def test_it_goes_into_a_pipeline_and_comes_back_from_its_folder(folder, symmetrized, tmp_path):
    pipe = StableDiffusionPipeline.from_pretrained(folder, vae=symmetrized)
    assert pipe.vae is symmetrized
    assert pipe.vae_scale_factor == 2
    expected = images_of(pipe)
    pipe.save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["vae"] == ["equivae.symmetry", "SymmetrizedVAE"]
    again = StableDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert isinstance(again.vae, SymmetrizedVAE)
    assert not again.vae.training
    assert np.array_equal(images_of(again), expected)
    for loaded in (
        equivae.load_vae(tmp_path / "saved"),
        equivae.load_vae(tmp_path / "saved", subfolder="vae"),
        SymmetrizedVAE.from_pretrained(tmp_path / "saved", subfolder="vae"),
    ):
        z = noise(1, 4, 8, 8)
        with torch.no_grad():
            assert loaded.decode(z).sample.equal(symmetrized.decode(z).sample)
    half = StableDiffusionPipeline.from_pretrained(tmp_path / "saved", torch_dtype=torch.bfloat16)
    assert {p.dtype for p in half.vae.parameters()} == {half.vae.dtype} == {torch.bfloat16}


def test_without_the_library_there_is_a_sentence_that_names_it(
    folder, symmetrized, tmp_path, monkeypatch
):
    pipe = StableDiffusionPipeline.from_pretrained(folder, vae=symmetrized)
    pipe.save_pretrained(tmp_path)
    monkeypatch.delitem(sys.modules, "equivae.symmetry")
    with pytest.raises(ValueError, match=r"import equivae\.symmetry before calling"):
        StableDiffusionPipeline.from_pretrained(tmp_path)
    assert "pip install equivae" in (tmp_path / "vae" / "symmetrize.json").read_text()


def test_a_context_that_shares_its_operators_is_saved(symmetrized, tmp_path):
    parts = [p.data_ptr() for p in symmetrized.state_dict().values()]
    assert len(set(parts)) < len(parts)  # rot90's inverse is rot270's own operator
    save_vae(symmetrized, tmp_path)
    z = noise(1, 4, 8, 8)
    with torch.no_grad():
        loaded = equivae.load_vae(tmp_path)
        assert loaded.decode(z).sample.equal(symmetrized.decode(z).sample)


def test_config_dtype_and_switches_are_those_of_the_vae_inside():
    inside = tiny_kl(scaling_factor=0.3)
    made = SymmetrizedVAE(inside, "d2", margin=2)
    assert isinstance(made, ModelMixin)
    assert made.config.scaling_factor == 0.3
    made.register_to_config(scaling_factor=0.5)
    assert inside.config.scaling_factor == 0.5
    assert made.to(torch.float64).dtype == torch.float64 == inside.dtype
    made.enable_gradient_checkpointing()
    assert inside.is_gradient_checkpointing
    bare = SymmetrizedVAE(ConvAE(), "c2")
    for name in ("config", "enable_tiling", "enable_gradient_checkpointing", "register_to_config"):
        assert not hasattr(bare, name), name


def test_the_law_holds_with_slices_and_tiles():
    inside = tiny_kl().double()
    made = SymmetrizedVAE(inside, "c4", margin=4)
    x = noise(2, 3, 48, 48).double()
    rot90 = equivae.get_transform("rot90")
    with torch.no_grad():
        whole = made.encode(x).latent_dist.mode()
        made.enable_slicing()
        assert inside.use_slicing
        torch.testing.assert_close(made.encode(x).latent_dist.mode(), whole)
        made.enable_tiling()
        assert inside.use_tiling
        assert inside.tile_sample_min_size < 48 // 2 + 8  # so that crops are tiled
        z = made.encode(x).latent_dist.mode()
        moved = made.encode(rot90.pixel(x)).latent_dist.mode()
        torch.testing.assert_close(moved, rot90.latent(z))
        decoded = made.decode(rot90.latent(z)).sample
        torch.testing.assert_close(decoded, rot90.pixel(made.decode(z).sample))


def test_a_plain_model_of_diffusers_is_no_symmetrized_one(folder):
    assert type(equivae.load_vae(folder)) is AutoencoderKL
    SymmetrizedVAE(tiny_kl(), "c2").save_pretrained(folder / "made")
    with pytest.raises(equivae.InputError, match="one device"):
        SymmetrizedVAE.from_pretrained(folder / "made", device_map={"vae": 0, "decoder": 1})
