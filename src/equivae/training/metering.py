"""What trackers are told of a run's speed and health, and a trace of a few steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from equivae.files.writing import make_folder, write_beside
from equivae.training.state import RunState
from equivae.training.trainer import Hook

__all__ = ["Metering", "Profiling"]


class Metering(Hook):
    """Images per second, peak memory, gradient norm and learning rates, for the trackers alone.

    The first two differ between two runs that are the same otherwise, so none of it is in the history.

    Args:
        processes: that take as many images as this one.
        device: of the run.
        learning_rates: the present ones, one for each group of weights.
    """

    def __init__(
        self,
        processes: int,
        device: torch.device,
        learning_rates: Callable[[], Sequence[float]],
    ) -> None:
        self.processes, self.device, self.learning_rates = processes, device, learning_rates
        self._since, self._images, self._before = time.perf_counter(), 0, 0
        self._norm: Tensor | None = None
        self._norms = 0

    def on_start(self, state: RunState) -> None:
        self._since, self._before = time.perf_counter(), state.samples

    def on_batch(self, loss: Tensor, terms: dict[str, Tensor], state: RunState) -> None:
        more = state.samples - self._before
        self._images += more if more > 0 else state.samples  # a new pass counts from 0
        self._before = state.samples

    def on_gradient(self, norm: Tensor, state: RunState) -> None:
        self._norm = norm if self._norm is None else self._norm + norm
        self._norms += 1

    def read(self) -> dict[str, float]:
        """The numbers since they were last read; waits for the device.

        Validation and checkpoints in between take their part of the seconds.
        """
        now = time.perf_counter()
        found = {"images_per_second": self._images * self.processes / (now - self._since)}
        found["peak_memory_mb"] = _peak_memory(self.device) / 2**20
        if self._norm is not None:
            found["gradient_norm"] = float(self._norm) / self._norms
        rates = list(self.learning_rates())
        found |= {f"learning_rate/{i}": rate for i, rate in enumerate(rates) if len(rates) > 1}
        self._since, self._images, self._norm, self._norms = now, 0, None, 0
        return found


def _peak_memory(device: torch.device) -> int:
    """In bytes: of the tensors on a GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else 1024 * most)


class Profiling(Hook):
    """A trace of the third to fifth step, which chrome://tracing, Perfetto and TensorBoard show.

    Used as a context, which ends the profiler whatever ends the run.

    Args:
        path: where it is written; `None` for none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._profiler: torch.profiler.profile | None = None

    def __enter__(self) -> Profiling:
        return self

    def __exit__(self, *_: object) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            profiler.stop()

    def on_start(self, state: RunState) -> None:
        if self.path is None:
            return
        self._profiler = torch.profiler.profile(
            schedule=torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1),
            on_trace_ready=self._write,
        )
        self._profiler.start()

    def on_step(self, state: RunState) -> None:
        if self._profiler is not None:
            self._profiler.step()

    def _write(self, profiler: torch.profiler.profile) -> None:
        if self.path is None or not self.path.parents[1].is_dir():  # removed underneath
            return
        make_folder(self.path.parent)
        write_beside(self.path, lambda path: profiler.export_chrome_trace(str(path)))
