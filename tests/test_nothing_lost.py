"""What a fault costs: power cuts, full disks, folders that go away, bad batches, runs that turn back."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equivae
from equivae import NonFiniteLossError, Report
from equivae.errors import WriteError
from equivae.training.checkpoints import list_checkpoints
from equivae.training.latents import cache_latents
from equivae.training.state import RunState
from equivae.training.trainer import Batch, Hook, LocalEngine, Player, Trainer
from forked import run_forked
from models import ConvAE
from test_finetune import IMAGES, changed, finetune, weights


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Report, "figures", lambda self: {})
    monkeypatch.setattr(Report, "to_html", lambda self: "page")


# The disk -----------------------------------------------------------------------------------------


def test_killed_runs_end_as_if_nobody_had_killed_them(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "kills.py"
    options = ("--kills", 2, "--recipes", "ema", "--folder", tmp_path)
    done = run_forked(script, *options)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "| ema |" in done.stdout


class Disk:
    """What is on the disk for sure, by the calls of a run: a power cut may lose the rest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: dict[Path, int] = {}
        self.renamed: list[str] = []
        self.removed: list[str] = []
        sync, replace, mkdir = os.fsync, os.replace, os.mkdir
        monkeypatch.setattr(os, "fsync", lambda d: (sync(d), self._sync(d))[0])
        monkeypatch.setattr(os, "replace", lambda a, b: (self._rename(a, b), replace(a, b))[1])
        monkeypatch.setattr(
            os, "mkdir", lambda p, *a, **k: (mkdir(p, *a, **k), self.waiting.add(Path(p)))[0]
        )
        self.waiting: set[Path] = set()  # names that are not on the disk yet

    def _sync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self.synced[path] = path.stat().st_mtime_ns
        if path.is_dir():
            self.waiting = {p for p in self.waiting if p.parent != path}

    def _rename(self, source: Any, target: Any) -> None:
        source, target = Path(source), Path(target)
        if target.name.startswith("."):  # out of the way, so that it can be removed
            assert not self.unsure()
            self.removed.append(source.name)
            return
        for path in [source, *source.rglob("*")]:
            assert self.synced.get(path) == path.stat().st_mtime_ns, (
                f"{path} may be empty as {target}"
            )
        self.waiting = {p for p in self.waiting if source not in (p, *p.parents)} | {target}
        self.renamed.append(target.name)

    def unsure(self) -> list[Path]:
        """Names that a power cut may lose, but for the folder of what lasts as long as the run."""
        return [p for p in self.waiting if ".equivae" not in p.parts and not p.name.startswith(".")]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_power_cut_finds_whole_files_under_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    out = tmp_path / "new" / "out"
    finetune(out, ConvAE(), checkpointing_steps=1, checkpoints_total_limit=1, use_ema=True)
    assert disk.removed == ["checkpoint-1", "checkpoint-2"]
    assert {"checkpoint-3", "model.safetensors", "report.json"} <= set(disk.renamed)
    assert not disk.unsure()


def test_a_folder_is_removed_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from equivae.files.writing import clear_leftovers, remove_folder

    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    for name in ("run.json", "model.safetensors"):
        (folder / name).write_text("whole")
    unlink = os.unlink

    def killed(path: Any, **options: Any) -> None:
        unlink(path, **options)
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", killed)
        with pytest.raises(Cut):
            remove_folder(folder)
    assert not folder.exists()
    assert list(tmp_path.iterdir())
    clear_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    whole = finetune(tmp_path / "whole", ConvAE(), checkpointing_steps=1)
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", cut / "checkpoint-2")
    for name in (".checkpoint-7.partial", ".files.partial", ".checkpoint-2.old", ".equivae"):
        (cut / name).mkdir()
        (cut / name / "half").write_text("half")
    (cut / ".report.partial.json").write_text("half")
    shutil.move(
        str(cut / "checkpoint-2"), cut / ".checkpoint-9.old"
    )  # in the instant of its renames
    shutil.copytree(cut / ".checkpoint-9.old", cut / "checkpoint-2")
    finetune(cut, ConvAE(), checkpointing_steps=1, resume_from_checkpoint="latest")
    names = {p.name for p in cut.iterdir()}
    assert names == {p.name for p in (tmp_path / "whole").iterdir()} | {"checkpoint-9"}
    assert whole.output_dir != cut


def test_a_run_killed_before_it_removed_the_oldest_checkpoint_does_so_later(tmp_path: Path) -> None:
    options = {"checkpointing_steps": 1, "resume_from_checkpoint": "latest"}
    finetune(tmp_path, ConvAE(), checkpoints_total_limit=None, **options)
    assert len(list_checkpoints(tmp_path)) == 3
    finetune(tmp_path, ConvAE(), checkpoints_total_limit=1, **options)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-3"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_latents_that_the_disk_has_no_room_for(tmp_path: Path) -> None:
    # The system's own limit on a file's size stands for a disk without room.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    vae, images = equivae.Autoencoder(ConvAE()), equivae.data.load_images(IMAGES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"cannot be kept in .*raise latent_cache_mb"):
            cache_latents(vae, images, tmp_path, limit_mb=0, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    found = cache_latents(vae, images, tmp_path, limit_mb=0, progress=False)
    file = tmp_path / "latents.npy"
    assert file.stat().st_blocks * 512 >= found.nbytes  # no hole that a full disk could not fill
    assert np.load(file).shape == found.shape


class Doing:
    """A reconstruction loss that does something at its n-th training call."""

    __name__ = "mse"

    def __init__(self, action: Any, at: int = 1) -> None:
        self.action, self.at, self.calls = action, at, 0

    def __call__(self, decoded: Tensor, target: Tensor) -> Tensor:
        loss = (decoded - target).square().mean()
        if decoded.requires_grad:
            self.calls += 1
            if self.calls == self.at:
                return self.action(loss)
        return loss


def test_a_folder_that_is_removed_underneath(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def remove(loss: Tensor) -> Tensor:
        shutil.rmtree(out)
        return loss

    with pytest.raises(WriteError, match=r"out was removed or replaced while the run"):
        finetune(out, ConvAE(), reconstruction=Doing(remove), checkpointing_steps=1)
    assert not out.exists()


def test_a_folder_that_another_run_took_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def replace(loss: Tensor) -> Tensor:
        out.rename(tmp_path / "moved")
        (out / ".equivae").mkdir(parents=True)
        (out / ".equivae" / "lock").write_text("another's")
        return loss

    with pytest.raises(WriteError, match="removed or replaced"):
        finetune(out, ConvAE(), reconstruction=Doing(replace))
    assert [p.name for p in out.rglob("*") if p.is_file()] == ["lock"]


# Turning back -------------------------------------------------------------------------------------


class Cut(Exception):
    """Someone pulled the plug."""


@pytest.mark.parametrize("calls", [1, 5], ids=["before its first checkpoint", "after it"])
def test_latest_is_of_the_run_that_turned_back(tmp_path: Path, calls: int) -> None:
    options = {"lr_scheduler": "constant", "checkpoints_total_limit": None, "train_batch_size": 2}
    options |= {"learning_rate": 1e-2, "checkpointing_steps": 2, "lr_warmup_steps": 0}
    finetune(tmp_path, ConvAE(), max_train_steps=8, **options)

    def pull(loss: Tensor) -> Tensor:
        raise Cut

    longer = {**options, "max_train_steps": 10, "early_stopping_patience": 99}
    with pytest.raises(Cut):
        finetune(
            tmp_path,
            ConvAE(),
            reconstruction=Doing(pull, calls),
            resume_from_checkpoint="checkpoint-4",
            **longer,
        )
    names = [p.name for p in list_checkpoints(tmp_path)]
    mine = ["checkpoint-4"] if calls == 1 else ["checkpoint-4", "checkpoint-6"]
    assert names[-len(mine) :] == mine
    assert sorted(names) == ["checkpoint-2", "checkpoint-4", "checkpoint-6", "checkpoint-8"]


# Numbers that are none ----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["the loss", "the gradient"])
def test_the_images_of_a_bad_step_are_named(tmp_path: Path, what: str) -> None:
    seen: list[Tensor] = []

    def spoil(loss: Tensor) -> Tensor:
        bad = (loss * 0).sqrt()  # 0, with an infinite slope
        return loss + bad if what == "the gradient" else loss * float("nan")

    class Watched(ConvAE):
        def encode(self, images: Tensor) -> Tensor:
            if self.training and images.requires_grad is False and torch.is_grad_enabled():
                seen.append(images)
            return super().encode(images)

    with pytest.raises(
        NonFiniteLossError, match=rf"{what} became NaN or infinite at step 2"
    ) as error:
        finetune(
            tmp_path, Watched(), probability=0.99, max_train_steps=6, logging_steps=4, bottleneck_steps=0,
            reconstruction=Doing(spoil, 2), checkpointing_steps=6, schedule="dual", weight=0.0,
        )  # fmt: skip
    told = str(error.value).split("Its images: ")[1].split(".")[0].split(", ")
    expected = [f"#{i}" for image in seen[1] for i in range(len(IMAGES)) if image.equal(IMAGES[i])]
    assert sorted(told) == sorted(expected)


class Counting(Hook):
    def __init__(self) -> None:
        self.steps, self.skips = 0, 0

    def on_step(self, state: RunState) -> None:
        self.steps += 1

    def on_skip(self, state: RunState) -> None:
        self.skips += 1


class Scaled(LocalEngine):
    """fp16's scaling, as accelerate has it around optimisers."""

    def __init__(self, scale: float = 2.0**120) -> None:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
        self.optimizers: list[Prepared] = []

    def prepare(self, optimizer: torch.optim.Optimizer) -> Prepared:
        self.optimizers.append(Prepared(optimizer, self.scaler))
        return self.optimizers[-1]

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def clip_grad_norm_(self, parameters: Any, max_norm: float) -> Any:
        for one in self.optimizers:
            self.scaler.unscale_(one.optimizer)
        return super().clip_grad_norm_(parameters, max_norm)


@dataclass
class Prepared:
    optimizer: torch.optim.Optimizer
    scaler: Any

    def step(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()


class Ten:
    def epoch(self, epoch: int, samples: int) -> Iterator[Batch]:
        return iter([Batch((), 1)] * 10)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_overflows_does_not_count(fused: bool) -> None:
    weight = nn.Parameter(torch.full((4,), 1e3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=fused)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    engine, counting, state = Scaled(), Counting(), RunState()
    prepared = engine.prepare(optimizer)
    player = Player(lambda: (weight.square().sum(), {}), [weight], prepared, scheduler)
    Trainer(engine, [player], max_grad_norm=1.0).fit(Ten(), state, 7, [counting])
    assert counting.skips > 0
    assert counting.steps == state.step == 7
    assert scheduler.last_epoch == 7
    assert weight.isfinite().all()


class Refusing(Hook):
    def refuses(self, state: RunState) -> bool:
        return state.step == 4 and not self.told

    told = False

    def on_skip(self, state: RunState) -> None:
        self.told = True


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_two_players_under_fp16_step_as_without_it(clip: float) -> None:
    """A VAE and its discriminator: each one's gradient has the scale taken out, once and the same."""

    def run(engine: Any) -> tuple[list[Tensor], RunState, list[int]]:
        both = [nn.Parameter(torch.full((4,), value)) for value in (1.0, 2.0)]
        players, counts = [], []
        for weight, loss in zip(both, (torch.square, torch.exp), strict=True):
            adam = torch.optim.AdamW([weight], lr=0.1)
            scheduler = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1.0)
            prepared = engine.prepare(adam) if isinstance(engine, Scaled) else adam
            lowered = partial(lambda w, f: (f(w).sum(), {}), weight, loss)
            late = len(players)  # the second begins with the third step
            plays = (lambda: state.step >= 2) if late else (lambda: True)
            players.append(Player(lowered, [weight], prepared, scheduler, plays=plays))
            counts.append(scheduler)
        state = RunState()
        Trainer(engine, players, max_grad_norm=clip).fit(Ten(), state, 7, [Refusing()])
        return both, state, [one.last_epoch for one in counts]

    plain, _, expected = run(LocalEngine())
    assert expected == [7, 5]
    for scale in (2.0**10, 2.0**126):  # the second overflows for a while
        scaled, state, found = run(Scaled(scale))
        assert found == expected or scale > 2.0**100
        assert state.step == 7
        if scale < 2.0**100:
            for one, other in zip(scaled, plain, strict=True):
                assert torch.allclose(one, other, rtol=1e-6)
        assert all(one.isfinite().all() for one in scaled)


def test_only_the_player_that_overflows_waits() -> None:
    engine, state = Scaled(1.0), RunState()
    calm, wild = (nn.Parameter(torch.ones(2)) for _ in range(2))
    players = []
    for weight, factor in ((calm, 1.0), (wild, float("inf"))):
        adam = torch.optim.AdamW([weight], lr=0.1)
        scheduler = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1.0)
        lowered = partial(lambda w, f: (w.sum() * f, {}), weight, factor)
        players.append(Player(lowered, [weight], engine.prepare(adam), scheduler))
    counting = Counting()
    Trainer(engine, players, max_grad_norm=1.0).fit(Ten(), state, 3, [counting])
    assert (counting.steps, counting.skips) == (3, 0)
    assert (calm < 1).all()
    assert wild.equal(torch.ones(2))
    assert engine.scaler.get_scale() < 1


def test_a_run_that_overflows_at_every_step_ends(tmp_path: Path) -> None:
    from equivae.training.guard import Guard

    guard, state = Guard(None, lambda step: ["a.png"], tmp_path), RunState(step=3)
    for _ in range(39):
        guard.on_skip(state)
    with pytest.raises(NonFiniteLossError, match=r"40 steps in a row.*at step 4.*a\.png"):
        guard.on_skip(state)


def test_a_spike_of_the_loss_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"max_train_steps": 6, "logging_steps": 1, "schedule": "dual", "weight": 0.0}
    calm = finetune(tmp_path / "calm", ConvAE(), loss_spike_factor=3.0, **options)
    plain = finetune(tmp_path / "plain", ConvAE(), **options)
    assert changed(weights(plain.vae), weights(calm.vae)) == set()
    assert not caplog.messages
    spiked = Doing(lambda loss: loss * 1e4, at=4)
    kept = finetune(
        tmp_path / "kept", ConvAE(), loss_spike_factor=3.0, reconstruction=spiked, **options
    )
    assert [r["step"] for r in kept.history if "loss" in r] == [1, 2, 3, 4, 5, 6]
    (message,) = caplog.messages
    assert message.startswith("step 4 is left out once: its loss of")
    assert spiked.calls == 7
