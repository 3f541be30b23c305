"""What a run takes hold of while it lasts, and gives back as it found it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    set_seed,
)
from filelock import FileLock, Timeout

from equivae.errors import InputError, WriteError
from equivae.files.hub import HubRepo, open_repo
from equivae.files.writing import claim_folder, clear_leftovers
from equivae.processes import on_main_process, process_state
from equivae.training.config import FinetuneConfig
from equivae.training.options.run import trackers_of
from equivae.training.plan import OURS, WORK_DIR, Plan
from equivae.training.signals import StopRequest, stop_on_signals
from equivae.training.tracking import start_trackers

__all__ = ["Session"]


class Session:
    """A context that owns the accelerator, the random state, signals, the folder's lock and the trackers.

    Outside of it everything is as it was: a user's own Accelerator with its precision and accumulation, the
    random state of Python, numpy and torch, the process group, the handlers of signals.

    Attributes:
        accelerator: of this run alone.
        stop: whether a signal asked the run to stop.
        work_dir: a hidden folder inside the output folder, for the lock and for cached latents.
        repo: where the result is uploaded to, on the main process, or `None`.

    ```python
    from equivae.training.plan import make_plan
    from equivae.training.session import Session

    plan = make_plan(
        equivae.zoo.load(),
        equivae.data.dead_leaves(4, size=64),
        "rot180",
        "out",
        recipe=None,
        validation_images=None,
        options={"max_train_steps": 1},
        progress=False,
    )
    with Session(plan) as session:
        print(session.accelerator.device)
    ```
    """

    accelerator: Accelerator
    stop: StopRequest
    repo: HubRepo | None = None

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.work_dir = plan.output_dir / WORK_DIR
        self._stack = ExitStack()
        self._lock_file: tuple[int, int] | None = None  # of the main process

    def __enter__(self) -> Session:
        plan, config = self.plan, self.plan.config
        with ExitStack() as stack:
            process_state().wait_for_everyone()  # nobody plans any more when the first one writes
            lock = on_main_process(self._take_folder)
            if lock is not None:
                stack.callback(self._give_folder_back, lock)
            if config.push_to_hub:
                self.repo = on_main_process(self._open_repo)
            self.stop = stack.enter_context(stop_on_signals(config.max_train_minutes))
            stack.enter_context(_kept_random_state())
            stack.enter_context(_kept_accelerator())
            self.accelerator = _accelerator(config, plan)
            stack.callback(self._finish_trackers)
            set_seed(config.seed)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _take_folder(self) -> FileLock:
        plan = self.plan
        if plan.starts_in_folder:
            claim_folder(plan.output_dir, ours=OURS)
        self.work_dir.mkdir(exist_ok=True)
        lock = FileLock(self.work_dir / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"another run is writing to {plan.output_dir}; wait until it ends or choose another output "
                "folder."
            ) from error
        self._lock_file = _identity(self.work_dir / "lock")
        for folder in (".", *OURS):
            clear_leftovers(plan.output_dir / folder)
        return lock

    def check_folder(self) -> None:
        """`WriteError` where the output folder is no longer the one that was taken."""
        if self._lock_file is not None and _identity(self.work_dir / "lock") != self._lock_file:
            raise WriteError(
                f"{self.plan.output_dir} was removed or replaced while the run was writing to it; nothing "
                "more is written there. Start again in a new folder."
            )

    def _give_folder_back(self, lock: FileLock) -> None:
        if _identity(self.work_dir / "lock") == self._lock_file:
            _release(lock, self.work_dir)
        else:  # what is there now is another run's
            lock.release()

    def _open_repo(self) -> HubRepo:
        plan, config = self.plan, self.plan.config
        name = config.hub_model_id or plan.output_dir.resolve().name
        return open_repo(name, token=config.hub_token, private=config.hub_private)

    def _finish_trackers(self) -> None:
        for tracker in self.accelerator.trackers:
            tracker.finish()


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another of the same name."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _release(lock: FileLock, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # before others can have the lock, and write here
    lock.release()


@contextmanager
def _kept_random_state() -> Iterator[None]:
    """The random states of Python, numpy and torch, on every device in use, are put back."""
    python, old, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(old)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def _kept_accelerator() -> Iterator[None]:
    """An Accelerator of the caller keeps its state, which accelerate shares by class."""
    kept: list[tuple[Any, dict[str, Any]]] = [
        (cls, dict(cls._shared_state)) for cls in (AcceleratorState, GradientState)
    ]
    for cls, _ in kept:
        cls._shared_state.clear()
    try:
        yield
    finally:
        for cls, state in kept:
            cls._shared_state.clear()
            cls._shared_state.update(state)


def _accelerator(config: FinetuneConfig, plan: Plan) -> Accelerator:
    try:
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            # The loop accumulates by itself; with a plugin accelerate reads no count from the environment.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            log_with=trackers_of(config.report_to) or None,
            project_dir=str(plan.output_dir / "logs"),
            step_scheduler_with_optimizer=False,
            dataloader_config=DataLoaderConfiguration(
                use_seedable_sampler=False, non_blocking=True
            ),
            # A step that draws another transform leaves an operator without a gradient.
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=config.train_operator)
            ],
        )
        if config.report_to:
            here = plan.resumed is not None and not plan.starts_in_folder
            ids = plan.resumed.trackers if here and plan.resumed is not None else {}
            start_trackers(accelerator, config, ids)
    except (ValueError, ImportError) as error:
        raise InputError(str(error)) from error
    return accelerator
