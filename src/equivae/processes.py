"""The processes that share the work, under `accelerate launch`, `torchrun` or alone."""

from __future__ import annotations

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

__all__ = ["process_state"]


def process_state() -> PartialState:
    """accelerate's state; with `ACCELERATE_USE_CPU` its processes talk over gloo, which they do not else."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
