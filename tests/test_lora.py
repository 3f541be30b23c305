"""Low-rank factors: which layers, small files, merging, plain VAEs, exact resuming; freezing; optimisers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import nn

import equivae
from equivae import InputError
from equivae.autoencoder import Autoencoder
from equivae.training import FinetuneConfig, load_lora
from equivae.training.learning import learning_names, lora_targets
from equivae.training.muon import Muon
from equivae.training.optimisers import make_optimizer
from models import noise, tiny_kl

IMAGES = noise(6, 3, 16, 16)
SHORT: dict[str, Any] = {
    **{"max_train_steps": 2, "train_batch_size": 2, "progress": False, "bottleneck_steps": 0},
    **{"learning_rate": 1e-2},
}


def tuned(out: Path, vae: nn.Module | None = None, **options: Any) -> Any:
    model = tiny_kl() if vae is None else vae
    return equivae.finetune(model, IMAGES, "rot180", out, **{**SHORT, **options})


def changed(result: Any) -> set[str]:
    before = tiny_kl().state_dict()
    return {k for k, v in result.vae.state_dict().items() if not v.equal(before[k])}


def test_factors_are_merged_saved_and_taken_out_again(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    vae = tiny_kl()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    result = tuned(tmp_path / "out", vae, train="lora", lora_rank=2, padding_mode="reflect")
    assert all(value.equal(before[name]) for name, value in vae.state_dict().items())
    # A plain VAE, of which weights alone changed, no biases and norms.
    saved = AutoencoderKL.from_pretrained(tmp_path / "out")
    assert saved.state_dict().keys() == before.keys()
    assert changed(result) == {f"{name}.weight" for name in lora_targets(Autoencoder(vae), LORA)}
    lora = tmp_path / "out" / "lora" / "adapter_model.safetensors"
    assert (
        lora.stat().st_size
        < (tmp_path / "out" / "diffusion_pytorch_model.safetensors").stat().st_size
    )
    settings = result.report.settings
    assert settings["trained_parameters"] == sum(v.numel() for v in load_file(lora).values())
    # The factors beside the untouched weights, merged and taken out: padding as the layers do.
    equivae.set_padding_mode(vae, "reflect")
    beside = load_lora(vae, tmp_path / "out" / "lora")
    x = IMAGES[:1]
    with torch.no_grad():
        trained, plain = result.vae.encode(x).latent_dist.mode(), vae.encode(x).latent_dist.mode()
        apart = beside.module.encode(x).latent_dist.mode()
        beside.merge()
        merged = beside.module.encode(x).latent_dist.mode()
        beside.unmerge()
        for factor in beside.parameters:
            factor.zero_()
        without = beside.module.encode(x).latent_dist.mode()
    torch.testing.assert_close(apart, trained, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(merged, trained, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(without, plain, atol=1e-5, rtol=1e-5)
    assert (trained - plain).abs().max() > 1e-3
    assert beside.fold().state_dict().keys() == before.keys()


LORA = FinetuneConfig(train="lora", lora_rank=2)


def test_which_half_learns_stays_a_choice(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    result = tuned(
        tmp_path / "out",
        train="decoder",
        lora_rank=2,
        lora_target_modules=["conv1", "decoder.conv_*"],
        freeze="decoder.conv_out",
        use_ema=True,
        lora_alpha=4.0,
    )
    names = changed(result)
    assert names
    assert all(name.startswith("decoder.") for name in names)
    assert all("conv1" in name or name == "decoder.conv_in.weight" for name in names)


def test_factors_are_resumed_exactly(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    options = {
        "train": "lora",
        "lora_rank": 2,
        "checkpointing_steps": 1,
        "checkpoints_total_limit": 5,
    }
    whole = tuned(tmp_path / "whole", **options)
    (tmp_path / "whole" / "checkpoint-1").rename(tmp_path / "checkpoint-1")
    resumed = tuned(
        tmp_path / "resumed", resume_from_checkpoint=str(tmp_path / "checkpoint-1"), **options
    )
    assert all(v.equal(whole.vae.state_dict()[k]) for k, v in resumed.vae.state_dict().items())
    adapter = Path("lora") / "adapter_model.safetensors"
    one, two = (load_file(tmp_path / run / adapter) for run in ("whole", "resumed"))
    assert all(value.equal(two[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_target_modules": "conv1"}, "lora_target_modules=['conv1'] does nothing without"),
        ({"lora_rank": 2, "lora_target_modules": "to_qq"}, "'to_qq' matches no layer"),
        ({"lora_rank": 2, "lora_target_modules": "cnv1"}, "Did you mean 'conv1'"),
        ({"freeze": "decoder.conv_oot*"}, "Did you mean 'decoder.conv_out'"),
        ({"freeze": ["*"]}, "leaves nothing to learn of the"),
        ({"freeze": [1]}, "freeze must be a text"),
        ({"lora_rank": -1}, "lora_rank must not be negative"),
        ({"optimizer": "adamw8bit"}, "needs a GPU; use 'adamw'"),
        ({"optimizer": "adam"}, "optimizer='adam' is unknown. Did you mean 'adamw'"),
        ({"optimizer": "prodigy", "operator_learning_rate": 1.0}, "one step size for all weights"),
    ],
)
def test_what_cannot_learn_is_refused_before_any_work(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        tuned(tmp_path / "out", **options)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_factors_of_another_vae_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    with pytest.raises(InputError, match=r"has no adapter_model.safetensors"):
        load_lora(tiny_kl(), tmp_path)
    tuned(tmp_path / "out", train="lora", lora_rank=2, max_train_steps=1)
    other = tiny_kl(block_out_channels=(8, 16))
    with pytest.raises(InputError, match=r"another VAE|do not suit this VAE"):
        load_lora(other, tmp_path / "out" / "lora")


def test_frozen_layers_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    names = changed(tuned(tmp_path / "out", freeze=["decoder.conv_out*", "encoder.down_blocks"]))
    whole = set(learning_names(Autoencoder(tiny_kl()), FinetuneConfig()))
    resting = {n for n in whole if n.startswith(("decoder.conv_out", "encoder.down_blocks"))}
    assert len(resting) > 4
    assert not names & resting
    assert whole - resting <= names | {n for n in whole if n.endswith("bias")}


@pytest.mark.parametrize("name", ["adamw", "muon", "prodigy", "lion"])
def test_norms_and_biases_do_not_decay(name: str) -> None:
    pytest.importorskip({"prodigy": "prodigyopt", "lion": "lion_pytorch"}.get(name, "torch"))
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    config = FinetuneConfig(optimizer=name, learning_rate=0.1, adam_weight_decay=0.5)
    for options, decays in ((config, False), (FinetuneConfig(**{**config.to_dict(), **ALL}), True)):
        weight.data.fill_(1.0), bias.data.fill_(1.0)
        optimizer = make_optimizer(options, [([weight, bias], None)])
        weight.grad, bias.grad = torch.full((2, 2), 1e-30), torch.full((2,), 1e-30)
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        assert groups[id(weight)]["weight_decay"] == 0.5
        assert groups[id(bias)]["weight_decay"] == (0.5 if decays else 0.0)


ALL = {"decay_norms_and_biases": True}


def test_muon_steps_along_the_orthogonal_factor() -> None:
    kernel, bias = nn.Parameter(torch.zeros(4, 3, 3, 3)), nn.Parameter(torch.zeros(4))
    optimizer = Muon([kernel, bias], lr=0.1, weight_decay=0.0)
    kernel.grad, bias.grad = noise(4, 3, 3, 3), torch.ones(4)
    u, values, v = torch.linalg.svd(kernel.grad.flatten(1), full_matrices=False)
    optimizer.step()
    turned = u.T @ kernel.detach().flatten(1) @ v.T / (-0.1 * 0.2 * 27**0.5)
    assert torch.allclose(turned, turned.diagonal().diag(), atol=1e-4)
    assert values.max() / values.min() > 1.5  # which the steps do away with
    assert 0.6 < turned.diagonal().min() <= turned.diagonal().max() < 1.3
    assert torch.allclose(bias.detach(), torch.full((4,), -0.1))


@pytest.mark.parametrize(("name", "rate"), [("prodigy", 1.0), ("lion", 1e-3), ("muon", 1e-3)])
def test_other_optimisers_learn_and_resume_exactly(name: str, rate: float, tmp_path: Path) -> None:
    pytest.importorskip({"prodigy": "prodigyopt", "lion": "lion_pytorch"}.get(name, "torch"))
    options = {"optimizer": name, "learning_rate": rate, "checkpointing_steps": 1}
    whole = tuned(tmp_path / "whole", checkpoints_total_limit=5, **options)
    assert changed(whole)
    (tmp_path / "whole" / "checkpoint-1").rename(tmp_path / "checkpoint-1")
    path = str(tmp_path / "checkpoint-1")
    resumed = tuned(tmp_path / "resumed", resume_from_checkpoint=path, **options)
    assert all(v.equal(whole.vae.state_dict()[k]) for k, v in resumed.vae.state_dict().items())


def test_the_best_vae_of_a_run_with_factors_is_a_plain_one(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    options = {"keep_best": "validation_loss", "validation_steps": 1, "validation_images": IMAGES}
    result = tuned(tmp_path / "out", tiny_kl(), train="lora", lora_rank=2, **options)
    best = AutoencoderKL.from_pretrained(tmp_path / "out" / "best").state_dict()
    last = AutoencoderKL.from_pretrained(tmp_path / "out").state_dict()
    assert best.keys() == last.keys() == tiny_kl().state_dict().keys()
    assert all(value.equal(last[name]) for name, value in result.vae.state_dict().items())
