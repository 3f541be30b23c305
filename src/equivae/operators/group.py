"""Operators for a whole group, from every element or from its generators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder, at_top_level, measuring
from equivae.data.sources import ImagesLike, load_images
from equivae.errors import InputError, did_you_mean
from equivae.files.pretrained import load_vae
from equivae.operators.fit import fit_operators
from equivae.operators.modules import Padding
from equivae.operators.options import (
    FitOptions,
    KernelSize,
    Method,
    NetworkOptions,
    NetworkSize,
    Objective,
    network_shape,
)
from equivae.operators.pairs import Precision
from equivae.operators.representation import not_closed
from equivae.operators.structure import closure_error
from equivae.transforms import Group, Transform, get_group

__all__ = ["FittedGroup", "fit_latent_group"]

Basis = Literal["elements", "generators"]


@dataclass(frozen=True)
class FittedGroup:
    """The fitted transforms of a group.

    Attributes:
        group: the group, of lattice transforms.
        transforms: by the element's name; the identity stands for itself. From a fit of the generators
            alone the others are compositions of fitted transforms.
        closure: `"g@h"` to `‖ρ(g) ρ(h) - ρ(gh)‖ / ‖ρ(gh)‖` on held-in latents.

    Iterate over it for the transforms beside the identity, as `evaluate` and the losses take them.
    """

    group: Group
    transforms: dict[str, Transform]
    closure: dict[str, float]

    @property
    def closure_error(self) -> float:
        """The largest of them; 0 for a representation of the group."""
        return max(self.closure.values(), default=0.0)

    def __iter__(self) -> Iterator[Transform]:
        return (t for name, t in self.transforms.items() if name != "identity")

    def __getitem__(self, name: str) -> Transform:
        if name not in self.transforms:
            raise InputError(
                f"group {self.group.name} has no element {name!r}.{did_you_mean(name, self.transforms)}"
            )
        return self.transforms[name]


@at_top_level()
def fit_latent_group(
    vae: nn.Module | str | Path,
    group: str | Group,
    images: ImagesLike,
    kernel_size: KernelSize = 5,
    *,
    basis: Basis = "elements",
    padding: Padding = "zeros",
    ridge: float | None = None,
    magnitude: int = 0,
    method: Method = "linear",
    network: NetworkSize | None = None,
    objective: Objective = "latent",
    max_train_steps: int = 300,
    learning_rate: float = 1e-3,
    max_seconds: float = 300.0,
    mixed_precision: Precision = "no",
    resolution: int | None = None,
    max_samples: int | None = None,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
    validation_split: float = 0.1,
    eval_batch_size: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> FittedGroup:
    """Fit the latent ops of a group in one pass over the images; the VAE stays bit for bit as it is.

    Args:
        group: `"c2"`, `"d2"`, `"c4"`, `"d4"` or a `Group`.
        basis: `"elements"` fits every element on its own, which decodes best; `"generators"` fits the
            generators and composes the others from them, so that these obey the group law.
        method: `"conjugation"` fits all elements at once, by one invertible network in whose coordinates they
            are plain: they obey the group law exactly, up to rounding (see `ConjugatedOperator`).
        max_seconds: of the steps of each operator, or of all of them under a conjugation.

    All other arguments are those of `fit_latent_op`.

    Raises `InputError` as `fit_latent_op` does.

    ```python
    import equivae

    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(8, size=64)
    fitted = equivae.fit_latent_group(vae, "c4", images, kernel_size=3, progress=False)
    assert [t.name for t in fitted] == ["rot90_fitted", "rot180_fitted", "rot270_fitted"]
    print(fitted.closure_error)
    ```
    """
    if basis not in get_args(Basis):
        raise InputError(f"basis={basis!r} is unknown.{did_you_mean(basis, get_args(Basis))}")
    if method == "conjugation" and basis != "elements":
        raise InputError(
            "method='conjugation' learns from every element and keeps the law by itself; leave "
            f"basis={basis!r} out."
        )
    if network is not None and method == "linear":
        method = "network"
    width, layers = network_shape(network or "medium")
    options = FitOptions(
        kernel_size=kernel_size,
        method=method,
        mixed_precision=mixed_precision,
        objective=objective,
        network=NetworkOptions(
            max_train_steps,
            learning_rate,
            width=width,
            seed=seed,
            layers=layers,
            max_seconds=max_seconds,
        ),
        padding=padding,
        ridge=ridge,
        magnitude=magnitude,
        validation_split=validation_split,
        eval_batch_size=eval_batch_size,
        seed=seed,
        progress=progress,
    )
    group = get_group(group) if isinstance(group, str) else group
    words = _words(group)
    autoencoder = Autoencoder(load_vae(vae))
    dataset = load_images(
        images,
        resolution=resolution,
        channels=autoencoder.image_channels,
        max_samples=max_samples,
        image_column=image_column,
        split=split,
        background=background,
    )
    wanted = [t for t in group if t.name != "identity"]
    if basis == "generators":
        wanted = [t for t in wanted if len(words[t.name]) == 1]
    fitted = fit_operators(autoencoder, wanted, dataset, options, group)
    transforms = _composed(group, fitted, words)
    with measuring(autoencoder.module):
        first = torch.stack([dataset[i] for i in range(min(4, len(dataset)))])
        latents = autoencoder.encode(first.to(autoencoder.device, autoencoder.dtype))
    return FittedGroup(group, transforms, _closure(group, transforms, latents))


def _composed(
    group: Group, fitted: Mapping[str, Transform], words: Mapping[str, list[str]]
) -> dict[str, Transform]:
    """The transforms of all elements: those that were not fitted are compositions of those that were."""
    transforms: dict[str, Transform] = {}
    for element in group:
        if element.name == "identity":
            transforms[element.name] = element
        elif element.name in fitted:
            transforms[element.name] = fitted[element.name]
        else:
            factors: list[Transform] = [fitted[name] for name in words[element.name]]
            transforms[element.name] = reduce(lambda outer, inner: outer @ inner, factors)
    return transforms


def _closure(
    group: Group, transforms: Mapping[str, Transform], latents: Tensor
) -> dict[str, float]:
    """How far every product is from its element on some latents."""
    return {
        f"{g.name}@{h.name}": closure_error(
            transforms[g.name], transforms[h.name], transforms[(g @ h).name], latents
        )
        for g in group
        for h in group
        if "identity" not in (g.name, h.name)
    }


def _words(group: Group) -> dict[str, list[str]]:
    """Each element as a shortest product of generators, which are found greedily in the group's order."""
    elements = {t.name: t for t in group}
    words: dict[str, list[str]] = {"identity": []}
    generators: list[str] = []
    for candidate in group:
        if candidate.name in words:
            continue
        generators.append(candidate.name)
        words = {"identity": []}
        frontier = ["identity"]
        while frontier:
            following = []
            for name in frontier:
                for generator in generators:
                    outer, inner = elements[generator], elements[name]
                    product = (outer @ inner).name
                    if product not in elements:
                        raise not_closed(group, outer, inner)
                    if product not in words:
                        words[product] = [generator, *words[name]]
                        following.append(product)
            frontier = following
    return words
