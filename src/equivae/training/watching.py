"""Pictures of a run for its trackers: decodes of moved latents, and the latents themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equivae.evaluation.results import Panel
from equivae.reporting.figures import latent_colours
from equivae.training.state import RunState
from equivae.training.trainer import Hook

__all__ = ["Pictures", "in_a_row", "latents_in_a_row"]


class Pictures(Hook):
    """After every validation, pictures of a held-out image to the trackers that take some.

    Args:
        trackers: of the run; those with `log_images` get `{name: (1, H, W, 3)}`, 8 bits.
        draw: makes them.
    """

    def __init__(
        self, trackers: Sequence[Any], draw: Callable[[], Mapping[str, np.ndarray]]
    ) -> None:
        self.trackers = [t for t in trackers if callable(getattr(t, "log_images", None))]
        self.draw = draw

    def on_step(self, state: RunState) -> None:
        self._show(state)

    def on_epoch(self, state: RunState) -> None:
        self._show(state)

    def on_end(self, state: RunState) -> None:
        self._show(state)

    def _show(self, state: RunState) -> None:
        latest = state.history[-1] if state.history else {}
        if not self.trackers or "validation_loss" not in latest or latest["step"] != state.step:
            return
        pictures = dict(self.draw())
        for tracker in self.trackers if pictures else []:
            tracker.log_images(pictures, step=state.step)


def in_a_row(panel: Panel) -> np.ndarray:
    """Original, reconstruction, decode of the moved latent and that moved back, as `(1, H, W, 3)` bytes.

    Pictures of another size, as a quarter turn makes of what is no square, are left out.
    """
    shown = [panel.original, panel.reconstruction, panel.moved, panel.back]
    return _row([picture for picture in shown if picture is not None])


def latents_in_a_row(panel: Panel) -> np.ndarray | None:
    """`E(x)`, `ρ E(x)` and `E(T x)` in the colours of their principal components, at the image's size.

    `None` where the latents are no pictures.
    """
    coloured = latent_colours([panel])
    if not coloured:
        return None
    larger = max(1, panel.original.shape[-1] // coloured[0][0].shape[-1])
    return _row(
        [
            picture.repeat_interleave(larger, 1).repeat_interleave(larger, 2)
            for picture in coloured[0]
        ]
    )


def _row(pictures: Sequence[Tensor]) -> np.ndarray:
    """Those of the first one's shape side by side, as `(1, H, W, 3)` bytes."""
    fitting = [picture for picture in pictures if picture.shape == pictures[0].shape]
    row = torch.cat(fitting, -1).expand(3, -1, -1)
    pixels: np.ndarray = row.mul(255).round().byte().permute(1, 2, 0).numpy()
    return pixels[None]
