"""What a latent op is worth with a VAE, in PSNR and in a picture."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .latent_op import LatentOp
from .moves import move_image

__all__ = ["round_trip_report"]


def round_trip_report(
    vae: Any, images: Tensor, op: LatentOp, amount: float = 0.5
) -> tuple[str, Tensor]:
    """Decode moved latents and compare with the moved images.

    Args:
        vae: anything with ComfyUI's `encode` and `decode`.
        images: `(B, H, W, C)` in [0, 1].
        op: the latent op.
        amount: of a change of colour, as it was fitted.

    Returns a table, and for the first image the moved image, the decode of the plainly moved latent, of the
    latent op's, and of the re-encoded image, side by side, `(1, H, 4 W, C)`.
    """
    plain = LatentOp(op.name)
    errors: dict[str, list[float]] = {}
    strip: list[Tensor] = []
    for i in range(len(images)):
        image = images[i : i + 1, ..., :3]
        moved = move_image(image, op.name, amount)
        z = vae.encode(image)
        shown = {
            "reconstruction": vae.decode(z),
            "plain latent op": vae.decode(plain(z)),
            "latent op": vae.decode(op(z)),
            "decoded, moved, encoded again": None,
            "moved image, encoded (ceiling)": vae.decode(vae.encode(moved)),
        }
        again = move_image(_images(shown["reconstruction"]), op.name, amount)
        shown["decoded, moved, encoded again"] = vae.decode(vae.encode(again))
        for name, found in shown.items():
            truth = image if name == "reconstruction" else moved
            errors.setdefault(name, []).append(_error(_images(found), truth))
        if not strip:
            names = ("plain latent op", "latent op", "moved image, encoded (ceiling)")
            strip = [moved, *(_fit(_images(shown[name]), moved) for name in names)]
    lines = [f"{op.name} on {len(images)} images, PSNR in dB"]
    if op.report:
        lines.append(op.report)
    for name, found in errors.items():
        lines.append(f"{name}: {-10 * math.log10(max(sum(found) / len(found), 1e-12)):.2f}")
    return "\n".join(lines), torch.cat([part.float().cpu() for part in strip], 2)


def _images(decoded: Tensor) -> Tensor:
    """`(N, H, W, 3)` of what a VAE decodes, the frames of a video among the N."""
    return decoded.reshape(-1, *decoded.shape[-3:])[..., :3].clamp(0, 1)


def _error(found: Tensor, truth: Tensor) -> float:
    found = _fit(found, truth)
    return float((found[: len(truth)].cpu() - truth.cpu()).square().mean())


def _fit(found: Tensor, like: Tensor) -> Tensor:
    """Resized to it, where a VAE cropped the image to whole cells."""
    height, width = like.shape[1:3]
    if found.shape[1:3] == like.shape[1:3]:
        return found
    planes = found.movedim(-1, 1)
    return F.interpolate(planes, (height, width), mode="bilinear").movedim(1, -1)
