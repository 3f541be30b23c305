"""Which VAE a latent op belongs to: what its encoder makes of one picture, as equivae's files note it."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

from .latent_op import LatentOp

__all__ = ["check_power", "check_vae", "factor_of", "fingerprint"]

_CELLS = 8
_DIFFERENT = 0.05  # half precision changes about a thousandth
_FAR = 4.0  # ratio of root mean squares: photographs differ by less


def fingerprint(vae: Any, factor: int) -> dict[str, Any] | None:
    """Mean and deviation of every latent channel of one fixed picture; `None` for a video VAE's."""
    z = vae.encode(_picture(_CELLS * factor))
    if z.ndim != 4:
        return None
    rows = z[0].double().cpu().flatten(1)
    values = [*rows.mean(1).tolist(), *rows.std(1).tolist()]
    kind = type(getattr(vae, "first_stage_model", vae)).__name__
    rounded = [float(f"{value:.5g}") for value in values]
    return {"kind": kind, "factor": factor, "channels": z.shape[1], "values": rounded}


def factor_of(vae: Any, images: Tensor) -> int:
    """Pixels per latent cell."""
    image = images[:1, ..., :3]
    return max(1, round(image.shape[2] / vae.encode(image).shape[-1]))


def check_vae(op: LatentOp, vae: Any) -> None:
    """`ValueError` when an op was fitted for the latents of another VAE, as far as its file tells."""
    noted = op.vae
    if not noted or not noted.get("values"):
        return
    found = fingerprint(vae, int(noted["factor"]))
    if found is None or len(found["values"]) != len(noted["values"]):
        distance = math.inf
    else:
        pairs = list(zip(noted["values"], found["values"], strict=True))
        power = math.fsum(a * a for a, _ in pairs)
        distance = math.sqrt(math.fsum((a - b) ** 2 for a, b in pairs) / max(power, 1e-30))
    if distance > _DIFFERENT:
        named = noted.get("name") or noted.get("kind")
        raise ValueError(
            f"The latent op for {op.name} was fitted for another VAE ({named}), whose latents are others; "
            "fit one with the VAE of this workflow."
        )


def check_power(op: LatentOp, samples: Tensor) -> None:
    """Warn when latents are so much stronger or weaker than the VAE's that they can hardly be its."""
    values = (op.vae or {}).get("values")
    found = float(samples.float().square().mean().sqrt())
    if not values or not found:
        return
    known = math.sqrt(math.fsum(v * v for v in values) / (len(values) // 2))
    if not 1 / _FAR < found / max(known, 1e-30) < _FAR:
        logging.warning(
            "equivae: the latents have a root mean square of %.2f, and those of the VAE that the latent op "
            "for %s was fitted for about %.2f: they are noise, scaled, or another VAE's.",
            found,
            op.name,
            known,
        )


def _picture(side: int) -> Tensor:
    """Waves of several directions and lengths, `(1, side, side, 3)` in [0, 1]."""
    axis = torch.arange(side, dtype=torch.float64) / side
    y, x = axis[:, None], axis[None, :]
    planes = [
        torch.sin(2 * math.pi * ((c + 1) * y + 2 * x)) * 0.5
        + torch.cos(2 * math.pi * (5 * x * (c + 1) - 3 * y)) * 0.4
        for c in range(3)
    ]
    return torch.stack(planes, -1)[None].float().add(1).div(2)
