"""Where a run stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["RunState"]


@dataclass
class RunState:
    """What a run knows of itself, and what its checkpoints hold of it.

    Attributes:
        settings: what must not change between the parts of one run.
        step: optimiser steps done.
        epoch: passes begun before this one.
        samples: samples of this pass, on this process, that are done.
        seconds: training time so far.
        bottleneck_steps: steps that the layers at latent resolution had before, by themselves.
        bottleneck_planned: steps that they were to have, unless their loss came to rest.
        bottleneck_cost: of one of those steps, over that of a step of all layers.
        warmup_steps: of the learning rate, which stay what they were when a run is lengthened.
        branch: how often the run went on from a checkpoint that was not its last; those that it left
            behind there have a lower one.
        usual_loss: the running mean of the loss, where a guard compares with it.
        pending: on each process, sums of losses that no record holds yet.
        places: of each process, in a stream.
        trackers: the ids of the run in its trackers, by their names.
        files: the SHA-256 of every other file of the checkpoint.
        history: the records of the loss.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    samples: int = 0
    seconds: float = 0.0
    bottleneck_steps: int = 0
    bottleneck_planned: int = 0
    bottleneck_cost: float = 0.0
    warmup_steps: int = 0
    branch: int = 0
    usual_loss: float = 0.0
    pending: list[dict[str, Any]] = field(default_factory=list)
    places: list[Any] = field(default_factory=list)
    trackers: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
