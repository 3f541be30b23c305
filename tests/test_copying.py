"""Copies that learn by themselves, plain names of compiled weights, and which halves learn."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import equivae
from equivae import InputError
from equivae.autoencoder import (
    check_trainable,
    copy_module,
    plain_state_dict,
    trainable_halves,
    uncompiled,
)
from equivae.files.pretrained import save_vae
from models import ConvAE, noise, tiny_kl

X = noise(1, 3, 16, 16)


def _compile_decode(vae: Any) -> None:
    vae.decode = torch.compile(vae.decode, backend="eager")


def _compile_parts(vae: Any) -> None:
    vae.decoder = torch.compile(vae.decoder, backend="eager")
    vae.encoder.mid_block = torch.compile(vae.encoder.mid_block, backend="eager")


def _bind(vae: Any) -> None:
    def decode(self: Any, z: Tensor) -> Tensor:
        return type(self).decode(self, z, return_dict=False)[0] * 0.5

    vae.decode = decode.__get__(vae)


def _partial(vae: Any) -> None:
    vae.decode = functools.partial(type(vae).decode, vae)


def _without_weights(vae: Any) -> None:
    vae.encoder.conv_act.forward = lambda x: torch.relu(x)


def _close_over(vae: Any) -> None:
    original = vae.decode
    vae.decode = lambda z: original(z)


def _profile(vae: Any) -> None:
    original = vae.encode

    @functools.wraps(original)
    def encode(*args: Any, **options: Any) -> Any:
        return original(*args, **options)

    vae.encode = encode


def _compile_a_closure(vae: Any) -> None:
    original = vae.decode
    vae.decode = torch.compile(lambda z: original(z), backend="eager")


INDEPENDENT = [_compile_decode, _compile_parts, _bind, _partial, _without_weights]
DEPENDENT = [_close_over, _profile, _compile_a_closure]


@pytest.mark.parametrize("wrap", INDEPENDENT)
def test_a_copy_is_independent(wrap: Any) -> None:
    vae = tiny_kl()
    wrap(vae)
    expected = equivae.Autoencoder(vae)
    twin = copy_module(vae)
    view = equivae.Autoencoder(twin)
    with torch.no_grad():
        decoded = expected.decode(expected.encode(X))
        assert view.decode(view.encode(X)).allclose(decoded, atol=1e-6)
        for parameter in twin.parameters():
            parameter.mul_(1.1)
        assert not view.decode(view.encode(X)).allclose(decoded, atol=1e-4)
        assert expected.decode(expected.encode(X)).equal(decoded)
    assert twin.state_dict().keys() == tiny_kl().state_dict().keys()
    assert trainable_halves(view) == ("encoder", "decoder")


@pytest.mark.parametrize("wrap", DEPENDENT)
def test_a_copy_that_would_run_the_originals_weights_is_refused(wrap: Any, tmp_path: Path) -> None:
    vae = tiny_kl()
    wrap(vae)
    with pytest.raises(
        InputError, match=r"`(en|de)code` of this AutoencoderKL was replaced on the inst"
    ):
        copy_module(vae)
    with pytest.raises(InputError, match="was replaced on the instance"):
        equivae.finetune(
            vae, noise(4, 3, 16, 16), "hflip", tmp_path, max_train_steps=1, progress=False
        )


def test_a_compiled_vae_is_fine_tuned_and_saved_under_plain_names(tmp_path: Path) -> None:
    vae = tiny_kl()
    _compile_parts(vae)
    _compile_decode(vae)
    result = equivae.finetune(
        vae,
        noise(4, 3, 16, 16),
        "hflip",
        tmp_path,
        max_train_steps=1,
        learning_rate=1e-2,
        progress=False,
    )
    saved = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    plain = tiny_kl().state_dict()
    assert saved.keys() == plain.keys()
    moved = {name.split(".")[0] for name, value in saved.items() if not value.equal(plain[name])}
    assert {"encoder", "decoder"} <= moved
    assert all(value.equal(plain[name]) for name, value in plain_state_dict(vae).items())
    assert result.vae is not vae


@pytest.mark.parametrize("whole", [False, True])
def test_saved_and_exported_under_plain_names(tmp_path: Path, whole: bool) -> None:
    vae: Any = tiny_kl(block_out_channels=(32, 32), norm_num_groups=32)
    plain = {name: value.clone() for name, value in vae.state_dict().items()}
    _compile_parts(vae)
    compiled = torch.compile(vae, backend="eager") if whole else vae
    before = [type(part).__name__ for part in compiled.modules()]
    save_vae(compiled, tmp_path / "saved")
    path = equivae.export_single_file(compiled, tmp_path / "vae.safetensors")
    assert [type(part).__name__ for part in compiled.modules()] == before
    for loaded in (equivae.load_vae(tmp_path / "saved"), equivae.load_vae(path)):
        assert all(value.equal(plain[name]) for name, value in loaded.state_dict().items())
    assert plain_state_dict(compiled).keys() == plain.keys()


def test_a_module_of_ones_own_is_saved_under_plain_names(tmp_path: Path) -> None:
    module = ConvAE()
    module.decoder = torch.compile(module.decoder, backend="eager")
    save_vae(module, tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == ConvAE().state_dict().keys()
    with pytest.raises(ZeroDivisionError), uncompiled(module):
        raise ZeroDivisionError
    assert "decoder._orig_mod.weight" in module.state_dict()


# Which halves learn -------------------------------------------------------------------------------


class Detached(ConvAE):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).detach()


def test_both_halves_or_a_sentence() -> None:
    check_trainable(equivae.Autoencoder(tiny_kl()), "all")
    assert trainable_halves(equivae.Autoencoder(Detached())) == ("decoder",)
    with pytest.raises(InputError, match="no gradient reaches a weight of the encoder of Detached"):
        check_trainable(equivae.Autoencoder(Detached()), "all")
    check_trainable(equivae.Autoencoder(Detached()), "decoder")
    frozen: nn.Module = ConvAE()
    frozen.decoder.requires_grad_(False)
    with pytest.raises(InputError, match="of the decoder of ConvAE that wants one"):
        check_trainable(equivae.Autoencoder(frozen))
