"""Padding modes: what they change, what they leave, and that they can be taken back."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLWan, AutoencoderTiny
from torch import nn

import equivae
from equivae import InputError
from equivae.autoencoder.padded import padding_of
from equivae.files.pretrained import save_vae
from models import ConvAE, noise, tiny_kl

WAN: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False],
    "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4,
}
MODELS: dict[str, Any] = {
    "AutoencoderKL": lambda: tiny_kl(mid_block_add_attention=True),
    "AutoencoderTiny": lambda: AutoencoderTiny(
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval(),
    "AutoencoderDC": lambda: AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock"),
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        downsample_block_type="conv",
    ).eval(),
    "AutoencoderKLWan": lambda: AutoencoderKLWan(**WAN).eval(),
}


@torch.no_grad()
def both(vae: Any, x: torch.Tensor) -> list[torch.Tensor]:
    if isinstance(vae, AutoencoderKLWan):
        latent = vae.encode(x[:, :, None]).latent_dist.mode()
        return [latent, vae.decode(latent).sample]
    view = equivae.Autoencoder(vae)
    latent = view.encode(x)
    return [latent, view.decode(latent)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:.*inside their class's own forward")
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "reflect-convs"])
def test_it_changes_both_halves_and_can_be_taken_back(name: str, mode: Any) -> None:
    torch.manual_seed(0)
    vae, x = MODELS[name](), noise(1, 3, 32, 32)
    weights = {n: t.clone() for n, t in vae.state_dict().items()}
    before = both(vae, x)
    called = mode
    if mode == "reflect-convs" and name in ("AutoencoderTiny", "AutoencoderDC"):
        called = "reflect"  # nothing is padded around their convolutions
    elif mode != "reflect-convs" and name == "AutoencoderKLWan":
        called = "mixed"  # most of its convolutions go on to pad by zeros
    with equivae.using_padding_mode(vae, mode):
        assert equivae.get_padding_mode(vae) == called
        changed = both(vae, x)
    after = both(vae, x)
    halves = [not a.equal(b) for a, b in zip(before, changed, strict=True)]
    # None of the convolutions in Wan's encoder pads by itself.
    assert halves == [(mode, name) != ("reflect-convs", "AutoencoderKLWan"), True]
    assert all(a.equal(b) for a, b in zip(before, after, strict=True))
    equivae.set_padding_mode(vae, mode)
    assert all(a.equal(b) for a, b in zip(changed, both(vae, x), strict=True))
    equivae.set_padding_mode(vae, "replicate")
    equivae.set_padding_mode(vae, "zeros")
    assert all(a.equal(b) for a, b in zip(before, both(vae, x), strict=True))
    assert equivae.get_padding_mode(vae) == "zeros"
    assert {n: t.equal(weights[n]) for n, t in vae.state_dict().items()} == dict.fromkeys(
        weights, True
    )


def test_the_interior_stays() -> None:
    """One convolution of radius 1: only the outermost pixels may change."""
    vae = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    x = noise(1, 3, 8, 8)
    before = vae(x)
    with equivae.using_padding_mode(vae, "reflect"):
        after = vae(x)
    assert after[..., 1:-1, 1:-1].allclose(before[..., 1:-1, 1:-1], atol=1e-6)
    expected = F.conv2d(F.pad(x, [1] * 4, mode="reflect"), vae[0].weight, vae[0].bias)
    assert after.equal(expected)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_the_asymmetric_downsampler_keeps_its_grid(mode: Any) -> None:
    vae, x = tiny_kl(), noise(1, 8, 8, 8)
    down = vae.encoder.down_blocks[0].downsamplers[0]
    weight, bias = down.conv.weight, down.conv.bias
    assert down(x).equal(F.conv2d(F.pad(x, [0, 1, 0, 1]), weight, bias, stride=2))
    equivae.set_padding_mode(vae, mode)
    assert down(x).equal(F.conv2d(F.pad(x, [0, 1, 0, 1], mode=mode), weight, bias, stride=2))
    equivae.set_padding_mode(vae, "zeros")
    assert down(x).equal(F.conv2d(F.pad(x, [0, 1, 0, 1]), weight, bias, stride=2))


def test_a_flip_of_the_decoder_alone_is_no_matter_of_padding() -> None:
    """With mirror-symmetric weights reflect commutes with flips, as zeros do: the mode is applied evenly."""
    vae = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 5, padding=2))
    with torch.no_grad():
        for conv in vae:
            conv.weight += conv.weight.flip(-1).clone()
    x = noise(1, 2, 8, 8)
    with equivae.using_padding_mode(vae, "reflect"):
        assert vae(x.flip(-1)).allclose(vae(x).flip(-1), atol=1e-5)


def test_it_is_noted_saved_and_applied_again(tmp_path: Path) -> None:
    vae, x = tiny_kl(), noise(1, 3, 16, 16)
    equivae.set_padding_mode(vae, "reflect")
    vae.save_pretrained(tmp_path)
    expected = both(vae, x)
    loaded = equivae.load_vae(tmp_path)
    assert all(a.equal(b) for a, b in zip(expected, both(loaded, x), strict=True))
    plain = AutoencoderKL.from_pretrained(tmp_path).eval()
    assert equivae.get_padding_mode(plain) == "zeros"
    assert plain.config.padding_mode == "reflect"
    assert all(a.equal(b) for a, b in zip(both(tiny_kl(), x), both(plain, x), strict=True))
    equivae.set_padding_mode(loaded, "zeros")
    loaded.save_pretrained(tmp_path / "zeros")
    assert equivae.get_padding_mode(equivae.load_vae(tmp_path / "zeros")) == "zeros"
    untouched = tiny_kl()
    equivae.set_padding_mode(untouched, "zeros")
    assert "padding_mode" not in untouched.config


def test_the_context_leaves_no_note_even_after_an_error() -> None:
    vae = tiny_kl()
    with pytest.raises(KeyError), equivae.using_padding_mode(vae, "reflect"):
        raise KeyError
    assert equivae.get_padding_mode(vae) == "zeros"
    assert "padding_mode" not in vae.config


def test_contexts_nest_and_a_copy_keeps_the_mode() -> None:
    vae, x = tiny_kl(), noise(1, 3, 16, 16)
    with equivae.using_padding_mode(vae, "reflect"):
        expected = both(vae, x)
        with equivae.using_padding_mode(vae, "zeros"):
            assert all(a.equal(b) for a, b in zip(both(tiny_kl(), x), both(vae, x), strict=True))
        assert equivae.get_padding_mode(vae) == "reflect"
        twin = copy.deepcopy(vae)
    assert all(a.equal(b) for a, b in zip(expected, both(twin, x), strict=True))


def test_mixed_modes_are_called_so() -> None:
    vae = tiny_kl()
    vae.decoder.conv_in.padding_mode = "replicate"
    assert equivae.get_padding_mode(vae) == "mixed"
    with equivae.using_padding_mode(vae, "reflect"):
        pass
    assert vae.decoder.conv_in.padding_mode == "replicate"


def test_what_cannot_be_done() -> None:
    with pytest.raises(InputError, match=r"padding_mode='reflct' .* 'reflect'"):
        equivae.set_padding_mode(tiny_kl(), "reflct")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no convolution that pads"):
        equivae.set_padding_mode(ConvAE(), "reflect")
    assert equivae.get_padding_mode(ConvAE()) == "zeros"


def test_gradients_pass() -> None:
    vae = tiny_kl()
    equivae.set_padding_mode(vae, "reflect")
    equivae.EquivarianceLoss("rot180")(vae, noise(1, 3, 16, 16)).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())


# The community's convention, and circular ------------------------------------------------------


def as_the_community_does(vae: nn.Module) -> None:
    for module in vae.modules():
        if isinstance(module, nn.Conv2d) and max(module.padding) > 0:
            module.padding_mode = "reflect"


def test_reflect_convs_is_what_the_community_does() -> None:
    ours, theirs, x = tiny_kl(), tiny_kl(), noise(1, 3, 16, 16)
    as_the_community_does(theirs)
    assert equivae.get_padding_mode(theirs) == "reflect-convs"
    equivae.set_padding_mode(ours, "reflect")  # whatever it was before
    equivae.set_padding_mode(ours, "reflect-convs")
    assert all(a.equal(b) for a, b in zip(both(theirs, x), both(ours, x), strict=True))
    down = ours.encoder.down_blocks[0].downsamplers[0]
    z = noise(1, 8, 8, 8)
    assert down(z).equal(
        F.conv2d(F.pad(z, [0, 1, 0, 1]), down.conv.weight, down.conv.bias, stride=2)
    )


@pytest.mark.filterwarnings("ignore:this VAE pads by")
@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("mode", ["reflect-convs", "circular", "reflect", "replicate"])
def test_every_mode_comes_back(tmp_path: Path, mode: Any, by_hand: bool) -> None:
    """Saved as a folder or as a single file, it loads and decodes as it did."""
    vae, x = tiny_kl(block_out_channels=(32, 32), norm_num_groups=32), noise(1, 3, 16, 16)
    equivae.set_padding_mode(vae, mode)
    if by_hand:  # the layers as they are, with no note of it
        vae.register_to_config(padding_mode=None)
    expected = both(vae, x)
    save_vae(vae, tmp_path / "folder")
    path = equivae.export_single_file(vae, tmp_path / "vae.safetensors")
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["padding_mode"] == mode
    for place in (tmp_path / "folder", path):
        loaded = equivae.load_vae(place)
        assert equivae.get_padding_mode(loaded) == mode
        assert loaded.config.padding_mode == mode
        assert all(a.equal(b) for a, b in zip(expected, both(loaded.eval(), x), strict=True))


def test_a_note_that_is_no_longer_true_is_written_anew(tmp_path: Path) -> None:
    vae = tiny_kl()
    equivae.set_padding_mode(vae, "reflect")
    with equivae.using_padding_mode(vae, "reflect-convs"):
        save_vae(vae, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["padding_mode"] == "reflect-convs"


def test_what_the_class_builds_needs_no_note(tmp_path: Path) -> None:
    from diffusers import AutoencoderKLLTX2Video

    from matrix_models import make

    video = make("AutoencoderKLLTX2Video")
    assert isinstance(video, AutoencoderKLLTX2Video)
    assert equivae.get_padding_mode(video) == "mixed"  # its decoder reflects
    save_vae(video, tmp_path)
    assert "padding_mode" not in json.loads((tmp_path / "config.json").read_text())


def test_layers_that_no_mode_describes(tmp_path: Path) -> None:
    vae = tiny_kl(block_out_channels=(32, 32), norm_num_groups=32)
    vae.decoder.conv_in.padding_mode = "replicate"
    with pytest.warns(UserWarning, match="pad in ways that no padding_mode describes"):
        save_vae(vae, tmp_path)
    with pytest.raises(InputError, match="pad in ways that no padding_mode describes"):
        equivae.export_single_file(vae, tmp_path / "vae.safetensors")


def test_padding_inside_a_class_is_not_passed_over(tmp_path: Path) -> None:
    vae, x = AutoencoderKLWan(**WAN).eval(), noise(1, 3, 32, 32)
    layers = padding_of(vae).values()
    inside = [layer for layer in layers if layer.place == "inside"]
    assert 0 < len(inside) < len(layers)
    with pytest.warns(
        UserWarning, match=rf"{len(inside)} of the {len(layers)} layers of AutoencoderKLWan"
    ):
        equivae.set_padding_mode(vae, "reflect")
    assert equivae.get_padding_mode(vae) == "mixed"
    expected = both(vae, x)
    save_vae(vae, tmp_path)
    loaded = equivae.load_vae(tmp_path)
    assert loaded.config.padding_mode == "reflect"
    assert all(a.equal(b) for a, b in zip(expected, both(loaded.eval(), x), strict=True))


def test_a_fine_tune_keeps_the_convention_and_its_card_says_so(tmp_path: Path) -> None:
    vae = tiny_kl()
    as_the_community_does(vae)
    result = equivae.finetune(
        vae, noise(4, 3, 16, 16), "hflip", tmp_path, max_train_steps=1, progress=False
    )
    assert equivae.get_padding_mode(result.vae) == "reflect-convs"
    loaded = equivae.load_vae(tmp_path).eval()
    x = noise(1, 3, 16, 16)
    assert all(a.equal(b) for a, b in zip(both(result.vae, x), both(loaded, x), strict=True))
    card = (tmp_path / "README.md").read_text()
    assert "downsamplers add at one side stay zeros (`reflect-convs`)" in card
    assert 'equivae.set_padding_mode(vae, "reflect-convs")' in card
