"""SIGINT, SIGTERM and a time limit: a run that is asked to stop saves what it has."""

from __future__ import annotations

import _thread
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from equivae.errors import RunInterrupted

__all__ = ["StopRequest", "stop_on_signals"]

_NAMES = {signal.SIGINT: "interrupted (SIGINT)", signal.SIGTERM: "asked to end (SIGTERM)"}
_AGAIN = 0.05  # seconds after which an end that was lost is asked for again
_TIME_IS_UP = 14  # the number of SIGALRM, which Windows does not name


class StopRequest:
    """Whether somebody asked the run to stop, or its time is up.

    Args:
        minutes: from now on until the time is up; `None` for no limit.

    Attributes:
        signal: the signal that did, or `None`.
        can_save: whether the loop is running, which looks at `signal` after every step; before and after it
            a signal ends the run at once, since there is nothing to save.
        trained: the checkpoint of the last step, once there is one: only the report is missing then.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.signal: int | None = None
        self.can_save = False
        self.trained: Path | None = None
        self._asking: threading.Timer | None = None
        self._ends = math.inf if minutes is None else time.monotonic() + 60 * minutes

    @property
    def asked(self) -> int:
        """The signal that asked for an end, SIGALRM's number when the time is up, else 0."""
        return self.signal or (_TIME_IS_UP if time.monotonic() >= self._ends else 0)

    def words(self, signum: int) -> str:
        if signum == _TIME_IS_UP:
            return "at its time limit (max_train_minutes)"
        return _NAMES[signal.Signals(signum)]

    def handle(self, signum: int, frame: FrameType | None) -> None:
        again = self.signal is not None
        self.signal = signum
        if self.can_save and not again:
            return
        raise self.error(signum)

    def training_is_over(self, checkpoint: Path | None) -> None:
        """From here on a signal ends the run at once; so does one that came and was not seen."""
        self.can_save, self.trained = False, checkpoint
        self.check()

    def check(self) -> None:
        """Raise `RunInterrupted` where a signal should have ended the run, and its exception was lost."""
        if self.signal is not None and not self.can_save:
            raise self.error(self.signal)

    def lost(self, error: BaseException | None) -> bool:
        """Ask again for an end whose exception Python dropped, as it does in a `__del__` or a callback."""
        if not isinstance(error, RunInterrupted):
            return False
        self._asking = threading.Timer(_AGAIN, _thread.interrupt_main, (error.signal,))
        self._asking.daemon = True
        self._asking.start()
        return True

    def rest(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()

    def error(self, signum: int) -> RunInterrupted:
        """What ends a run at once."""
        what = f"the run was {self.words(signum)}"
        if self.trained is None:
            text = f"{what} and saved nothing more than the checkpoints that are there."
        else:
            text = (
                f"{what}. Training is complete in {self.trained}; resume_from_checkpoint='latest' writes the "
                "report."
            )
        return RunInterrupted(text, signum, self.trained)


@contextmanager
def stop_on_signals(minutes: float | None = None) -> Iterator[StopRequest]:
    """Within it signals become a request; then the former handlers are back. Second thoughts end at once.

    The request is made after so many minutes, too. Where Python drops the exception of a signal, it is raised
    again.
    """
    request = StopRequest(minutes)
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python lets no other thread have handlers
        return
    former = {number: signal.signal(number, request.handle) for number in _NAMES}
    usual = sys.unraisablehook

    def unraisable(dropped: Any) -> None:
        if not request.lost(dropped.exc_value):
            usual(dropped)

    sys.unraisablehook = unraisable
    try:
        yield request
        request.check()
    finally:
        request.rest()
        sys.unraisablehook = usual
        for number, handler in former.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
