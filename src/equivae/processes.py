"""The processes that share the work, under `accelerate launch`, `torchrun` or alone."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env

from equivae.errors import InputError, LostProcessError

__all__ = ["gathered", "on_main_process", "process_state", "telling_of_lost_processes"]

# What gloo and NCCL say where the other end is gone.
_GONE = ("closed by peer", "reset by peer", "remote process exited", "communicator was aborted")

Result = TypeVar("Result")


def process_state() -> PartialState:
    """accelerate's state; with `ACCELERATE_USE_CPU` its processes talk over gloo, which they do not else.

    A process group that is made here lasts until Python ends: nothing that is called in between ends it.
    """
    found = torch.distributed.is_available() and torch.distributed.is_initialized()
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    if not found and state.num_processes > 1:
        atexit.register(_end_process_group)
    return state


def on_main_process(action: Callable[[], Result]) -> Result | None:
    """`action()` on the main process, `None` on the others; what fails there fails on all of them.

    Raises the error of `action`, as an `InputError` with its message on the other processes.
    """
    state, result, error = process_state(), None, None
    if state.is_main_process:
        try:
            result = action()
        except Exception as problem:
            error = problem
    told = [None if error is None else str(error)]
    if state.num_processes > 1:
        broadcast_object_list(told)
    if error is not None:
        raise error
    if told[0] is not None:
        raise InputError(told[0])
    return result


def gathered(value: Any) -> list[Any]:
    """The value of every process, on every process."""
    return list(gather_object([value]))


@contextmanager
def telling_of_lost_processes() -> Iterator[None]:
    """Within it, `LostProcessError` in the place of a torn connection to a process that ended."""
    try:
        yield
    except RuntimeError as error:
        several = process_state().num_processes > 1
        if not (several and any(words in str(error) for words in _GONE)):
            raise
        raise LostProcessError(
            f"another process of the run ended, and process {process_state().process_index} ends with it; "
            "the error of that one says why. Go on with resume_from_checkpoint='latest'."
        ) from None


def _end_process_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
