"""What tells the latents of one VAE from those of another."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder, measuring
from equivae.autoencoder.scaling import scaling_of
from equivae.errors import InputError
from equivae.latent_scaling import LatentScaling

__all__ = ["Fingerprint", "check_vae"]

_CELLS = 8
_DIFFERENT = 0.05  # half precision changes about a thousandth


@dataclass(frozen=True)
class Fingerprint:
    """What a VAE's encoder makes of one fixed picture: mean and deviation of every latent channel.

    It does not change with the dtype of the weights, how they are named or saved, or the decoder.

    Attributes:
        kind: the class of the VAE.
        factor: pixels per cell.
        channels: latent channels.
        values: means, then deviations; empty for video and audio.
        name: what the VAE was loaded from, if it says so.
        scaling: how its pipelines scale latents, where that is one number or one for each channel.
    """

    kind: str
    factor: int
    channels: int
    values: tuple[float, ...]
    name: str = field(default="", compare=False)
    scaling: LatentScaling | None = field(default=None, compare=False)

    @classmethod
    def of(cls, vae: Autoencoder) -> Fingerprint:
        """That of a VAE; it encodes one small picture."""
        kind, named = type(vae.module).__name__, _name(vae.module)
        scaling = scaling_of(vae.module, vae.latent_channels)
        if scaling is not None and scaling.does_nothing:
            scaling = None
        if vae.layout != "image":
            return cls(kind, vae.factor, vae.latent_channels, (), named, scaling)
        with measuring(vae.module):
            picture = _picture(vae.image_channels, _CELLS * vae.factor)
            latent = vae.encode(picture.to(vae.device, vae.dtype)).double().cpu()
        rows = latent[0].flatten(1)
        values = [*rows.mean(1).tolist(), *rows.std(1).tolist()]
        rounded = tuple(float(f"{value:.5g}") for value in values)
        return cls(kind, vae.factor, vae.latent_channels, rounded, named, scaling)

    @classmethod
    def read(cls, content: dict[str, Any] | None) -> Fingerprint | None:
        """What `to_dict` wrote; `None` for what is none."""
        if not content:
            return None
        try:
            scaling = LatentScaling.of(content.get("scaling"))
            values = tuple(map(float, content["values"]))
            return cls(**{**content, "values": values, "scaling": scaling})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the fingerprint of a VAE is broken: {error}.") from error

    def to_dict(self) -> dict[str, Any]:
        """Of JSON types."""
        return asdict(self)

    def differs(self, other: Fingerprint) -> str | None:
        """What tells another VAE from this one, in words; `None` if nothing does."""
        mine, others = (self.channels, self.factor), (other.channels, other.factor)
        if mine != others:
            return f"{others[0]} channels at factor {others[1]}, not {mine[0]} at factor {mine[1]}"
        if len(self.values) != len(other.values):
            return "another layout"
        power = math.fsum(v * v for v in self.values)
        error = math.fsum((v - w) ** 2 for v, w in zip(self.values, other.values, strict=True))
        distance = math.sqrt(error / power) if power else 0.0
        return f"latents {distance:.0%} apart" if distance > _DIFFERENT else None


def check_vae(
    name: str, fitted_to: Fingerprint | None, vae: nn.Module | Autoencoder, strict: bool
) -> None:
    """Warn, or with `strict` raise `InputError`, when an op was fitted to the latents of another VAE."""
    view = vae if isinstance(vae, Autoencoder) else Autoencoder(vae)
    if fitted_to is None:
        problem = "its file does not say which VAE it was fitted to"
    else:
        other = fitted_to.differs(Fingerprint.of(view))
        if other is None:
            return
        known = f" ({fitted_to.name})" if fitted_to.name else ""
        problem = f"it was fitted to another {fitted_to.kind}{known}, and this one has {other}"
    message = f"latent op {name!r} may not suit this VAE: {problem}; fit one for this VAE."
    if strict:
        raise InputError(message)
    warnings.warn(message, stacklevel=3)


def _name(module: nn.Module) -> str:
    """What it was loaded from; of a path its last part alone, which says nothing of somebody's folders."""
    noted = str(getattr(getattr(module, "config", None), "_name_or_path", None) or "")
    local = noted.startswith((".", "/", "~")) or "\\" in noted or noted.count("/") > 1
    return PurePath(noted.replace("\\", "/")).name if local else noted


def _picture(channels: int, side: int) -> Tensor:
    """Waves of several directions and lengths, the same on every machine."""
    axis = torch.arange(side, dtype=torch.float64) / side
    y, x = axis[:, None], axis[None, :]
    planes = [
        torch.sin(2 * math.pi * ((c + 1) * y + 2 * x)) * 0.5
        + torch.cos(2 * math.pi * (5 * x * (c + 1) - 3 * y)) * 0.4
        for c in range(channels)
    ]
    return torch.stack(planes)[None].float()
