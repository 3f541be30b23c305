"""Exported files beyond `AutoencoderKL`'s: their names, what travels with them, and who may read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    AutoencoderTiny,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import equivae
from equivae import InputError
from equivae.caches.writing import replace_file
from equivae.cli import main
from equivae.data import procedural
from equivae.files.layouts import is_published
from equivae.files.writing import write_beside, write_files_beside, write_folder_beside
from equivae.reporting.card import base_model_of
from tiny_pipeline import tiny_vae

WAN = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}


def wan(**options: Any) -> nn.Module:
    return AutoencoderKLWan(**{**WAN, **options}).eval()


def wan_22() -> nn.Module:
    sizes = {"base_dim": 8, "decoder_base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 2]}
    more = {"num_res_blocks": 2, "temperal_downsample": [False, True], "is_residual": True}
    return AutoencoderKLWan(**sizes, **more, in_channels=12, out_channels=12, patch_size=2).eval()


def tiny(**options: Any) -> AutoencoderTiny:
    sizes = {
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
    }
    return AutoencoderTiny(**{**sizes, **options}).eval()


def flux2() -> nn.Module:
    kinds = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    vae = AutoencoderKLFlux2(
        block_out_channels=(32,), layers_per_block=1, latent_channels=4, **kinds
    ).eval()
    vae.bn.running_mean.uniform_()
    return vae


VAES = {
    "wan": (wan, {}),
    "wan 2.2": (wan_22, {}),
    "qwen": (lambda: AutoencoderKLQwenImage(**WAN).eval(), {}),
    "tiny": (tiny, {"family": "sdxl"}),
    "flux 2": (flux2, {}),
}


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(t.equal(theirs[n]) for n, t in ours.items())


@pytest.mark.parametrize("kind", VAES)
def test_the_very_weights_come_back(tmp_path: Path, kind: str) -> None:
    make, options = VAES[kind]
    vae = make()
    path = equivae.export_single_file(vae, tmp_path / "vae.safetensors", **options)
    loaded = equivae.load_vae(path)
    assert type(loaded) is type(vae)
    assert same(loaded, vae)
    for name, value in vae.config.items():
        assert name.startswith("_") or json.dumps(loaded.config[name]) == json.dumps(value)
    half = equivae.export_single_file(vae, tmp_path / "half.safetensors", dtype="fp16", **options)
    kinds = {t.dtype for n, t in load_file(half).items() if "num_batches" not in n}
    assert kinds <= {torch.float16, torch.float32}
    assert {load_file(half)[n].dtype for n in load_file(half) if n.endswith("conv.weight")} <= {
        torch.float16
    }
    assert not is_published(vae)


def test_wan_has_the_names_that_diffusers_converts(tmp_path: Path) -> None:
    vae = wan()
    path = equivae.export_single_file(vae, tmp_path / "vae.safetensors")
    vae.save_config(tmp_path / "config")
    theirs = AutoencoderKLWan.from_single_file(
        str(path), config=str(tmp_path / "config"), local_files_only=True
    )
    assert same(theirs, vae)
    names = load_file(path)
    assert "decoder.middle.0.residual.0.gamma" in names  # by which ComfyUI knows it
    assert "decoder.upsamples.0.upsamples.0.residual.2.weight" not in names


def test_wan_2_2_has_blocks_in_blocks(tmp_path: Path) -> None:
    names = set(load_file(equivae.export_single_file(wan_22(), tmp_path / "vae.safetensors")))
    assert {
        "decoder.upsamples.0.upsamples.0.residual.2.weight",  # by which ComfyUI knows it
        "encoder.downsamples.1.downsamples.2.time_conv.weight",
        "decoder.upsamples.0.upsamples.3.resample.1.weight",
        "encoder.downsamples.2.downsamples.1.residual.6.bias",
        "encoder.middle.1.to_qkv.weight",
        "conv2.weight",
    } <= names


def test_flux_2_has_its_quant_convs_inside(tmp_path: Path) -> None:
    names = load_file(equivae.export_single_file(flux2(), tmp_path / "vae.safetensors"))
    assert {"encoder.quant_conv.weight", "decoder.post_quant_conv.bias", "bn.running_var"} <= {
        *names
    }
    assert names["encoder.mid.attn_1.q.weight"].shape == (32, 32, 1, 1)
    assert not any(name.startswith(("quant_conv", "post_quant_conv")) for name in names)


def test_a_tiny_one_has_the_names_and_the_scaling_of_taesd(tmp_path: Path) -> None:
    vae = tiny(latent_channels=16)
    path = equivae.export_single_file(vae, tmp_path / "vae.safetensors", family="flux")
    content = load_file(path)
    # diffusers' converter counts the decoder's layers without the clamp before them.
    for name, tensor in vae.state_dict().items():
        half, _, index, rest = name.split(".", 3)
        there = int(index) + (half == "decoder")
        assert content.pop(f"taesd_{half}.{there}.{rest}").equal(tensor)
    assert {n: round(float(t), 4) for n, t in content.items()} == {
        "vae_scale": 0.3611,
        "vae_shift": 0.1159,
    }
    # What was said once is known of the file.
    again = equivae.export_single_file(equivae.load_vae(path), tmp_path / "again.safetensors")
    assert load_file(again)["vae_scale"].item() == pytest.approx(0.3611)


def test_the_family_of_a_tiny_one_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    with pytest.raises(InputError, match="pass family='sd' or family='sdxl'"):
        equivae.export_single_file(tiny(), path)
    with pytest.raises(InputError, match="4 latent channels and the VAE of 'flux' has not"):
        equivae.export_single_file(tiny(), path, family="flux")
    with pytest.raises(InputError, match=r"latents of 4 or 16 channels, and this .* has 3"):
        equivae.export_single_file(tiny(latent_channels=3), path, family="sd")
    with pytest.raises(InputError, match=r"family='sdx' is unknown\. Did you mean 'sd.*'"):
        equivae.export_single_file(tiny(), path, family="sdx")
    with pytest.raises(
        InputError, match="family='sd' is for an AutoencoderTiny, and this is an Auto"
    ):
        equivae.export_single_file(tiny_vae(), path, family="sd")
    assert not path.exists()
    vae = tiny()
    vae.register_to_config(_name_or_path="madebyollin/taesdxl")
    equivae.export_single_file(vae, path)
    assert load_file(path)["vae_scale"].item() == pytest.approx(0.13025)
    with pytest.raises(InputError, match="it is an AutoencoderTiny, and config='sdxl' is for an"):
        equivae.load_vae(path, config="sdxl")


def test_published_shapes_are_known() -> None:
    assert not is_published(tiny_vae())
    with torch.device("meta"):
        assert is_published(AutoencoderTiny())
        assert is_published(AutoencoderKLWan())
        assert is_published(AutoencoderKLFlux2())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_res_blocks": 10**9}, "num_res_blocks=1000000000"),
        ({"dim_mult": "many"}, "not a list of widths"),
        ({"base_dim": -3}, "base_dim=-3"),
        ({"dim_mult": [1, 10**9]}, r"dim_mult\[1\]=1000000000"),
        ({"num_res_blocks": 1}, "does not fit|no place"),
    ],
)
def test_nonsense_in_the_metadata(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = equivae.export_single_file(wan(), tmp_path / "vae.safetensors")
    with safe_open(path, "pt") as file:
        config = {**json.loads(file.metadata()["diffusers_config"]), **change}
    save_file(load_file(path), path, {"diffusers_config": json.dumps(config)})
    with pytest.raises(InputError, match=said):
        equivae.load_vae(path)


# What a fine-tune was for -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A fine-tune for a fitted hflip and the plain rot180."""
    folder = tmp_path_factory.mktemp("fine-tune") / "out"
    vae, images = tiny_vae(), procedural.dead_leaves(6, 16)
    flip = equivae.fit_latent_op(vae, "hflip", images, kernel_size=1, progress=False)
    return equivae.finetune(
        vae,
        images,
        [flip, "rot180"],
        folder,
        train="decoder",
        max_train_steps=1,
        train_batch_size=2,
        max_eval_samples=1,
        progress=False,
    )


def test_an_op_that_it_was_trained_for_goes_beside(tmp_path: Path, fitted: Any) -> None:
    path = tmp_path / "vae.safetensors"
    with pytest.warns(UserWarning, match=r"hflip_fitted\): it has not learned the plain latent op"):
        equivae.export_single_file(fitted.vae, path)
    op = equivae.load_latent_op(tmp_path / "vae-latent_ops" / "hflip_fitted")
    z = torch.rand(1, 4, 8, 8)
    assert op.latent(z).equal(fitted.transforms[0].latent(z))
    with safe_open(path, "pt") as file:
        noted = json.loads(file.metadata()["equivae"])
    assert noted == {"transforms": ["hflip_fitted", "rot180"], "latent_ops": ["hflip_fitted"]}
    # From the folder, and from the file that came of it.
    for source in (fitted.output_dir, path):
        again = tmp_path / f"of-{source.name}" / "new.safetensors"
        with pytest.warns(UserWarning, match="they are in"):
            equivae.export_single_file(equivae.load_vae(source), again)
        assert (again.parent / "new-latent_ops/hflip_fitted/latent_op.safetensors").is_file()
    # Without its ops the file still says what it is for.
    alone = path.rename(tmp_path / "alone.safetensors")
    with pytest.warns(UserWarning, match="files are no longer beside it"):
        equivae.export_single_file(equivae.load_vae(alone), tmp_path / "b.safetensors")


def test_an_encoder_that_was_trained_is_told_of(tmp_path: Path) -> None:
    result = equivae.finetune(
        tiny_vae(),
        procedural.dead_leaves(4, 16),
        "rot180",
        tmp_path / "out",
        max_train_steps=1,
        train_batch_size=2,
        max_eval_samples=1,
        bottleneck_steps=0,
        progress=False,
    )
    said = (
        "the encoder was fine-tuned: existing checkpoints of diffusion models do not fit; these tools use "
        f"their own scaling factor, not {result.vae.config.scaling_factor:g}."
    )
    path = tmp_path / "vae.safetensors"
    for source, to in ((tmp_path / "out", path), (path, tmp_path / "again.safetensors")):
        with pytest.warns(UserWarning, match=re.escape(said)):
            equivae.export_single_file(equivae.load_vae(source), to)


def test_an_op_that_is_there_is_not_overwritten(tmp_path: Path, fitted: Any) -> None:
    old = tmp_path / "vae-latent_ops" / "mine"
    old.mkdir(parents=True)
    with pytest.raises(InputError, match="vae-latent_ops already exists"):
        equivae.export_single_file(fitted.vae, tmp_path / "vae.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["vae-latent_ops"]
    with pytest.warns(UserWarning, match="they are in"):
        equivae.export_single_file(fitted.vae, tmp_path / "vae.safetensors", overwrite=True)
    assert old.is_dir()


def test_a_plain_fine_tune_says_its_transforms(tmp_path: Path, fitted: Any) -> None:
    ignored = shutil.ignore_patterns("operators", "checkpoint-*")
    shutil.copytree(fitted.output_dir, tmp_path / "out", ignore=ignored)
    path = equivae.export_single_file(
        equivae.load_vae(tmp_path / "out"), tmp_path / "v.safetensors"
    )
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["equivae"]) == {"transforms": ["hflip_fitted", "rot180"]}
        assert file.metadata()["padding_mode"] == "zeros"
    assert not (tmp_path / "v-latent_ops").exists()
    (tmp_path / "out" / "report.json").write_text("[]")
    equivae.export_single_file(equivae.load_vae(tmp_path / "out"), path, overwrite=True)


@pytest.mark.parametrize(
    "note",
    ['{"latent_ops": ["../../secret", "/etc"]}', '{"transforms": "hflip"}', "[1]", "no json", "3"],
)
def test_nonsense_in_the_note_says_nothing(tmp_path: Path, note: str) -> None:
    path = equivae.export_single_file(tiny_vae(), tmp_path / "vae.safetensors")
    with safe_open(path, "pt") as file:
        save_file(load_file(path), path, {**file.metadata(), "equivae": note})
    new = equivae.export_single_file(equivae.load_vae(path), tmp_path / "new.safetensors")
    with safe_open(new, "pt") as file:
        assert json.loads(file.metadata()["equivae"]) == {}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.safetensors", "vae.safetensors"]


def test_a_config_that_is_passed_stands_above_a_broken_one(tmp_path: Path) -> None:
    vae = tiny_vae()
    path = equivae.export_single_file(vae, tmp_path / "vae.safetensors")
    save_file(load_file(path), path, {"diffusers_config": "no json"})
    with pytest.raises(InputError, match="holds no autoencoder"):
        equivae.load_vae(path)
    vae.save_config(tmp_path / "config")
    assert same(equivae.load_vae(path, config=tmp_path / "config"), vae)


def test_a_card_names_the_file_that_the_weights_came_from(tmp_path: Path) -> None:
    vae = tiny_vae()
    path = equivae.export_single_file(vae, tmp_path / "of-somebody.safetensors")
    config = {**vae.config, "_class_name": "AutoencoderKL", "_name_or_path": "somebody/else"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = equivae.load_vae(path, config=tmp_path)
    for given in (path, str(path), loaded):
        base = base_model_of(given, loaded)
        assert (base.hub_name, base.words) == (None, "the file `of-somebody.safetensors`")


@pytest.mark.filterwarnings("default")
def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fitted: Any
) -> None:
    def said(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["equivae", "export", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), " ".join(capsys.readouterr().err.split())

    model, file = "--pretrained_model_name_or_path", "--output_file"
    tiny().save_pretrained(tmp_path / "tiny")
    code, words = said(model, tmp_path / "tiny", file, tmp_path / "t.safetensors")
    assert (code, "pass --family sd or --family sdxl." in words) == (2, True)
    code, _ = said(model, tmp_path / "tiny", file, tmp_path / "t.safetensors", "--family", "sd")
    assert code == 0
    code, words = said(model, fitted.output_dir, file, tmp_path / "f.safetensors")
    assert code == 0
    assert words.startswith("warning: this VAE was fine-tuned for fitted latent ops (hflip_fitted)")
    wrong: list[tuple[list[object], str]] = [
        (["--family", "sdxxl"], "--family sdxxl is unknown"),
        (["--padding_mode", "mirror"], "--padding_mode mirror is unknown"),
        (["--family", "sd"], "is for an AutoencoderTiny"),
    ]
    for words_given, expected in wrong:
        code, words = said(model, "embedded", file, tmp_path / "n.safetensors", *words_given)
        assert (code, expected in words) == (2, True), words
    (tmp_path / "folder.safetensors").mkdir()
    code, words = said(model, "embedded", file, tmp_path / "folder.safetensors", "--overwrite")
    assert (code, "is a folder; choose another name" in words) == (2, True)
    assert not (tmp_path / "n.safetensors").exists()


# Modes --------------------------------------------------------------------------------------------


@pytest.fixture(params=[0o022, 0o027, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def private(path: Path) -> None:
    """As safetensors writes: for its owner alone."""
    path.touch(mode=0o600)
    path.write_text("{}")


def test_every_file_has_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    write_beside(tmp_path / "beside.json", private)
    write_folder_beside(tmp_path / "folder", lambda folder: private(folder / "a"))
    write_files_beside(tmp_path / "files", lambda folder: private(folder / "b"))
    replace_file(tmp_path / "cache.npz", private)
    vae = tiny_vae()
    vae.requires_grad_(False)
    equivae.export_single_file(vae, tmp_path / "export" / "vae.safetensors")
    equivae.files.save_vae(vae, tmp_path / "saved")
    flip = equivae.fit_latent_op(
        vae, "hflip", procedural.dead_leaves(3, 16), kernel_size=1, progress=False
    )
    flip.save(tmp_path / "op")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*") if p.is_file()}
    assert len(modes) == 8
    assert modes == dict.fromkeys(modes, 0o666 & ~umask)


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    for replace in (write_beside, replace_file):
        path = tmp_path / replace.__name__
        path.touch(mode=0o640)
        replace(path, private)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_fine_tune_leaves_no_private_file(fitted: Any) -> None:
    files = [p for p in fitted.output_dir.rglob("*") if p.is_file()]
    assert {f.suffix for f in files} >= {".safetensors", ".json", ".md", ".png", ".html"}
    usual = 0o666 & ~(mask := os.umask(0))
    os.umask(mask)
    assert {f.name for f in files if stat.S_IMODE(f.stat().st_mode) != usual} == set()
