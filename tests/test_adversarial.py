"""The adversarial term: its losses by hand, its scale, and a run in which the discriminator learns too."""

from __future__ import annotations

import math
import shutil
import sys
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

import equivae
from equivae import InputError, Report
from equivae.cli import main
from equivae.losses import Objective, make_terms
from equivae.losses.adversarial import Critic
from equivae.losses.patchgan import PatchDiscriminator
from models import noise, tiny_kl
from test_finetune import changed, finetune, weights
from test_resume import without_time
from test_terms import compared, term

SMALL = {"channels": 4, "depth": 1}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Report, "figures", lambda self: {})


class Linear(nn.Module):
    """`slope` times the mean of every image, as one patch."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, images: Tensor) -> Tensor:
        return self.slope * images.mean((1, 2, 3), keepdim=True)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize("loss", ["hinge", "non_saturating"])
def test_both_players_losses_by_hand(loss: str) -> None:
    made = term("adversarial", loss=loss, r1=3.0, norm="none", **SMALL)
    made.critic.discriminator = Linear(2.0)
    decoded = torch.full((2, 3, 8, 8), -0.25, requires_grad=True)
    (one,) = made(compared(decoded, torch.full((2, 3, 8, 8), 0.2)))
    judged, images = -0.5, 0.4
    assert one.name == "adversarial/part"
    expected = -judged if loss == "hinge" else softplus(-judged)
    assert one.value.item() == pytest.approx(expected)
    one.value.backward()
    assert decoded.grad.mean() < 0  # towards what is judged higher

    value, named = made.critic()
    penalty = 3.0 / 2 * (2.0 / 192) ** 2 * 192
    expected = (max(0, 1 - images) + max(0, 1 + judged)) / 2
    if loss == "non_saturating":
        expected = softplus(-images) + softplus(judged)
    assert value.item() == pytest.approx(expected + penalty, rel=1e-5)
    assert float(named["adversarial/images"]) == pytest.approx(images)
    assert float(named["adversarial/decoded"]) == pytest.approx(judged)
    value.backward()
    assert made.critic.discriminator.slope.grad is not None


def test_outside_the_mask_the_discriminator_sees_the_image() -> None:
    made = term("adversarial", norm="none", **SMALL)
    target, mask = noise(2, 3, 16, 16), torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., :8] = True
    made(compared(noise(2, 3, 16, 16, seed=1), target, mask))
    [(decoded, images)] = made.critic.seen
    assert torch.equal(decoded[..., 8:], target[..., 8:])
    assert not torch.equal(decoded[..., :8], target[..., :8])
    assert torch.equal(images, target)


@pytest.mark.parametrize("norm", ["batch", "group", "spectral", "none"])
def test_the_discriminator_has_the_shape_of_ldms(norm: Any) -> None:
    network = PatchDiscriminator(norm=norm)
    assert network(noise(2, 3, 64, 64)).shape == (2, 1, 6, 6)
    convs = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert [(c.out_channels, c.stride[0]) for c in convs] == [
        *((64, 2), (128, 2), (256, 2)),
        *((512, 1), (1, 1)),
    ]
    assert all(is_parametrized(c) == (norm == "spectral") for c in convs)
    if norm == "batch":  # biases in the first and the last layer, scale and shift in three norms
        kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
        expected = kernels + 64 + 1 + 2 * (128 + 256 + 512)
        assert sum(p.numel() for p in network.parameters()) == expected


def test_the_scale_is_vqgans() -> None:
    vae, images = tiny_kl(), noise(2, 3, 32, 32)
    made = make_terms({"l1": 0.5, "adversarial": {"weight": 0.8, "norm": "none", **SMALL}})
    objective = Objective(vae, equivae.EquivarianceLoss("hflip"), terms=made)
    loss, values = objective(images)

    def norm(terms: Any, reconstruction: str) -> tuple[float, float]:
        loss_fn = equivae.EquivarianceLoss("hflip", reconstruction=reconstruction)
        alone = Objective(vae, loss_fn, terms=terms)
        total, _ = alone(images)
        (slope,) = torch.autograd.grad(total, vae.decoder.conv_out.weight)
        return slope.norm().item(), total.item()

    made[1][1].adaptive = None
    rest, rest_value = norm(made[:1], "mse")
    own, own_value = norm([(1.0, made[1][1])], "none")
    scale = rest / (own + 1e-4)
    assert float(values["adversarial/scale"]) == pytest.approx(scale, rel=1e-3)
    assert loss.item() == pytest.approx(rest_value + 0.8 * scale * own_value, rel=1e-3)
    # So that the term's gradient is as strong as all others' times its weight.
    made[1][1].adaptive = "decoder"
    alone = Objective(vae, equivae.EquivarianceLoss("hflip"), terms=made[1:])
    alone.at_step(0, weighs=True)
    assert float(alone(images)[1]["share/adversarial"]) == pytest.approx(0.8 / 1.8, rel=1e-2)


def test_before_its_start_the_term_is_nothing() -> None:
    vae, images = tiny_kl(), noise(2, 3, 32, 32)
    terms = make_terms({"adversarial": {"start_step": 3, **SMALL}})
    objective = Objective(vae, equivae.EquivarianceLoss("hflip"), terms=terms)
    loss, values = objective(images)
    plain, _ = Objective(vae, equivae.EquivarianceLoss("hflip"))(images)
    assert loss == plain
    assert list(values) == ["reconstruction", "equivariance/hflip"]
    objective.at_step(3)
    assert "adversarial/reconstruction" in objective(images)[1]


TERMS = {
    "adversarial": {
        "weight": 0.5,
        "start_step": 2,
        "lr_scheduler": "linear",
        "norm": "spectral",
        "r1": 0.1,
        **SMALL,
    },
    "latent_std": 0.1,
    "kl": 1e-6,
}


@pytest.mark.parametrize(
    "options",
    [
        {"use_ema": True, "validation_steps": 3},
        {"gradient_accumulation_steps": 2, "schedule": "dual", "sample_posterior": True},
    ],
    ids=["ema", "accumulation"],
)
def test_a_run_with_a_discriminator_is_resumed_exactly(tmp_path: Any, options: Any) -> None:
    options = {"max_train_steps": 6, "logging_steps": 2, "terms": TERMS, **options}
    checkpoints = {"checkpointing_steps": 3, "checkpoints_total_limit": None}
    whole = finetune(tmp_path / "whole", **options, **checkpoints)
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "cut" / "checkpoint-3")
    cut = finetune(tmp_path / "cut", **options, **checkpoints, resume_from_checkpoint="latest")
    assert changed(weights(whole.vae), weights(cut.vae)) == set()
    assert without_time(cut.history) == without_time(whole.history)
    for name in ("model.safetensors", "model_1.safetensors"):  # the objective, the discriminator
        first, second = (
            load_file(tmp_path / part / "checkpoint-6" / name) for part in ("whole", "cut")
        )
        assert changed(first, second) == set()
    before = load_file(tmp_path / "whole" / "checkpoint-3" / "model_1.safetensors")
    assert changed(before, first)  # it learns

    records = [r for r in whole.history if "loss" in r and r["step"] % 2 == 0]
    assert all("share/mse" in record and "kl" in record for record in records)
    assert "adversarial/discriminator" not in records[0]
    for record in records[1:]:
        shares = [v for k, v in record.items() if k.startswith("share/")]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert record["adversarial/discriminator"] > 0
    saved = set(load_file(tmp_path / "whole" / "diffusion_pytorch_model.safetensors"))
    assert saved == set(tiny_kl().state_dict())  # no trace of the terms


def test_a_run_resumes_with_the_same_terms_alone(tmp_path: Any) -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3))
    terms = {"perceptual": {"weight": 0.1, "backbone": backbone, "layers": ["0"]}}
    finetune(tmp_path / "run", terms=terms, max_train_steps=2, checkpointing_steps=1)
    saved = load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors")
    assert not any("perceptual" in name or "terms" in name for name in saved)
    more = {"max_train_steps": 3, "resume_from_checkpoint": "latest", "checkpointing_steps": 1}
    with pytest.raises(InputError, match="terms="):
        finetune(tmp_path / "run", terms={"ssim": 0.1}, **more)
    other = nn.Sequential(nn.Conv2d(3, 4, 3))
    changed_terms = {"perceptual": {**terms["perceptual"], "backbone": other}}
    with pytest.raises(InputError, match="with other networks in its terms"):
        finetune(tmp_path / "run", terms=changed_terms, **more)
    assert all(p.requires_grad for p in backbone.parameters())  # the user's own stays as it was


def test_a_validation_has_every_term_but_the_discriminators(tmp_path: Any) -> None:
    options = {"max_train_steps": 1, "learning_rate": 1e-12, "logging_steps": 1}
    plain = finetune(tmp_path / "plain", terms={"ssim": 0.5}, **options)
    both = {"ssim": 0.5, "adversarial": SMALL}
    judged = finetune(tmp_path / "judged", terms=both, **options)
    (first,), (second,) = (
        [r["validation_loss"] for r in one.history if "validation_loss" in r]
        for one in (plain, judged)
    )
    assert first == pytest.approx(second, rel=1e-5)
    record = plain.history[0]
    errors = record["reconstruction"] + record["equivariance/rot180"]
    assert first > errors + 0.4  # ssim of noise is about 1, of both decodes


def test_a_critic_forgets_what_it_has_judged() -> None:
    critic = Critic(Linear(1.0), "hinge", 0.0)
    critic.seen = [(noise(1, 3, 4, 4), noise(1, 3, 4, 4))]
    critic()
    assert critic.seen == []


def test_terms_on_the_command_line(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {}

    def stop(*arguments: Any, **options: Any) -> None:
        given.update(options)
        raise InputError("far enough")

    monkeypatch.setattr(equivae, "finetune", stop)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "images" / "a.png")

    def call(*terms: str) -> str:
        flags = [part for one in terms for part in ("--terms", one)]
        command = ["--pretrained_model_name_or_path", "embedded", "--train_data_dir"]
        arguments = ["equivae", "finetune", *command, str(tmp_path / "images"), *flags]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    call("kl=1e-6,ssim(weight=0.1)", "adversarial(weight=0.5,start_step=10)")
    assert equivae.FinetuneConfig(terms=given["terms"]).to_dict()["terms"] == {
        "kl": {"weight": 1e-6},
        "ssim": {"weight": 0.1},
        "adversarial": {"weight": 0.5, "start_step": 10},
    }
    given.clear()
    assert "unknown term 'klx'. Did you mean 'kl'?" in call("klx=1")
    assert "--terms has 'kl' twice" in call("kl=1", "kl=2")
    assert given == {}
