"""What a run takes hold of, it gives back: Accelerator, random state, signals, folder, modes, dtypes."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from filelock import FileLock
from torch import nn

import equivae
from equivae import InputError, Report, RunInterrupted
from equivae.training import outcome, session
from equivae.training.checkpoints import list_checkpoints
from models import ConvAE, tiny_kl
from test_finetune import IMAGES, changed, finetune, weights


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Report, "figures", lambda self: {})


# What the caller had ------------------------------------------------------------------------------


def test_an_accelerator_of_the_caller_stays_as_it_is(tmp_path: Path) -> None:
    own = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=7)
    try:
        finetune(tmp_path, ConvAE(), gradient_accumulation_steps=2)
        assert own.mixed_precision == "bf16"
        assert own.gradient_accumulation_steps == 7
        assert Accelerator(mixed_precision="bf16").state.mixed_precision == "bf16"
    finally:
        own.state._reset_state()
        own.gradient_state._reset_state()


def test_random_states_stay_as_they_are(tmp_path: Path) -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    draw = np.random.rand
    expected = random.random(), draw(), float(torch.rand(()))
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    finetune(tmp_path, ConvAE(), seed=1)
    assert (random.random(), draw(), float(torch.rand(()))) == expected


def test_accumulation_is_not_read_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = finetune(tmp_path / "plain", ConvAE(), max_train_steps=None, num_train_epochs=1)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    same = finetune(tmp_path / "same", ConvAE(), max_train_steps=None, num_train_epochs=1)
    assert same.report.settings["max_train_steps"] == plain.report.settings["max_train_steps"]
    assert changed(weights(plain.vae), weights(same.vae)) == set()


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_what_splits_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(InputError, match=r"splits weights over processes, .* accelerate launch"):
        finetune(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_tensor_keeps_its_dtype(tmp_path: Path) -> None:
    vae = tiny_kl()
    vae.encoder.bfloat16()
    vae.quant_conv.bfloat16()
    vae.register_buffer("scale", torch.ones(2, dtype=torch.float64))

    def cast(module: Any, images: torch.Tensor, sample: bool, generator: Any) -> torch.Tensor:
        weight = module.encoder.conv_in.weight
        return module.encode(images.to(weight.dtype)).latent_dist.mode()

    def decode(module: Any, latents: torch.Tensor) -> torch.Tensor:
        weight = module.decoder.conv_in.weight
        return module.decode(latents.to(weight.dtype)).sample

    equivae.register_adapter(lambda module: hasattr(module, "scale"), cast, decode)
    result = finetune(tmp_path, vae)
    found = {name: tensor.dtype for name, tensor in result.vae.state_dict().items()}
    assert found == {name: tensor.dtype for name, tensor in vae.state_dict().items()}
    assert set(found.values()) == {torch.bfloat16, torch.float32, torch.float64}


def test_before_and_after_are_measured_in_the_dtype_that_is_saved(tmp_path: Path) -> None:
    vae = tiny_kl().bfloat16()
    result = finetune(tmp_path, vae, learning_rate=1e-12, bottleneck_steps=0)
    assert result.report.before == result.report.metrics or (
        result.report.before.reconstruction_mse == result.report.metrics.reconstruction_mse
    )


def test_gradient_checkpointing_does_not_stay_on(tmp_path: Path) -> None:
    result = finetune(tmp_path, gradient_checkpointing=True)
    assert not result.vae.is_gradient_checkpointing


class Weighted(nn.Module):
    """A reconstruction loss with a weight, which counts its copies."""

    copies = 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.weight * (decoded - target).square().mean()

    def __deepcopy__(self, memo: Any) -> Weighted:
        type(self).copies += 1
        made = Weighted()
        made.load_state_dict(self.state_dict())
        return made


def test_a_loss_module_is_copied_once_and_keeps_no_gradient(tmp_path: Path) -> None:
    loss = Weighted()
    finetune(tmp_path, ConvAE(), reconstruction=loss)
    assert Weighted.copies == 1
    assert loss.weight.grad is None
    assert loss.weight.requires_grad


# The folder ---------------------------------------------------------------------------------------


def test_latents_of_the_users_own_are_not_written_over(tmp_path: Path) -> None:
    np.save(tmp_path / "latents.npy", np.ones(3))
    with pytest.raises(InputError, match=r"holds files already \(latents\.npy\)"):
        finetune(tmp_path, train="decoder", latent_cache_mb=0)
    assert np.load(tmp_path / "latents.npy").tolist() == [1, 1, 1]


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".equivae").mkdir()
    with (
        FileLock(tmp_path / ".equivae" / "lock"),
        pytest.raises(InputError, match="another run is writing to"),
    ):
        finetune(tmp_path, ConvAE())
    finetune(tmp_path, ConvAE())
    assert not (tmp_path / ".equivae").exists()


# Signals ------------------------------------------------------------------------------------------


class Sending:
    """A reconstruction loss that sends the process a signal at its first training step, or its second."""

    __name__ = "mse"

    def __init__(self, number: int, at: int = 1) -> None:
        self.number, self.left = number, 1 + 2 * (at - 1)  # a step has an image and a transform

    def __call__(self, decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.left -= decoded.requires_grad
        if decoded.requires_grad and not self.left:
            os.kill(os.getpid(), self.number)
        return nn.functional.mse_loss(decoded.float(), target.float())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_run_which_goes_on_to_the_same_end(tmp_path: Path, number: int) -> None:
    options = {"max_train_steps": 5, "logging_steps": 2}
    whole = finetune(tmp_path / "whole", ConvAE(), **options)
    before = signal.getsignal(number)
    with pytest.raises(RunInterrupted, match=r"is saved in .*checkpoint-1") as caught:
        finetune(tmp_path / "cut", ConvAE(), reconstruction=Sending(number), **options)
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert [p.name for p in list_checkpoints(tmp_path / "cut")] == ["checkpoint-1"]
    resumed = finetune(tmp_path / "cut", ConvAE(), resume_from_checkpoint="latest", **options)
    assert changed(weights(whole.vae), weights(resumed.vae)) == set()
    assert resumed.history == whole.history  # the sums between two records are saved too


def test_a_time_limit_saves_the_run_which_goes_on_to_the_same_end(tmp_path: Path) -> None:
    options = {"max_train_steps": 3, "logging_steps": 2}
    whole = finetune(tmp_path / "whole", ConvAE(), max_train_minutes=60, **options)
    with pytest.raises(RunInterrupted, match=r"time limit .* is saved in .*checkpoint-1") as caught:
        finetune(tmp_path / "cut", ConvAE(), max_train_minutes=1e-6, **options)
    assert caught.value.exit_code == 142
    resumed = finetune(tmp_path / "cut", ConvAE(), resume_from_checkpoint="latest", **options)
    assert changed(weights(whole.vae), weights(resumed.vae)) == set()
    assert resumed.history == whole.history
    with pytest.raises(InputError, match="max_train_minutes"):
        finetune(tmp_path / "none", ConvAE(), max_train_minutes=0, **options)


def test_a_signal_before_the_first_step_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("equivae.training.student.measure", measure)
    with pytest.raises(RunInterrupted, match="saved nothing more"):
        finetune(tmp_path, ConvAE())


class Signalling:
    """Sends the process a signal while Python clears it away, and drops what is raised meanwhile."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # where the handler runs


@pytest.mark.parametrize("phase", ["student.measure", "outcome.measure"])
def test_a_signal_that_python_drops_ends_the_run_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    waited = []

    def measure(*_: Any, **__: Any) -> None:
        Signalling()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            time.sleep(0.01)
        waited.append(phase)

    monkeypatch.setattr(f"equivae.training.{phase}", measure)
    expected = "saved nothing more" if phase.startswith("student") else r"is complete in .*point-2;"
    with pytest.raises(RunInterrupted, match=expected) as caught:
        finetune(tmp_path, ConvAE(), max_train_steps=2)
    assert caught.value.exit_code == 143
    assert not waited


def test_a_signal_that_is_swallowed_ends_the_run_at_the_next_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = outcome.measure

    def measure(*arguments: Any, **options: Any) -> Any:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        return usual(*arguments, **options)

    monkeypatch.setattr(outcome, "measure", measure)
    with pytest.raises(RunInterrupted, match=r"'latest' writes the report"):
        finetune(tmp_path, ConvAE(), max_train_steps=2)
    assert not (tmp_path / "report.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr(Report, "figures", lambda self: {})
    finetune(tmp_path, ConvAE(), max_train_steps=2, resume_from_checkpoint="latest")
    assert (tmp_path / "report.json").is_file()


@pytest.mark.parametrize("step", [1, 2])
def test_a_signal_in_the_last_step_ends_the_run_with_its_checkpoint(
    tmp_path: Path, step: int
) -> None:
    with pytest.raises(RunInterrupted, match=f"checkpoint-{step}") as caught:
        finetune(
            tmp_path,
            ConvAE(),
            reconstruction=Sending(15, at=step),
            max_train_steps=2,
            bottleneck_steps=0,
        )
    assert ("Training is complete" in str(caught.value)) == (step == 2)
    assert caught.value.checkpoint == tmp_path / f"checkpoint-{step}"


def test_a_run_in_a_thread_leaves_signals_alone(tmp_path: Path) -> None:
    done = []
    thread = threading.Thread(target=lambda: done.append(finetune(tmp_path, ConvAE())))
    thread.start()
    thread.join()
    assert len(done) == 1


def test_minutes_between_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def later() -> float:
        now[0] += 40.0
        return now[0]

    monkeypatch.setattr("equivae.training.hooks.time.monotonic", later)
    options = {"max_train_steps": 6, "checkpoints_total_limit": None}
    timed = finetune(tmp_path / "timed", ConvAE(), checkpointing_minutes=1.0, **options)
    steps = [p.name for p in list_checkpoints(tmp_path / "timed")]
    assert len(steps) > 1
    plain = finetune(tmp_path / "plain", ConvAE(), checkpointing_minutes=None, **options)
    assert [p.name for p in list_checkpoints(tmp_path / "plain")] == ["checkpoint-6"]
    assert timed.history == plain.history


# What is frozen rests -----------------------------------------------------------------------------


class Normalised(ConvAE):
    """An encoder with batch norm and dropout, whose statistics move in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(self.encoder, nn.BatchNorm2d(4), nn.Dropout(0.5))


def test_a_frozen_encoder_rests(tmp_path: Path) -> None:
    vae = Normalised().train()
    before = weights(vae)
    result = finetune(tmp_path, vae, train="decoder", crop_size=8)
    moved = changed(before, result.vae.state_dict())
    assert moved
    assert not [name for name in moved if name.startswith("encoder")]
    assert changed(before, vae.state_dict()) == set()


def test_a_half_that_no_gradient_reaches_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Detached(ConvAE):
        def encode(self, images: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return super().encode(images)

    finetune(tmp_path, Detached())
    assert "no gradient reaches a weight of the encoder of Detached" in caplog.text


def test_latents_are_cached_in_evaluation_mode() -> None:
    from equivae.autoencoder import Autoencoder
    from equivae.training.latents import cache_latents

    vae = Normalised().train()
    images = equivae.data.load_images(IMAGES)
    found = cache_latents(Autoencoder(vae), images, Path(), progress=False)
    assert vae.training
    with torch.no_grad():
        assert np.allclose(found, vae.eval().encode(IMAGES).numpy(), atol=1e-6)


# What is asked for and not ------------------------------------------------------------------------


def test_without_transforms_no_stage_is_run_for_them(tmp_path: Path) -> None:
    result = finetune(tmp_path, transforms=[])
    assert result.report.settings["bottleneck_steps"] == 0


def test_warm_up_steps_are_those_asked_for(tmp_path: Path) -> None:
    asked = finetune(
        tmp_path / "a", ConvAE(), lr_warmup_steps=3, lr_scheduler="constant_with_warmup",
        logging_steps=1, max_train_steps=4,
    )  # fmt: skip
    rates = [record["learning_rate"] for record in asked.history if "loss" in record]
    assert rates == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3])
    with pytest.raises(InputError, match="lr_warmup_steps=9 is more than the 4 steps"):
        finetune(tmp_path / "b", ConvAE(), lr_warmup_steps=9, max_train_steps=4)
    assert not (tmp_path / "b").exists()


def test_short_epochs_are_not_all_validated(tmp_path: Path) -> None:
    options = {"max_train_steps": None, "num_train_epochs": 8, "validation_split": 0.75}
    result = finetune(tmp_path, ConvAE(), **options)
    # Two images to learn from, six to validate on under the identity and one transform.
    steps = [record["step"] for record in result.history if "validation_loss" in record]
    assert steps == [6, 8]


def test_a_run_stops_early_and_is_whole(tmp_path: Path) -> None:
    options = {"max_train_steps": 40, "validation_steps": 2, "learning_rate": 0.5}
    options |= {"early_stopping_patience": 2, "lr_scheduler": "constant", "schedule": "dual"}
    result = finetune(tmp_path, ConvAE(), **options)
    losses = [r["validation_loss"] for r in result.history if "validation_loss" in r]
    best = losses.index(min(losses))
    last = result.history[-1]["step"]
    assert last < 40
    assert len(losses) - 1 - best == 2
    assert list_checkpoints(tmp_path)[-1].name == f"checkpoint-{last}"
    again = finetune(tmp_path, ConvAE(), resume_from_checkpoint="latest", **options)
    assert changed(weights(result.vae), weights(again.vae)) == set()
    longer = {**options, "early_stopping_patience": None, "resume_from_checkpoint": "latest"}
    whole = finetune(tmp_path, ConvAE(), **longer)
    assert whole.history[-1]["step"] == 40


def test_trackers_get_pictures_after_every_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, dict[str, np.ndarray]]] = []

    class Tracker:
        name = "stub"

        def log_images(self, values: dict[str, np.ndarray], step: int) -> None:
            shown.append((step, values))

        def log(self, *_: Any, **__: Any) -> None: ...
        def finish(self) -> None: ...

    def accelerator(*given: Any) -> Accelerator:
        made = real(*given)
        made.trackers = [Tracker()]
        return made

    real = session._accelerator
    monkeypatch.setattr(session, "_accelerator", accelerator)
    plain = finetune(tmp_path / "out", transforms=["rot180", "hflip"], validation_steps=2)
    assert [step for step, _ in shown] == [2, 3]
    (name, row), _, (latents, coloured), _ = shown[0][1].items()
    assert name.startswith("rot180/")
    assert (row.shape, row.dtype) == ((1, 16, 64, 3), np.uint8)
    assert latents == f"latents/{name}"
    assert (coloured.shape, coloured.dtype) == ((1, 16, 48, 3), np.uint8)
    own, moved = coloured[0, ::2, :16:2], coloured[0, ::2, 16:32:2]  # a cell is two pixels wide
    assert (own[::-1, ::-1] == moved).all()
    assert own.std() > 10
    assert not (shown[0][1][name] == shown[1][1][name]).all()  # the run went on in between
    monkeypatch.setattr(session, "_accelerator", real)
    same = finetune(tmp_path / "same", transforms=["rot180", "hflip"], validation_steps=2)
    assert changed(weights(plain.vae), weights(same.vae)) == set()  # looking changes nothing


def test_validation_looks_at_the_averaged_weights(tmp_path: Path) -> None:
    options = {"learning_rate": 0.1, "use_ema": True, "ema_decay": 0.0, "schedule": "dual"}
    raw = finetune(tmp_path / "raw", ConvAE(), learning_rate=0.1, schedule="dual")
    same = finetune(tmp_path / "ema", ConvAE(), **options)
    assert same.history[-1]["validation_loss"] == pytest.approx(
        raw.history[-1]["validation_loss"], rel=1e-5
    )
    slow = finetune(tmp_path / "slow", ConvAE(), **{**options, "ema_decay": 0.9})
    start = slow.report.before.reconstruction_mse
    assert start != slow.history[-1]["validation_loss"] != raw.history[-1]["validation_loss"]


@pytest.mark.usefixtures("caplog")
def test_accumulation_over_a_short_end_counts_in_full(tmp_path: Path) -> None:
    """Seven images in steps of two batches of two: the last step has two batches of two and one."""
    options = {"schedule": "dual", "learning_rate": 1e-2, "max_grad_norm": 0.0, "seed": 3}
    options |= {"validation_split": 0.0, "max_train_steps": 2, "lr_scheduler": "constant"}
    images = IMAGES[:6]
    one = finetune(tmp_path / "a", ConvAE(), images, train_batch_size=4, **options).vae
    two = finetune(
        tmp_path / "b",
        ConvAE(),
        images,
        train_batch_size=2,
        gradient_accumulation_steps=2,
        **options,
    ).vae
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_interrupted_bottleneck_leaves_the_weights_as_they_were() -> None:
    from equivae.training import BottleneckOptions, train_bottleneck

    vae = tiny_kl()
    before = weights(vae)
    calls = []

    class Interrupting(equivae.Transform):
        name = "interrupting"

        def pixel(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def latent(self, z: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                calls.append(1)
                if len(calls) > 2:
                    raise KeyboardInterrupt
            return z

    options = BottleneckOptions(steps=9, progress=False)
    with pytest.raises(KeyboardInterrupt):
        train_bottleneck(vae, Interrupting(), IMAGES, options)
    assert changed(before, vae.state_dict()) == set()


def test_the_encoder_side_does_not_shrink_the_latents(tmp_path: Path) -> None:
    vae = tiny_kl()
    options = {"encoder_weight": 0.5, "max_train_steps": 40, "learning_rate": 3e-3, "seed": 1}
    result = finetune(tmp_path, vae, bottleneck_steps=0, weight=0.0, **options)
    with torch.no_grad():
        before = equivae.Autoencoder(vae).encode(IMAGES).std()
        after = equivae.Autoencoder(result.vae).encode(IMAGES).std()
    assert float(after / before) > 0.97
    error = result.report.metrics.transforms["rot180"].encoder_relative_error
    assert error < 0.9 * result.report.before.transforms["rot180"].encoder_relative_error


@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
def test_the_encoder_sides_gradient_has_no_part_along_the_scale(scale: float) -> None:
    class Scaled(ConvAE):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(scale))

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return self.scale * self.encoder(images)

    vae = Scaled()
    loss_fn = equivae.EquivarianceLoss("hflip", weight=0.0, encoder_weight=1.0)
    loss_fn.with_encoder_reference(1.0)
    terms = loss_fn.decode(vae, IMAGES[:2])
    (one,) = loss_fn._encoder_term(terms)
    one.value.backward()
    value = float(one.value.detach())
    assert value > 0
    assert abs(float(vae.scale.grad)) < 1e-5 * value / scale
    assert float(vae.encoder.weight.grad.abs().max()) > 1e-4 * value


def test_the_encoder_side_compares_modes() -> None:
    vae = tiny_kl()
    drawn = equivae.EquivarianceLoss("hflip", encoder_weight=1.0, sample_posterior=True)
    plain = equivae.EquivarianceLoss("hflip", encoder_weight=1.0)
    a = drawn(vae, IMAGES[:2]).terms["encoder/hflip"]
    assert a == plain(vae, IMAGES[:2]).terms["encoder/hflip"]


def test_what_has_no_weight_is_not_decoded() -> None:
    decoded = []

    class Watched(ConvAE):
        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            decoded.append(len(latents))
            return super().decode(latents)

    for schedule in ("dual", "sampled"):
        equivae.EquivarianceLoss(["hflip", "vflip"], weight=0.0, schedule=schedule)(
            Watched(), IMAGES[:4]
        )
        equivae.EquivarianceLoss("hflip", reconstruction_weight=0.0, schedule=schedule)(
            Watched(), IMAGES[:4]
        )
    assert decoded == [4, 4, 4, 4]


def test_chunks_hold_one_chunks_activations() -> None:
    held = {}
    for size in (None, 1):
        saved: list[int] = []

        def pack(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(tensor.numel())
            return tensor

        loss_fn = equivae.EquivarianceLoss([], chunk_size=size)
        vae = tiny_kl()
        latents = equivae.Autoencoder(vae).encode(IMAGES[:4]).detach()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss_fn(vae, IMAGES[:4], latents=latents)
        held[size] = sum(saved)
    assert held[1] < 0.2 * held[None]


def test_what_surrounds_the_call_changes_nothing(tmp_path: Path) -> None:
    plain = finetune(tmp_path / "plain", ConvAE(), mixed_precision="bf16")
    for name, context in (
        ("no_grad", torch.no_grad()),
        ("inference", torch.inference_mode()),
        ("autocast", torch.autocast("cpu", torch.bfloat16)),
    ):
        vae = ConvAE()
        with context:
            result = finetune(tmp_path / name, vae, mixed_precision="bf16")
            assert torch.is_autocast_enabled("cpu") is (name == "autocast")
        assert changed(weights(plain.vae), weights(result.vae)) == set()
        assert result.report.metrics == plain.report.metrics


def test_logging_is_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="equivae"):
        finetune(tmp_path, ConvAE())
    assert not [record for record in caplog.records if record.name.startswith("equivae")]


# Images -------------------------------------------------------------------------------------------


class Flipping(torch.utils.data.Dataset[torch.Tensor]):
    """Images that are flipped or not by the global generator, as augmentations are."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> torch.Tensor:
        return IMAGES[index].flip(-1) if torch.rand(()) < 0.5 else IMAGES[index]


@pytest.mark.parametrize("workers", [0, 2])
def test_augmented_images_are_resumed_exactly(tmp_path: Path, workers: int) -> None:
    options = {"max_train_steps": 6, "checkpointing_steps": 3, "checkpoints_total_limit": None}
    options |= {"train": "decoder", "learning_rate": 1e-2}
    whole = finetune(tmp_path / "run", ConvAE(), Flipping(), **options)
    (tmp_path / "run" / "checkpoint-6").rename(tmp_path / "gone")
    resumed = finetune(
        tmp_path / "run", ConvAE(), Flipping(), resume_from_checkpoint="latest",
        dataloader_num_workers=workers, **options,
    )  # fmt: skip
    assert changed(weights(whole.vae), weights(resumed.vae)) == set()
    other = finetune(tmp_path / "other", ConvAE(), Flipping(), seed=1, **options)
    assert changed(weights(whole.vae), weights(other.vae))


def test_images_of_different_sizes_are_refused_before_any_work(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for i, size in enumerate([(16, 16), (16, 16), (24, 16)]):
        Image.new("RGB", size, (i, 80, 20)).save(folder / f"{i}.png")
    with pytest.raises(InputError, match=r"different sizes, 0\.png 16x16 and 2\.png 16x24"):
        finetune(tmp_path / "out", ConvAE(), folder)
    assert not (tmp_path / "out").exists()


def test_a_picture_that_vanishes_is_replaced_and_the_run_goes_on(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(IMAGES):
        array = ((image + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(folder / f"{i}.png")
    options = {"max_train_steps": 8, "checkpointing_steps": 4, "checkpoints_total_limit": None}
    finetune(tmp_path / "out", ConvAE(), folder, **options)
    (tmp_path / "out" / "checkpoint-8").rename(tmp_path / "gone")
    (folder / "3.png").unlink()
    result = finetune(
        tmp_path / "out", ConvAE(), folder, resume_from_checkpoint="latest", **options
    )
    assert [name for name, _ in result.report.skipped] == ["3.png"]


def test_sigterm_on_the_command_line_saves_and_has_a_code_of_its_own(tmp_path: Path) -> None:
    import subprocess
    import sys
    import time

    from PIL import Image

    (tmp_path / "images").mkdir()
    for i, image in enumerate(equivae.data.dead_leaves(4, size=16)):
        array = ((image + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(tmp_path / "images" / f"{i}.png")
    tiny_kl().save_pretrained(tmp_path / "vae")
    command = [
        *(sys.executable, "-m", "equivae", "finetune", "--resolution", "16"),
        *("--pretrained_model_name_or_path", str(tmp_path / "vae"), "--bottleneck_steps", "0"),
        *("--train_data_dir", str(tmp_path / "images"), "--max_train_steps", "100000"),
        *("--checkpointing_steps", "5", "--output_dir", str(tmp_path / "out")),
    ]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(600):
            if list(tmp_path.glob("out/checkpoint-*")) or run.poll() is not None:
                break
            time.sleep(0.2)
        run.send_signal(signal.SIGTERM)
        _, errors = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode == 128 + signal.SIGTERM, errors[-2000:]
    assert "Traceback" not in errors
    saved = " ".join(errors.split())
    assert "is saved in" in saved
    assert list_checkpoints(tmp_path / "out")
    assert not (tmp_path / "out" / ".equivae").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "decoder", "encoder_weight": 0.1}, "encoder_weight has no effect"),
        ({"weight": 0.0, "reconstruction_weight": 0.0}, "nothing to learn"),
        ({"schedule": "sampled", "probability": 0.0}, "probability=0 never draws"),
        ({"schedule": "sampled", "probability": 1.0}, "probability=1 never draws"),
    ],
)
def test_options_that_leave_out_what_they_weigh_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        finetune(tmp_path / "out", ConvAE(), **options)
    assert not (tmp_path / "out").exists()


def test_a_lost_picture_is_replaced_with_its_latents_too(tmp_path: Path) -> None:
    from PIL import Image

    from equivae.training.latents import WithCached

    for i in range(3):
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(tmp_path / f"{i}.png")
    images = equivae.data.load_images(tmp_path)
    cached = WithCached(images, latents=np.arange(3, dtype=np.float32)[:, None])
    (tmp_path / "1.png").unlink()
    item = cached[1]
    assert item["images"].equal(images[2])
    assert item["latents"].tolist() == [2.0]


def test_a_held_out_share_of_random_images_is_the_same_every_time() -> None:
    images = equivae.data.load_images(Flipping())
    images.set_draws(3)
    some = images.subset(range(4))
    assert all(a.equal(b) for a, b in zip([*some], [*some], strict=True))


def test_other_latent_ops_and_another_padding_are_noticed(tmp_path: Path) -> None:
    vae = tiny_kl()
    ops = [
        equivae.fit_latent_op(vae, "rot90", images, 1, name="rot90_op", progress=False)
        for images in (IMAGES, IMAGES.flip(-2) * 0.5)
    ]
    options = {"train": "decoder", "recipe": "decoder", "resume_from_checkpoint": "latest"}
    finetune(tmp_path / "a", vae, transforms=ops[0], **options)
    with pytest.raises(InputError, match="with other latent ops"):
        finetune(tmp_path / "a", vae, transforms=ops[1], **options)
    equivae.set_padding_mode(vae, "reflect")
    with pytest.raises(InputError, match="of a VAE that pads otherwise"):
        finetune(tmp_path / "a", vae, transforms=ops[0], **options)
