"""Applying a saved latent op: torch and safetensors are all that this needs.

```python
import torch

import equivae

vae, images = equivae.zoo.load(), equivae.data.dead_leaves(4, size=64)
equivae.fit_latent_op(vae, "hflip", images, kernel_size=3, progress=False).save("flip_op")

from equivae.operators.runtime import load

flip = load("flip_op/latent_op.safetensors")
latents = torch.randn(1, flip.channels, 8, 8)  # unscaled, as `encode` returns them
assert flip(latents).shape == latents.shape
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivae.errors import InputError
from equivae.latent_scaling import (
    LatentScaling,
    apply_scaled,
    scaling_asked,
)
from equivae.operators.format import read_op, undoing
from equivae.operators.modules import LatentOperator, moved

__all__ = ["LatentOp", "load", "moved"]


class LatentOp:
    """A latent op as its file describes it.

    Attributes:
        header: the JSON header.
        operator: the map, a module with frozen weights.
        inverse: the op that undoes it, or `None`.
    """

    def __init__(
        self,
        header: dict[str, Any],
        operator: LatentOperator,
        move: dict[str, bool] | None,
        inverse: LatentOp | None = None,
    ) -> None:
        if move is None and not operator.moves_grid:
            raise InputError(
                f"the latent op {header.get('name')!r} moves cells as transform "
                f"{header.get('transform')!r}, which its file does not describe; apply it with "
                "equivae.load_latent_op."
            )
        self.header, self.operator, self.inverse = header, operator, inverse
        self._move = move or {}

    @property
    def name(self) -> str:
        return str(self.header["name"])

    @property
    def channels(self) -> int:
        """Latent channels that it takes."""
        return self.operator.takes

    @torch.no_grad()
    def __call__(
        self, latents: Tensor, *, scaled: LatentScaling | float | bool | None = None
    ) -> Tensor:
        """The moved latents `(B, c, *grid)`, or one `(c, *grid)`.

        Args:
            latents: unscaled, as `encode` returns them, or scaled as `scaled` says.
            scaled: a `LatentScaling`, its factor alone, or `True` for what the file says of its VAE.
        """
        if scaled is None or scaled is False:
            return self._moved(latents)
        own = LatentScaling.of((self.header.get("vae") or {}).get("scaling"))
        scaling = scaling_asked(scaled, own, self.name)
        return apply_scaled(self._moved, latents, scaling, len(self.operator.kernel))

    def _moved(self, latents: Tensor) -> Tensor:
        given = latents if self.operator.moves_grid else moved(latents, self._move)
        found: Tensor = self.operator.to(latents.device)(given)
        return found


def load(path: str | Path) -> LatentOp:
    """The latent op in a file, or in a folder that has one.

    Raises `InputError`, in one sentence, for what is none, is cut, or needs the whole library.
    """
    header, operators = read_op(path)
    forward = operators["forward_operator"]
    if header.get("version") is None and not forward.moves_grid:
        raise InputError(
            f"{path} was written by version 0.1, whose files do not describe how cells move; load it with "
            "equivae.load_latent_op and save it again."
        )
    back, inverse = undoing(header, operators), None
    if back is not None:
        inverse = LatentOp(header, back, header.get("inverse_move"))
    made = LatentOp(header, forward, header.get("move"), inverse)
    if inverse is not None:
        inverse.inverse = made
    return made
