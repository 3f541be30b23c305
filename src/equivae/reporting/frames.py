"""What the playground shows: each way to transform a latent, decoded at every setting of a slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from equivae.autoencoder import Autoencoder, measuring
from equivae.evaluation.quality import mean_inside
from equivae.evaluation.roundtrip import reconstruct, reencode
from equivae.reporting.sliders import SLIDERS, Slider
from equivae.symmetry import SymmetrizedVAE
from equivae.transforms import Transform
from equivae.units import psnr, unit

__all__ = ["WAYS", "Frame", "Position", "Settings", "decode_positions", "transforms_of"]

WAYS = ("plain", "fitted", "re-encoded", "symmetrized")

Settings = Mapping[str, Sequence[float]]
"""The settings of every slider by its name, the one at rest among them."""

_OUTSIDE = 0.5  # grey, as what a rotation's pixel op puts there


@dataclass(frozen=True)
class Frame:
    """What one way gives at one position.

    Attributes:
        picture: `(3, h, w)` in [0, 1], grey outside the transform's mask; `None` where there is none.
        psnr: of the decode against the transformed picture, inside the mask, in dB.
        why: why there is none.
    """

    picture: Tensor | None
    psnr: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Position:
    """A slider at one of its settings, the others at rest.

    Attributes:
        slider: its name.
        value: the setting.
        transform: the name of the transform; `"identity"` at rest.
        target: the transformed picture, `(3, h, w)` in [0, 1].
        frames: what every one of `WAYS` gives.
    """

    slider: str
    value: float
    transform: str
    target: Tensor
    frames: dict[str, Frame]


def transforms_of(settings: Settings) -> list[Transform]:
    """Of every setting but those at rest."""
    return [
        transform
        for slider in SLIDERS
        for value in settings.get(slider.name, ())
        if (transform := slider.transform(value)).name != "identity" and value != slider.rest
    ]


def decode_positions(
    vae: Autoencoder,
    image: Tensor,
    settings: Settings,
    fitted: Mapping[str, Transform],
    symmetrized: SymmetrizedVAE,
    progress: bool = True,
) -> list[Position]:
    """Every position, of an image `(3, H, W)` in [-1, 1].

    Args:
        vae: the autoencoder.
        image: the picture.
        settings: of the sliders.
        fitted: the fitted transform of every transform, by the transform's name.
        symmetrized: the symmetrized VAE.
        progress: show a progress bar.
    """
    ways = _Ways(vae, image, fitted, symmetrized)
    wanted = [
        (slider, value)
        for slider in SLIDERS
        for value in settings.get(slider.name, ())
        if value != slider.rest
    ]
    rest = ways.rest()
    found = [ways.position(*one) for one in tqdm(wanted, desc="decode", disable=not progress)]
    for slider in SLIDERS:
        if slider.name in settings:
            found.append(Position(slider.name, slider.rest, "identity", rest.target, rest.frames))
    order = [slider.name for slider in SLIDERS]
    return sorted(found, key=lambda one: (order.index(one.slider), one.value))


class _Ways:
    """One picture, encoded once by both VAEs."""

    def __init__(
        self,
        vae: Autoencoder,
        image: Tensor,
        fitted: Mapping[str, Transform],
        symmetrized: SymmetrizedVAE,
    ) -> None:
        self.vae, self.fitted = vae, fitted
        self.group = symmetrized.group
        self.symmetrized = Autoencoder(symmetrized)
        x = image[None].to(vae.device, vae.dtype)
        with measuring(vae.module):
            self.batch = reconstruct(vae, x)
        with measuring(symmetrized):
            self.own = reconstruct(self.symmetrized, x)

    def rest(self) -> Position:
        """Nothing transformed: what the VAEs themselves cost."""
        with measuring(self.vae.module):
            again = self.vae.decode(self.vae.encode(self.batch.output.clamp(-1, 1)))
        seen = {
            "plain": self.batch.output,
            "fitted": self.batch.output,
            "re-encoded": again,
            "symmetrized": self.own.output,
        }
        target = self.batch.x
        frames = {way: _frame(seen[way], target, None) for way in WAYS}
        return Position("", 0.0, "identity", _shown(target, None), frames)

    def position(self, slider: Slider, value: float) -> Position:
        """One slider moved."""
        transform = self.vae.place(slider.transform(value))
        target, mask = transform.pixel(self.batch.x), transform.mask(self.batch.x)
        with measuring(self.vae.module):
            latents = {
                "plain": transform.latent(self.batch.z),
                "fitted": self.vae.place(self.fitted[transform.name]).latent(self.batch.z),
                "re-encoded": reencode(self.vae, self.batch, transform)[0],
            }
            frames = {
                way: _frame(self.vae.decode(latent), target, mask)
                for way, latent in latents.items()
            }
        frames["symmetrized"] = self._exact(
            transform, target, f"{slider.name} of {slider.shown(value)}"
        )
        return Position(slider.name, value, transform.name, _shown(target, mask), frames)

    def _exact(self, transform: Transform, target: Tensor, setting: str) -> Frame:
        if transform.name not in [element.name for element in self.group]:
            names = ", ".join(one.name for one in self.group if one.name != "identity")
            why = f"Empty: the group {self.group.name} has {names}, and no {setting}."
            return Frame(None, why=why)
        with measuring(self.symmetrized.module):
            decoded = self.symmetrized.decode(transform.latent(self.own.z))
        return _frame(decoded, target, None)


def _frame(decoded: Tensor, target: Tensor, mask: Tensor | None) -> Frame:
    error = mean_inside((unit(decoded) - unit(target)).square(), mask)
    return Frame(_shown(decoded, mask), psnr(float(error)))


def _shown(image: Tensor, mask: Tensor | None) -> Tensor:
    seen = unit(image)[0]
    return (seen if mask is None else torch.where(mask, seen, _OUTSIDE)).cpu()
