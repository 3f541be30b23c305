"""`LatentAugment`: cached latents moved at random in one's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from equivae.caches.op import find_op
from equivae.errors import InputError
from equivae.latent_scaling import LatentScaling, scaling_asked
from equivae.transforms import Transform

__all__ = ["LatentAugment"]


class LatentAugment:
    """Move cached latents by a latent op, each with probability `p`, a new draw every time.

    Args:
        latent_op: a folder of `equivae fit`, its name on the hub, a transform, or a plain transform's name.
        p: probability of the move.
        scaled: how the latents are scaled: a `LatentScaling`, its factor alone, or `True` for the numbers of
            the VAE that the op was fitted on; `None` for latents as `encode` returns them.
        transform: the transform that is wanted; its inverse is taken if that is the one.

    It takes a batch `(B, c, h, w)` or one latent `(c, h, w)`, and `wrap` makes a `Dataset` of one. Draws come
    from torch's global generator, which a `DataLoader` seeds in each of its workers, or from `generator`.
    Raises `InputError` for an op that does not fit.

    ```python
    import torch
    from torch.utils.data import DataLoader

    import equivae
    from equivae.caches import LatentAugment

    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(8, size=64)
    op = equivae.fit_latent_op(vae, "hflip", images, kernel_size=3, progress=False)
    cached = equivae.scale_latents(equivae.Autoencoder(vae).encode(images), vae)
    augment = LatentAugment(op, scaled=vae.config.scaling_factor)
    assert augment(cached).shape == cached.shape
    loader = DataLoader(augment.wrap(list(zip(cached, range(8)))), batch_size=4)
    latents, labels = next(iter(loader))
    ```
    """

    def __init__(
        self,
        latent_op: str | Path | Transform,
        p: float = 0.5,
        *,
        scaled: LatentScaling | float | bool | None = None,
        transform: str | None = None,
    ) -> None:
        if not 0 <= p <= 1:
            raise InputError(f"p is a probability between 0 and 1, got {p}.")
        op = find_op(latent_op, transform)
        own = op.space.scaling
        scaling = None if scaled is None else scaling_asked(scaled, own, op.transform.name)
        self.p, self.op = p, op.on_scaled(scaling)
        if self.op.transform.swaps_axes and p not in (0, 1):
            raise InputError(
                f"{self.op.move!r} exchanges height and width, so that moved latents do not fit beside "
                "the others; use "
                "p=1."
            )

    def __call__(self, latents: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A batch `(B, c, h, w)`, or one latent `(c, h, w)`, with what the draw moved."""
        grid = self.op.axes or 2
        if latents.ndim not in (grid + 1, grid + 2):
            raise InputError(
                f"latents are a batch or one, of {grid} grid axes and the channels; got shape "
                f"{tuple(latents.shape)}."
            )
        batch = latents if latents.ndim == grid + 2 else latents[None]
        self.op.check(batch, Path("this batch"))
        drawn = torch.rand(len(batch), generator=generator) < self.p
        if drawn.all():
            result = self.op(batch)
        else:
            result = batch.clone()
            if drawn.any():
                chosen = drawn.to(batch.device)
                result[chosen] = self.op(batch[chosen])
        return result if latents.ndim == grid + 2 else result[0]

    def wrap(self, dataset: Any, key: str | int | None = None) -> Dataset[Any]:
        """A `Dataset` that gives what `dataset` gives, its latent moved by chance.

        Args:
            dataset: anything with `__len__` and `__getitem__`, whose items are a latent `(c, h, w)`, or a
                tuple, list or dict with one.
            key: where the latent is in an item: the first of a tuple by default, `"latents"` in a dict.
        """
        return _Augmented(dataset, self, key)


class _Augmented(Dataset[Any]):
    def __init__(
        self, dataset: Any, augment: Callable[[Tensor], Tensor], key: str | int | None
    ) -> None:
        self.dataset, self.augment, self.key = dataset, augment, key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        if isinstance(item, Tensor):
            return self.augment(item)
        if isinstance(item, Mapping):
            key = "latents" if self.key is None else self.key
            return {**item, key: self.augment(item[key])}
        at = 0 if self.key is None else int(self.key)
        parts = list(item)
        parts[at] = self.augment(parts[at])
        return type(item)(parts) if isinstance(item, list) else tuple(parts)
