"""What happens around the steps of a run: averages, records, validation, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from equivae.errors import RunInterrupted
from equivae.processes import gathered, on_main_process
from equivae.training.checkpoints import remove_oldest, save_checkpoint
from equivae.training.guard import Names
from equivae.training.metering import Metering
from equivae.training.signals import StopRequest
from equivae.training.state import RunState
from equivae.training.trainer import Hook
from equivae.training.watch import Watch, check_weights

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers.training_utils import EMAModel

__all__ = ["Averaging", "Checkpointing", "Clock", "EarlyStopping", "Recording", "Validation"]


class Clock(Hook):
    """Counts the seconds of a run, those of its earlier parts with them."""

    def __init__(self, state: RunState) -> None:
        self._began = time.perf_counter() - state.seconds

    def on_step(self, state: RunState) -> None:
        state.seconds = time.perf_counter() - self._began

    def on_end(self, state: RunState) -> None:
        self.on_step(state)


class Averaging(Hook):
    """The exponential moving average of the weights."""

    def __init__(self, ema: EMAModel, parameters: Sequence[nn.Parameter]) -> None:
        self.ema, self.parameters = ema, parameters

    def on_step(self, state: RunState) -> None:
        self.ema.step(self.parameters)


class Recording(Hook):
    """Means of loss and terms, into the history, the trackers and the progress bar.

    Args:
        accelerator: has the trackers.
        every: steps between two records.
        due: says whether a step is recorded in any case, such as the one that is saved.
        learning_rate: the present one.
        output_dir: of the run, for the message when the loss is no number.
        bar: the progress bar.
        names: of the images of a step.
        meter: more numbers for the trackers alone.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        every: int,
        due: Callable[[RunState], bool],
        learning_rate: Callable[[], float],
        output_dir: Path,
        bar: Any,
        names: Names,
        meter: Metering,
    ) -> None:
        self.accelerator, self.every, self.due = accelerator, every, due
        self.learning_rate, self.output_dir, self.bar = learning_rate, output_dir, bar
        self.names, self.meter = names, meter
        skips = accelerator.scaler is not None
        self.watch = Watch(accelerator.device, names.of, skips=skips)

    def on_start(self, state: RunState) -> None:
        self.watch.go_on(state.pending, self.accelerator.process_index)
        state.pending = []

    def on_batch(self, loss: Tensor, terms: dict[str, Tensor], state: RunState) -> None:
        self.watch.see(loss, terms, state.step + 1)

    def on_gradient(self, norm: Tensor, state: RunState) -> None:
        self.watch.see_gradient(norm, state.step + 1)

    def on_step(self, state: RunState) -> None:
        self.bar.update()
        if not (self.due(state) or state.step % self.every == 0):
            return
        record = self.watch.record(self.output_dir)  # the one place that waits for the device
        record |= {"step": state.step, "epoch": state.epoch}
        record |= {"learning_rate": self.learning_rate()}
        state.history.append(record)
        self.names.forget()
        self.bar.set_postfix(loss=f"{record['loss']:.4f}", **_short(record))
        self.accelerator.log(record | self.meter.read(), step=state.step)

    def on_end(self, state: RunState) -> None:
        self.bar.close()


class Validation(Hook):
    """The objective on held-out images, under the weights that would be saved.

    Args:
        validate: measures it, and its terms.
        kept: the one of them that goes into the history, too.
        accelerator: has the trackers.
        every: steps between two validations; `None` validates after an epoch, unless so few steps came
            since the last time that validating would take much of the time.
        at_least: those steps.
        max_steps: of the run, which ends with a validation.
    """

    def __init__(
        self,
        validate: Callable[[], dict[str, float]],
        kept: str | None,
        accelerator: Accelerator,
        *,
        every: int | None,
        at_least: int,
        max_steps: int,
    ) -> None:
        self.validate, self.kept, self.accelerator = validate, kept, accelerator
        self.every, self.at_least, self.max_steps = every, at_least, max_steps

    def on_step(self, state: RunState) -> None:
        if self.every and state.step % self.every == 0 and state.step < self.max_steps:
            self._record(state)

    def on_epoch(self, state: RunState) -> None:
        last = max((r["step"] for r in state.history if "validation_loss" in r), default=0)
        if not self.every and state.step - last >= self.at_least:
            self._record(state)

    def on_end(self, state: RunState) -> None:
        if not state.history or "validation_loss" not in state.history[-1]:
            self._record(state)

    def _record(self, state: RunState) -> None:
        record: dict[str, float] = {"step": state.step, "epoch": state.epoch}
        measured = self.validate()
        record |= {k: v for k, v in measured.items() if k in ("validation_loss", self.kept)}
        state.history.append(record)
        self.accelerator.log(record | measured, step=state.step)


class EarlyStopping(Hook):
    """Ends the run after so many validations without a lower loss than the best before them."""

    def __init__(self, patience: int | None) -> None:
        self.patience = patience

    def stops(self, state: RunState) -> bool:
        if self.patience is None:
            return False
        losses = [r["validation_loss"] for r in state.history if "validation_loss" in r]
        return bool(losses) and (len(losses) - 1 - losses.index(min(losses)) >= self.patience)


class Checkpointing(Hook):
    """Saves the run every so many steps and minutes, after the last step, and when it is asked to end.

    Args:
        accelerator: saves what was prepared.
        parameters: the weights that learn, which must be finite to be saved.
        ema: their average.
        output_dir: where `checkpoint-<step>` is written.
        stop: whether a signal or the time limit asked the run to stop.
        images: what the images are, to find them again.
        check_folder: raises `WriteError` where the folder is the run's no more.
        every: steps between two checkpoints.
        minutes: at most between two checkpoints; `None` or 0 for no such limit.
        max_steps: of the run.
        limit: how many checkpoints are kept at most.
        agree_every: steps between two looks at clock and signals where several processes have to agree.
        stops: says whether the run ends here.
        place: where this process stands in a stream, in JSON types.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        parameters: Sequence[nn.Parameter],
        ema: EMAModel | None,
        output_dir: Path,
        stop: StopRequest,
        images: Mapping[str, Any],
        check_folder: Callable[[], None],
        *,
        every: int,
        minutes: float | None,
        max_steps: int,
        limit: int | None,
        agree_every: int,
        stops: Callable[[RunState], bool],
        place: Callable[[], Any] | None = None,
    ) -> None:
        self.place = place
        self.accelerator, self.parameters, self.ema = accelerator, parameters, ema
        self.output_dir, self.stop, self.images = output_dir, stop, images
        self.check_folder = check_folder
        self.every, self.minutes, self.max_steps = every, minutes, max_steps
        self.limit, self.agree_every, self.stops_here = limit, agree_every, stops
        self.recording: Recording | None = None
        self._saved = time.monotonic()

    def due(self, state: RunState) -> bool:
        """Whether this step is saved whatever clock and signals say."""
        return state.step == self.max_steps or state.step % self.every == 0

    def on_start(self, state: RunState) -> None:
        if (
            self.accelerator.is_main_process and state.step
        ):  # a run that was killed before it did so
            remove_oldest(self.output_dir, state.step, self.limit)
        if self._is_last(state):  # the report is all that is missing
            path = self.output_dir / f"checkpoint-{state.step}"
            self.stop.training_is_over(path if path.is_dir() else None)
        else:
            self.stop.can_save = True

    def on_step(self, state: RunState) -> None:
        asked, late = self._asked(state)
        if not (asked or late or self.due(state) or self.stops_here(state)):
            return
        path = self._save(state)
        if asked and self._is_last(state):  # maybe on another process
            raise self.stop.error(asked)
        if asked:
            raise RunInterrupted(
                f"the run was {self.stop.words(asked)} and is saved in {path}; go on with "
                "resume_from_checkpoint='latest'.",
                asked,
                path,
            )

    def on_epoch(self, state: RunState) -> None:
        if self.stops_here(state):  # by the validation that ended this pass
            self._save(state)

    def _save(self, state: RunState) -> Path:
        check_weights(self.parameters, state.step, self.output_dir)
        if self.recording is not None:
            state.pending = self.recording.watch.pending(self.output_dir)
        if self.place is not None:
            state.places = gathered(self.place())
        on_main_process(self.check_folder)
        path = save_checkpoint(
            self.accelerator, self.output_dir, state, self.ema, self.images, limit=self.limit
        )
        state.pending = []
        self._saved = time.monotonic()
        if self._is_last(state):
            self.stop.training_is_over(path)
        return path

    def _is_last(self, state: RunState) -> bool:
        return state.step >= self.max_steps or self.stops_here(state)

    def on_end(self, state: RunState) -> None:
        self.stop.can_save = False
        self.stop.check()

    def _asked(self, state: RunState) -> tuple[int, bool]:
        """The signal that asked for an end, or stands for the time limit, else 0; whether a save is due."""
        several = self.accelerator.num_processes > 1
        if several and state.step % self.agree_every and not self._is_last(state):
            return 0, False
        age = time.monotonic() - self._saved
        late = bool(self.minutes) and age > 60 * (self.minutes or 0)
        asked = self.stop.asked
        if several:
            told = gathered((asked, late))
            asked, late = max(one for one, _ in told), any(one for _, one in told)
        return asked, late


def _short(record: dict[str, float]) -> dict[str, str]:
    """The terms for the progress bar: `rec` and `eq`."""
    shown = {}
    if "reconstruction" in record:
        shown["rec"] = f"{record['reconstruction']:.4f}"
    values = [value for name, value in record.items() if name.startswith("equivariance/")]
    if values:
        shown["eq"] = f"{sum(values) / len(values):.4f}"
    return shown
