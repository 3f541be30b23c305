"""SIGINT, SIGTERM and a time limit: a run that is asked to stop saves what it has."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from equivae.errors import RunInterrupted

__all__ = ["StopRequest", "stop_on_signals"]

_NAMES = {signal.SIGINT: "interrupted (SIGINT)", signal.SIGTERM: "asked to end (SIGTERM)"}
_TIME_IS_UP = 14  # the number of SIGALRM, which Windows does not name


class StopRequest:
    """Whether somebody asked the run to stop, or its time is up.

    Args:
        minutes: from now on until the time is up; `None` for no limit.

    Attributes:
        signal: the signal that did, or `None`.
        can_save: whether the loop is running, which looks at `signal` after every step; before and after it
            a signal ends the run at once, since there is nothing to save.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.signal: int | None = None
        self.can_save = False
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
        raise RunInterrupted(
            f"the run was {self.words(signum)} and saved nothing more than the checkpoints that are there.",
            signum,
        )


@contextmanager
def stop_on_signals(minutes: float | None = None) -> Iterator[StopRequest]:
    """Within it signals become a request; then the former handlers are back. Second thoughts end at once.

    The request is made after so many minutes, too.
    """
    request = StopRequest(minutes)
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python lets no other thread have handlers
        return
    former = {number: signal.signal(number, request.handle) for number in _NAMES}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
