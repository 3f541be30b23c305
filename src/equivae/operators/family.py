"""Fitted ops of a random transform: one for every transform that it draws from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder, at_top_level
from equivae.data.sources import ImageDataset
from equivae.errors import InputError, first_line
from equivae.files.writing import check_name, child, write_beside
from equivae.operators.geometry import geometry_of
from equivae.operators.options import FitOptions
from equivae.operators.report import FitReport
from equivae.operators.transform import FittedTransform, default_name, load_latent_op
from equivae.transforms import Transform, get_transform
from equivae.transforms.families import RandomTransform
from equivae.transforms.lattice import LatticeTransform
from equivae.transforms.members import members_of, with_members

__all__ = ["FittedFamily", "fit_family"]

Fit = Callable[
    [Autoencoder, Sequence[Transform], ImageDataset, FitOptions], dict[str, FittedTransform]
]

_CONFIG = "latent_family.json"


class FittedFamily(RandomTransform):
    """A random transform that draws as before and applies the fitted op of what was drawn.

    Of a product, such as EQ-VAE's scaling and then turning, every factor has its own op, and they follow one
    another.

    Args:
        base: the random transform.
        members: a fitted transform for every transform that it draws from.
        name: its name; that of the base with `_fitted` behind it by default.

    ```python
    import equivae

    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(6, size=64)
    family = equivae.fit_latent_op(vae, "random_flip", images, kernel_size=3, progress=False)
    drawn = family.draw(6)
    assert drawn.latent(equivae.Autoencoder(vae).encode(images)).shape[0] == 6
    ```
    """

    exact = False

    def __init__(
        self, base: Transform, members: Sequence[FittedTransform], name: str | None = None
    ) -> None:
        self.base, self.members = base, list(members)
        self.name = check_name("the name of a fitted transform", name or default_name(base))
        self.swaps_axes, self.mixes_samples = base.swaps_axes, base.mixes_samples
        self.block = base.block
        self.layouts = base.layouts

    @property
    def reports(self) -> dict[str, FitReport]:
        """How every op was fitted, by the name of its transform."""
        return {one.base.name: one.report for one in self.members if one.report is not None}

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        known: dict[str, Transform] = {one.base.name: one for one in self.members}
        return with_members(self.base.draw(batch_size, generator), known)

    def at_step(self, step: int) -> FittedFamily:
        base = self.base.at_step(step)
        return self if base is self.base else FittedFamily(base, self.members, self.name)

    def at_factor(self, factor: int, time_factor: int | None = None) -> FittedFamily:
        base = self.base.at_factor(factor, time_factor)
        members = [one.at_factor(factor, time_factor) for one in self.members]
        same = all(new is old for new, old in zip(members, self.members, strict=True))
        return self if same and base is self.base else FittedFamily(base, members, self.name)

    def named(self, name: str) -> FittedFamily:
        """The same under another name."""
        return FittedFamily(self.base, self.members, name)

    def save(self, folder: str | Path) -> Path:
        """Write every op into a folder of its own, and which they are into `latent_family.json`."""
        folder = Path(folder)
        # Numbered, since the letters of a name do not tell every transform from every other.
        names = [f"{place:02d}_{one.name}" for place, one in enumerate(self.members)]
        for one, place in zip(self.members, names, strict=True):
            one.save(child(folder, place))
        content = {
            "version": 1,
            "name": self.name,
            "transform": self.base.name,
            "members": names,
        }
        text = json.dumps(content, indent=1) + "\n"
        write_beside(folder / _CONFIG, lambda path: _write(path, text))
        return folder

    @classmethod
    def load(cls, folder: str | Path, base: Transform | None = None) -> FittedFamily:
        """What `save` wrote.

        Args:
            folder: where it lies.
            base: the random transform; by default the registered one of the saved name.

        Raises `InputError` when there is none or it is incomplete.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
            name, transform, members = (content[key] for key in ("name", "transform", "members"))
        except (OSError, UnicodeDecodeError, ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"{folder} holds no fitted family: {_CONFIG} cannot be read ({first_line(error)}); pass a "
                "folder that FittedFamily.save wrote."
            ) from error
        ops = [load_latent_op(child(folder, one)) for one in members]
        return cls(base if base is not None else get_transform(transform), ops, name)


class _Remembering(Autoencoder):
    """A view that encodes the untouched images once, however many transforms are fitted in turn."""

    def __init__(self, vae: Autoencoder, shape: torch.Size) -> None:
        super().__init__(vae.module)
        self._shape = shape
        self._latents: dict[bytes, Tensor] = {}

    def encode(
        self, images: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        if images.shape[1:] != self._shape or sample:
            return super().encode(images, sample=sample, generator=generator)
        values = images.detach().float().cpu().contiguous().numpy().tobytes()
        key = hashlib.sha256(values).digest()
        if key not in self._latents:
            self._latents[key] = super().encode(images).cpu()
        return self._latents[key].to(images.device)


@at_top_level()
def fit_family(
    vae: Autoencoder,
    transform: Transform,
    images: ImageDataset,
    options: FitOptions,
    fit: Fit,
) -> FittedFamily:
    """Fit an op for every transform that a random one draws from; see `fit_latent_op`.

    Args:
        vae: the autoencoder.
        transform: the random transform.
        images: to fit on.
        options: of every fit.
        fit: fits several transforms in one pass, as `fit_operators` does.

    Flips and turns share one pass. The others take a pass each, since the equations of all their phases do
    not fit into memory together; the untouched images are encoded once.
    """
    members = [vae.place(member) for member in members_of(transform)]
    for member in members:
        geometry = geometry_of(member) if options.phases and images[0].ndim == 3 else None
        if geometry is not None:  # refused here, not in the middle of the fits
            geometry.size(*(side // vae.factor for side in images[0].shape[-2:]))
    moving = [member for member in members if isinstance(member, LatticeTransform)]
    others = [member for member in members if not isinstance(member, LatticeTransform)]
    view: Autoencoder = vae
    if len(others) > 1 and options.mixed_precision == "no":
        view = _Remembering(vae, images[0].shape)
    fitted: dict[str, Any] = {}
    groups: list[list[Transform]] = [[*moving], *([member] for member in others)]
    for group in groups:
        if group:
            fitted |= fit(view, group, images, options)
    return FittedFamily(vae.place(transform), [fitted[member.name] for member in members])


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
