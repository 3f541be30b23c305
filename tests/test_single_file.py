"""Single LDM-style files: written, read back by diffusers bit for bit, and read from anywhere offline."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLWan,
    VQModel,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import equivae
from equivae import InputError
from equivae.autoencoder import copy_module
from equivae.autoencoder.scaling import scaling_of
from equivae.cli import main
from equivae.files import save_vae
from equivae.files.ldm_names import is_attention_weight, ldm_name
from tiny_pipeline import save_tiny_pipeline, tiny_vae

BLOCK = {"norm1", "conv1", "norm2", "conv2"}


def kl(levels: int, channels: int = 8, layers: int = 1, **options: Any) -> AutoencoderKL:
    """Every level of another width, so that a level in a wrong place has a wrong shape."""
    widths = tuple(channels * (i + 1) for i in range(levels))
    return tiny_vae(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=layers,
        **options,
    )


def sd_vae(latent_channels: int = 4, **options: Any) -> AutoencoderKL:
    """Stable Diffusion's layout, eight times narrower, so that 32 groups fit just so."""
    return kl(4, 32, 2, norm_num_groups=32, latent_channels=latent_channels, **options)


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(t.equal(theirs[n]) for n, t in ours.items())


def from_single_file(path: Path, vae: AutoencoderKL, folder: Path, **options: Any) -> AutoencoderKL:
    """What diffusers itself reads, its config from a folder."""
    vae.save_config(folder / "config")
    return AutoencoderKL.from_single_file(
        str(path), config=str(folder / "config"), local_files_only=True, **options
    )


LAYOUTS = {
    "sd": lambda: kl(4, layers=2),
    "one level": lambda: kl(1),
    "two levels, three layers": lambda: kl(2, layers=3),
    "equal widths": lambda: tiny_vae(),
    "flux: sixteen channels, no quant convs": lambda: kl(
        3, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False
    ),
    "one quant conv": lambda: kl(2, use_post_quant_conv=False),
    "no attention": lambda: kl(2, mid_block_add_attention=False),
    "grey": lambda: kl(2, in_channels=1, out_channels=1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_diffusers_reads_back_the_very_weights(tmp_path: Path, layout: str) -> None:
    vae = LAYOUTS[layout]()
    path = equivae.export_single_file(vae, tmp_path / "vae.safetensors")
    assert same(from_single_file(path, vae, tmp_path), vae)
    loaded = equivae.load_vae(path)
    assert same(loaded, vae)
    x = torch.rand(1, vae.config.in_channels, 16, 16)
    with torch.no_grad():
        assert loaded(x).sample.equal(vae(x).sample)


def test_the_names_are_those_of_ldm(tmp_path: Path) -> None:
    weights = load_file(equivae.export_single_file(kl(2), tmp_path / "vae.safetensors"))
    names = {name.rsplit(".", 1)[0] for name in weights}
    mid = {f"mid.block_{i}.{part}" for i in (1, 2) for part in BLOCK}
    mid |= {f"mid.attn_1.{part}" for part in ("norm", "q", "k", "v", "proj_out")}
    ends = {"conv_in", "norm_out", "conv_out"}
    encoder = mid | ends | {f"down.{i}.block.0.{part}" for i in (0, 1) for part in BLOCK}
    encoder |= {"down.0.downsample.conv", "down.1.block.0.nin_shortcut"}
    decoder = mid | ends | {f"up.{i}.block.{j}.{p}" for i in (0, 1) for j in (0, 1) for p in BLOCK}
    decoder |= {"up.1.upsample.conv", "up.0.block.0.nin_shortcut"}
    expected = {f"encoder.{n}" for n in encoder} | {f"decoder.{n}" for n in decoder}
    assert names == expected | {"quant_conv", "post_quant_conv"}
    assert weights["encoder.mid.attn_1.q.weight"].shape == (16, 16, 1, 1)
    assert weights["decoder.up.1.upsample.conv.weight"].shape == (16, 16, 3, 3)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("fp16", torch.float16), (torch.bfloat16, torch.bfloat16), (None, torch.float32)],
)
def test_dtypes(tmp_path: Path, dtype: Any, kind: torch.dtype) -> None:
    vae = tiny_vae()
    path = equivae.export_single_file(vae, tmp_path / "vae.safetensors", dtype=dtype)
    assert {t.dtype for t in load_file(path).values()} == {kind}
    loaded = equivae.load_vae(path, torch_dtype=kind)
    assert same(loaded, tiny_vae().to(kind))
    assert {p.dtype for p in equivae.load_vae(path).parameters()} == {torch.float32}
    assert {p.dtype for p in vae.parameters()} == {torch.float32}


def test_the_config_travels_in_the_file(tmp_path: Path) -> None:
    vae = tiny_vae(scaling_factor=0.3, shift_factor=0.1, norm_num_groups=2)
    path = equivae.export_single_file(vae, tmp_path / "vae.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = equivae.load_vae(path)
    assert loaded.config.scaling_factor == 0.3
    assert loaded.config.shift_factor == 0.1
    assert loaded.config.norm_num_groups == 2
    with safe_open(path, "pt") as file:
        assert "_name_or_path" not in file.metadata()["diffusers_config"]


@pytest.mark.parametrize("mode", ["reflect", "reflect-convs"])
def test_another_padding_mode_is_noted_and_warned_of(tmp_path: Path, mode: Any) -> None:
    vae = tiny_vae()
    equivae.set_padding_mode(vae, mode)
    with pytest.warns(UserWarning, match="tools that pad by zeros"):
        path = equivae.export_single_file(vae, tmp_path / "vae.safetensors")
    with safe_open(path, "pt") as file:
        assert file.metadata()["padding_mode"] == mode
    vae.save_config(tmp_path / "config")
    plain = json.loads((tmp_path / "config" / "config.json").read_text())
    del plain["padding_mode"]
    (tmp_path / "config" / "config.json").write_text(json.dumps(plain))
    for options in ({}, {"config": "sdxl"}, {"config": tmp_path / "config"}):
        loaded = equivae.load_vae(path, **options)
        assert equivae.get_padding_mode(loaded) == mode
        x = torch.rand(1, 3, 16, 16)
        with torch.no_grad():
            assert loaded(x).sample.equal(vae(x).sample)


# Files of others --------------------------------------------------------------------------------


def foreign(
    vae: AutoencoderKL, folder: Path, prefix: str = "", others: tuple[str, ...] = ()
) -> Path:
    """The weights alone, as a trainer writes them, beside those of the rest of a checkpoint."""
    weights = load_file(equivae.export_single_file(vae, folder / "ours.safetensors"))
    content: dict[str, Tensor] = {prefix + name: t for name, t in weights.items()}
    content |= {name: torch.zeros(2) for name in others}
    save_file(content, folder / "foreign.safetensors")
    return folder / "foreign.safetensors"


UNET = "model.diffusion_model.input_blocks.0.0.weight"
CLASSES = "model.diffusion_model.label_emb.0.0.weight"


@pytest.mark.parametrize(
    ("channels", "prefix", "others", "scaling", "shift"),
    [
        (4, "first_stage_model.", ("cond_stage_model.transformer.x",), 0.18215, None),
        (4, "first_stage_model.", (UNET,), 0.18215, None),
        (4, "first_stage_model.", ("conditioner.embedders.0.x",), 0.13025, None),
        (4, "first_stage_model.", (UNET, CLASSES), 0.13025, None),
        (16, "first_stage_model.", ("model.diffusion_model.joint_blocks.0.x",), 1.5305, 0.0609),
        (16, "vae.", ("model.diffusion_model.double_blocks.0.x",), 0.3611, 0.1159),
    ],
)
def test_the_vae_of_a_whole_checkpoint(
    tmp_path: Path, channels: int, prefix: str, others: tuple[str, ...], scaling: float, shift: Any
) -> None:
    quant = channels == 4
    vae = sd_vae(channels, use_quant_conv=quant, use_post_quant_conv=quant)
    path = foreign(vae, tmp_path, prefix, others)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = equivae.load_vae(path)
    assert same(loaded, vae)
    assert (loaded.config.scaling_factor, loaded.config.shift_factor) == (scaling, shift)
    assert loaded.config.use_quant_conv == quant


@pytest.mark.parametrize(
    ("channels", "others"),
    [(4, ()), (16, ()), (4, (UNET, CLASSES, "edm_mean")), (4, (CLASSES, "embedder.x"))],
)
def test_a_guessed_scaling_is_said_and_refused_where_it_counts(
    tmp_path: Path, channels: int, others: tuple[str, ...]
) -> None:
    quant = channels == 4
    vae = sd_vae(channels, use_quant_conv=quant, use_post_quant_conv=quant)
    path = foreign(vae, tmp_path, "first_stage_model.", others)
    guess, other = ("sd", "sdxl") if quant else ("flux", "sd3")
    with pytest.warns(UserWarning, match=f"taken as {guess}'s, and refused where it counts"):
        loaded = equivae.load_vae(path)
    z, images = torch.rand(2, channels, 8, 8), torch.rand(4, 3, 64, 64)
    uses = {
        "scale": lambda one: equivae.scale_latents(z, one),
        "unscale": lambda one: equivae.unscale_latents(z, one),
        "transform": lambda one: equivae.transform_latents(z, "hflip", one),
        "export": lambda one: equivae.export_single_file(one, tmp_path / "new.safetensors"),
        "finetune": lambda one: equivae.finetune(one, images, "hflip", tmp_path / "out"),
    }
    for use in uses.values():
        for one in (loaded, copy_module(loaded)):
            with pytest.raises(InputError, match=f"config='{guess}' or config='{other}'"):
                use(one)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["foreign.safetensors", "ours.safetensors"]
    assert scaling_of(loaded, channels) is None
    loaded.register_to_config(scaling_factor=0.7)  # said since
    assert equivae.scale_latents(z, loaded).allclose(
        (z - (loaded.config.shift_factor or 0)) * 0.7, atol=1e-6
    )


@pytest.mark.parametrize(
    ("key", "word", "channels", "scaling"),
    [
        ("modelspec.architecture", "stable-diffusion-xl-v1-base", 4, 0.13025),
        ("modelspec.architecture", "stable-diffusion-v1", 4, 0.18215),
        ("modelspec.architecture", "stable-diffusion-v2-768-v", 4, 0.18215),
        ("modelspec.architecture", "stable-diffusion-v3-medium", 16, 1.5305),
        ("modelspec.architecture", "Flux.1-dev", 16, 0.3611),
        ("ss_base_model_version", "sdxl_base_v1-0", 4, 0.13025),
        ("ss_base_model_version", "sd_v1", 4, 0.18215),
        ("ss_base_model_version", "flux1", 4, None),  # which has other channels
        ("modelspec.title", "sdxl", 4, None),
    ],
)
def test_the_metadata_tell_the_family(
    tmp_path: Path, key: str, word: str, channels: int, scaling: float | None
) -> None:
    path = foreign(sd_vae(channels, use_quant_conv=channels == 4), tmp_path)
    save_file(load_file(path), path, {key: word})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if scaling is None:
            with pytest.raises(UserWarning, match="do not say how its latents are scaled"):
                equivae.load_vae(path)
        else:
            assert equivae.load_vae(path).config.scaling_factor == scaling


def test_the_family_can_be_said(tmp_path: Path) -> None:
    path = foreign(sd_vae(), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = equivae.load_vae(path, config="sdxl")
    assert loaded.config.scaling_factor == 0.13025
    assert equivae.scale_latents(torch.ones(1, 4, 8, 8), loaded).allclose(torch.tensor(0.13025))
    with pytest.raises(InputError, match=r"config='sdlx' .* Did you mean 'sdxl'"):
        equivae.load_vae(path, config="sdlx")
    with pytest.raises(InputError, match="4 latent channels and 'flux' has 16; pass config='sd'"):
        equivae.load_vae(path, config="flux")


@pytest.mark.parametrize("place", ["", "vae"])
def test_a_config_of_ones_own(tmp_path: Path, place: str) -> None:
    vae = kl(2, scaling_factor=0.7)
    path = foreign(vae, tmp_path)
    with pytest.raises(InputError, match="number of groups cannot be told"):
        equivae.load_vae(path)
    vae.save_config(tmp_path / "config" / place)
    loaded = equivae.load_vae(path, config=tmp_path / "config")
    assert same(loaded, vae)
    assert loaded.config.scaling_factor == 0.7
    (tmp_path / "config.txt").write_text("no json")
    with pytest.raises(InputError, match="is not a config of an autoencoder"):
        equivae.load_vae(path, config=tmp_path / "config.txt")


def test_the_weights_of_a_diffusers_folder(tmp_path: Path) -> None:
    vae = tiny_vae()
    vae.save_pretrained(tmp_path / "a")
    path = tmp_path / "a" / "diffusion_pytorch_model.safetensors"
    assert same(equivae.load_vae(path), vae)
    (tmp_path / "a" / "config.json").unlink()
    with pytest.raises(InputError, match="number of groups cannot be told"):
        equivae.load_vae(path)


@pytest.mark.parametrize("suffix", [".sft", ".SAFETENSORS", ".safetensors"])
@pytest.mark.parametrize("attention", [True, False])
def test_diffusers_names_in_a_file_alone(tmp_path: Path, suffix: str, attention: bool) -> None:
    vae = kl(2, 32, norm_num_groups=32, mid_block_add_attention=attention)
    save_file(vae.state_dict(), tmp_path / f"vae{suffix}")
    loaded = equivae.load_vae(tmp_path / f"vae{suffix}", config="sdxl")
    assert same(loaded, vae)
    assert loaded.config.scaling_factor == 0.13025


def test_attention_names_of_older_diffusers(tmp_path: Path) -> None:
    vae = kl(2, 32, norm_num_groups=32)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, tensor in vae.state_dict().items():
        for new, former in names.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        old[name] = tensor
    assert sum("proj_attn" in name for name in old) == 4
    save_file(old, tmp_path / "old.safetensors")
    assert same(equivae.load_vae(tmp_path / "old.safetensors", config="sd"), vae)


def flux2() -> nn.Module:
    vae = AutoencoderKLFlux2(
        block_out_channels=(32, 64),
        decoder_block_out_channels=(64, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
    ).eval()
    with torch.no_grad():
        vae.bn.running_mean.uniform_()
    return vae


@pytest.mark.parametrize("inside", [True, False])
def test_a_file_of_flux_2_is_no_autoencoder_kl(tmp_path: Path, inside: bool) -> None:
    vae = flux2()
    weights = {}
    for name, tensor in vae.state_dict().items():
        if is_attention_weight(name):
            tensor = tensor[:, :, None, None]
        name = ldm_name(name, 2)
        if inside:  # as Black Forest Labs' own file has them
            name = name.replace("post_quant", "decoder.post_quant") if "post_" in name else name
            name = f"encoder.{name}" if name.startswith("quant") else name
        weights[name] = tensor.contiguous()
    save_file(weights, tmp_path / "flux2.safetensors")
    loaded = equivae.load_vae(tmp_path / "flux2.safetensors")
    assert type(loaded) is AutoencoderKLFlux2
    assert same(loaded, vae)
    assert loaded.config.decoder_block_out_channels == [64, 32]
    # Said to be an AutoencoderKL, as which it loaded without a word.
    kl(2, 32, norm_num_groups=32).save_config(tmp_path / "config")
    with pytest.raises(
        InputError, match=r"holds bn\.\w+ and 2 other weights for which AutoencoderKL"
    ):
        equivae.load_vae(tmp_path / "flux2.safetensors", config=tmp_path / "config")


def test_every_weight_has_its_place(tmp_path: Path) -> None:
    path = foreign(sd_vae(), tmp_path, "first_stage_model.", ("first_stage_model.strange.weight",))
    with pytest.raises(InputError, match=r"holds strange\.weight for which AutoencoderKL has no"):
        equivae.load_vae(path, config="sd")
    (tmp_path / "ours.safetensors").unlink()
    left = ("first_stage_model.loss.logvar", "first_stage_model.model_ema.decay")
    assert same(
        equivae.load_vae(foreign(sd_vae(), tmp_path, "first_stage_model.", left), config="sd"),
        sd_vae(),
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("encoder.layers.0.weight", "TAESD"),
        ("encoder.downsamples.0.residual.0.gamma", "AutoencoderKLWan"),
        ("encoder.stages.0.op_list.0.main.conv.weight", "AutoencoderDC"),
        ("lora_unet_x.lora_up.weight", "a LoRA"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a diffusion model alone"),
    ],
)
def test_layouts_of_others_are_named(tmp_path: Path, name: str, kind: str) -> None:
    save_file({name: torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=kind):
        equivae.load_vae(tmp_path / "other.safetensors")


def noted(vae: AutoencoderKL, folder: Path, config: Any) -> Path:
    weights = load_file(equivae.export_single_file(vae, folder / "plain.safetensors"))
    save_file(weights, folder / "noted.safetensors", {"diffusers_config": json.dumps(config)})
    return folder / "noted.safetensors"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ([1, 2], "the config in its metadata is not a config but of type list"),
        (3, "not a config but of type int"),
        ({"layers_per_block": -1}, "layers_per_block=-1"),
        ({"layers_per_block": 10**9}, "layers_per_block=1000000000"),
        ({"block_out_channels": "many"}, "not a list of widths"),
        ({"block_out_channels": []}, "not a list of widths"),
        ({"block_out_channels": [8, 2.5]}, r"block_out_channels\[1\]=2\.5"),
        ({"norm_num_groups": 0}, "norm_num_groups=0"),
        ({"norm_num_groups": 3}, "does not fit the config"),
        ({"scaling_factor": "big"}, "not a number to scale by"),
        ({"scaling_factor": 0}, "not a number to scale by"),
        ({"down_block_types": ["Nonsense"] * 2}, "does not fit the config"),
        ({"_class_name": "Nonsense"}, "Nonsense has no single-file layout"),
        ({"_class_name": ["AutoencoderKL"]}, "has no single-file layout"),
    ],
)
def test_nonsense_in_the_metadata_is_one_sentence(tmp_path: Path, config: Any, said: str) -> None:
    vae = tiny_vae()
    if isinstance(config, dict):
        config = {"_class_name": "AutoencoderKL", **dict(vae.config), **config}
    with pytest.raises(InputError, match=said):
        equivae.load_vae(noted(vae, tmp_path, config))


def test_tied_weights(tmp_path: Path) -> None:
    vae = tiny_vae()
    vae.decoder.mid_block.resnets[1].conv1.weight = vae.decoder.mid_block.resnets[0].conv1.weight
    path = equivae.export_single_file(vae, tmp_path / "tied.safetensors")
    assert same(equivae.load_vae(path), vae)
    save_vae(vae, tmp_path / "folder")
    assert same(AutoencoderKL.from_pretrained(tmp_path / "folder"), vae)


def test_a_torn_checkpoint_names_what_it_lacks(tmp_path: Path) -> None:
    vae = sd_vae()
    weights = load_file(equivae.export_single_file(vae, tmp_path / "whole.safetensors"))
    del weights["decoder.norm_out.bias"]
    save_file(weights, tmp_path / "torn.safetensors")
    with pytest.raises(InputError, match=r"lacks decoder\.norm_out\.bias of its"):
        equivae.load_vae(tmp_path / "torn.safetensors", config="sd")
    half = {name: t for name, t in weights.items() if name.startswith("decoder.")}
    save_file(half, tmp_path / "half.safetensors")
    with pytest.raises(InputError, match=r"holds no autoencoder .* no encoder\.conv_in\.weight"):
        equivae.load_vae(tmp_path / "half.safetensors")


def test_a_config_that_does_not_fit(tmp_path: Path) -> None:
    path = foreign(kl(2), tmp_path)
    kl(2, 16).save_config(tmp_path / "config")
    with pytest.raises(InputError, match="does not fit the config of its AutoencoderKL"):
        equivae.load_vae(path, config=tmp_path / "config")
    VQModel().save_config(tmp_path / "vq")
    with pytest.raises(InputError, match="VQModel has no single-file layout"):
        equivae.load_vae(path, config=tmp_path / "vq")


def test_files_of_other_classes_are_as_strict(tmp_path: Path) -> None:
    kind = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1], "num_res_blocks": 1}
    vae = AutoencoderKLWan(**kind, temperal_downsample=[False])
    vae.save_config(tmp_path / "config")
    path, weights = tmp_path / "wan.safetensors", vae.state_dict()

    def load(content: dict[str, Tensor]) -> nn.Module:
        save_file(content, path)
        return equivae.load_vae(path, config=tmp_path / "config")

    assert same(load(weights), vae)
    with pytest.raises(
        InputError, match=r"holds strange\.weight for which AutoencoderKLWan has no"
    ):
        load({**weights, "strange.weight": torch.zeros(3)})
    with pytest.raises(InputError, match=r"lacks decoder\.conv_out\.bias of its AutoencoderKLWan"):
        load({n: t for n, t in weights.items() if n != "decoder.conv_out.bias"})


# What cannot be exported ------------------------------------------------------------------------


def test_classes_without_a_layout(tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    with pytest.raises(
        InputError, match=r"VQModel has no single-file layout .* AutoencoderTiny have"
    ):
        equivae.export_single_file(VQModel(), path)
    attention = tiny_vae(down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"))
    with pytest.raises(InputError, match="AttnDownEncoderBlock2D"):
        equivae.export_single_file(attention, path)
    assert not path.exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    path.write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        equivae.export_single_file(tiny_vae(), path)
    assert path.read_text() == "mine"
    equivae.export_single_file(tiny_vae(), path, overwrite=True)
    assert same(equivae.load_vae(path), tiny_vae())
    with pytest.raises(InputError, match=r"end in \.safetensors"):
        equivae.export_single_file(tiny_vae(), tmp_path / "vae.ckpt")
    with pytest.raises(InputError, match=r"dtype='fp15' is unknown"):
        equivae.export_single_file(tiny_vae(), tmp_path / "b.safetensors", dtype="fp15")


def test_values_that_do_not_fit(tmp_path: Path) -> None:
    vae = tiny_vae()
    with torch.no_grad():
        vae.decoder.conv_out.bias[0] = 1e6
    with pytest.raises(
        InputError, match=r"decoder\.conv_out\.bias does not fit into torch\.float16"
    ):
        equivae.export_single_file(vae, tmp_path / "vae.safetensors", dtype="fp16")
    equivae.export_single_file(vae, tmp_path / "vae.safetensors", dtype="bf16")
    with torch.no_grad():
        vae.decoder.conv_out.bias[0] = float("nan")
    with pytest.raises(InputError, match="holds NaN"):
        equivae.export_single_file(vae, tmp_path / "nan.safetensors")


# Folders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_variants(tmp_path: Path, variant: str, kind: torch.dtype) -> None:
    vae = tiny_vae().to(kind)
    vae.save_pretrained(tmp_path, variant=variant)
    assert same(equivae.load_vae(tmp_path, variant=variant, torch_dtype=kind), vae)
    with pytest.raises(InputError, match=f"Pass variant='{variant}', which is there"):
        equivae.load_vae(tmp_path)
    tiny_vae().save_pretrained(tmp_path)
    assert same(equivae.load_vae(tmp_path), tiny_vae())
    with pytest.raises(InputError, match=f"Pass variant='{variant}' or no variant"):
        equivae.load_vae(tmp_path, variant="fp8")


def test_a_folder_that_lacks_weights_is_not_filled_up_at_random(tmp_path: Path) -> None:
    tiny_vae().save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file(weights | {"strange": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.warns(UserWarning, match="holds strange for which AutoencoderKL has no place"):
        assert same(equivae.load_vae(tmp_path), tiny_vae())
    del weights["decoder.conv_out.bias"], weights["decoder.conv_out.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks decoder\.conv_out\.bias and 1 other weight of"):
        equivae.load_vae(tmp_path)


def test_a_whole_pipeline_folder(tmp_path: Path) -> None:
    save_tiny_pipeline(tmp_path)
    assert same(equivae.load_vae(tmp_path), tiny_vae())
    assert json.loads((tmp_path / "model_index.json").read_text())["vae"][1] == "AutoencoderKL"


# The command line -------------------------------------------------------------------------------


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["equivae", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.mark.filterwarnings("default")
def test_export(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    vae = sd_vae()
    vae.save_pretrained(tmp_path / "vae")
    path, again = tmp_path / "vae.safetensors", tmp_path / "again.safetensors"
    export = ("export", "--pretrained_model_name_or_path")
    assert (
        command(monkeypatch, *export, tmp_path / "vae", "--output_file", path, "--dtype", "fp16")
        == 0
    )
    assert same(equivae.load_vae(path, torch_dtype=torch.float16), sd_vae().half())
    bare = foreign(vae, tmp_path)
    assert command(monkeypatch, *export, bare, "--output_file", again) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "Load it with --model_config_name_or_path sd or --model_config_name_or_path sdxl." in said
    )
    assert said.count("the weights of foreign.safetensors") == 1  # not as a warning, too
    assert "config=" not in said
    assert not again.exists()
    again.write_text("another")
    arguments = (*export, bare, "--output_file", again, "--model_config_name_or_path", "sdxl")
    assert command(monkeypatch, *arguments) == 2
    assert "choose another name, or pass --overwrite." in " ".join(capsys.readouterr().err.split())
    assert again.read_text() == "another"
    arguments = (*arguments, "--overwrite", "--padding_mode", "reflect-convs")
    assert command(monkeypatch, *arguments) == 0
    assert same(equivae.load_vae(again), vae)
    assert equivae.load_vae(again).config.scaling_factor == 0.13025
    assert equivae.get_padding_mode(equivae.load_vae(again)) == "reflect-convs"
    assert "of another shape than the published VAEs" in " ".join(capsys.readouterr().out.split())


def test_export_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "vae.safetensors"
    path.write_text("mine")
    export = ("export", "--pretrained_model_name_or_path", "embedded", "--output_file")
    assert command(monkeypatch, *export, path) == 2
    assert command(monkeypatch, *export, tmp_path / "b.safetensors", "--dtype", "fp99") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "already exists" in said
    assert "--dtype fp99 is unknown" in said
    assert [p.name for p in tmp_path.iterdir()] == ["vae.safetensors"]
