"""Fit a latent op in closed form, from a VAE and some images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .latent_op import Kernel, LatentOp
from .moves import COLOURS, MOVES, SCALES, move_image

__all__ = ["CHOICES", "fit_op"]

CHOICES = (*(name for name in MOVES if name != "identity"), *SCALES, *COLOURS)
_RIDGES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
_MOST_ENTRIES = 4096  # of a patch: above, solving takes minutes


class _Equations:
    """`Σ a aᵀ` and `Σ a yᵀ` of patches `a` with a one at the end and cells `y`, and `Σ y²`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.left: Tensor | None = None
        self.right: Tensor | None = None
        self.power = 0.0

    def add(self, moved: Tensor, target: Tensor) -> None:
        patches = F.unfold(moved.float(), self.size, padding=self.size // 2).transpose(1, 2)
        patches = F.pad(patches, (0, 1), value=1.0).flatten(0, 1).double()
        cells = target.float().flatten(2).transpose(1, 2).flatten(0, 1).double()
        left, right = patches.T @ patches, patches.T @ cells
        self.left = left if self.left is None else self.left + left
        self.right = right if self.right is None else self.right + right
        self.power += float(cells.square().sum())

    def solve(self, ridge: float) -> Tensor:
        penalty = torch.full_like(
            self.left.diagonal(), ridge * float(self.left.diagonal()[:-1].mean())
        )
        penalty[-1] = 0.0
        return torch.linalg.solve(self.left + torch.diag(penalty), self.right)

    def error(self, solution: Tensor) -> float:
        """Of a solution, relative to the power of what it should give."""
        wrong = self.power - 2 * (self.right * solution).sum()
        wrong = wrong + (solution * (self.left @ solution)).sum()
        return float((wrong / max(self.power, 1e-30)).clamp_min(0).sqrt())


def fit_op(
    vae: Any, images: Tensor, name: str, kernel_size: int = 5, amount: float = 0.5
) -> LatentOp:
    """The op whose result is nearest to the latents of the moved images, by least squares.

    Args:
        vae: anything with ComfyUI's `encode`.
        images: `(B, H, W, C)` in [0, 1], two or more; every eighth is held out to choose the ridge.
        name: one of `CHOICES`.
        kernel_size: odd number of latent cells.
        amount: of `brightness` and `saturation`: what they are multiplied by.

    An op that is no better than the plain one on the held-out images is not returned: the plain one is,
    and its report says so. Raises `ValueError` for too few images or a kernel that is too large.
    """
    if name not in CHOICES:
        raise ValueError(f"{name!r} cannot be fitted; choose one of {', '.join(CHOICES)}.")
    if len(images) < 2:
        raise ValueError(
            "A fit needs two images or more, one of them held out; better 8 or 16 of your own."
        )
    if kernel_size % 2 == 0 or kernel_size < 1:
        raise ValueError(f"kernel_size is an odd number of latent cells, got {kernel_size}.")
    op = LatentOp(name)
    forward, back = _Pairs(kernel_size), _Pairs(kernel_size)
    two_way = name in MOVES
    involution = two_way and MOVES[name] == MOVES[name].inverse
    channels = 0
    for i in range(len(images)):
        z, target = _encode_pair(vae, images[i : i + 1], name, amount)
        channels = z.shape[1]
        held_out = i % 8 == len(images[:8]) - 1
        forward.add(op.move(z), _before_shuffle(op, target), held_out)
        if involution:
            forward.add(op.move(target), z, held_out)
        elif two_way:
            back.add(op.inverse.move(target), z, held_out)
    kernel, error = forward.solve()
    plain = forward.plain(op)
    text = (
        f"{name}, {len(images)} images, {kernel_size}x{kernel_size}: relative error of held-out latents "
        f"{error:.3f}, of the plain latent op {plain:.3f}"
    )
    if not error < plain:
        return LatentOp(
            name, channels, report=text + ". The fit is no better, so this is the plain latent op."
        )
    inverse = kernel if involution else back.solve()[0] if two_way else None
    return LatentOp(name, channels, kernel, inverse, text)


class _Pairs:
    """Training and held-out equations of one direction, and the held-out pairs themselves."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.training, self.held_out = _Equations(size), _Equations(size)
        self.kept: list[tuple[Tensor, Tensor]] = []

    def add(self, moved: Tensor, target: Tensor, held_out: bool) -> None:
        entries = moved.shape[1] * self.size**2
        if entries > _MOST_ENTRIES:
            raise ValueError(
                f"A {self.size}x{self.size} kernel over {moved.shape[1]} channels has {entries} entries a "
                "patch, more than "
                f"{_MOST_ENTRIES}; choose a smaller kernel_size."
            )
        (self.held_out if held_out else self.training).add(moved, target)
        if held_out:
            self.kept.append((moved, target))

    def solve(self) -> tuple[Kernel, float]:
        """The kernel of the ridge that is best on the held-out images, and its relative error there."""
        solutions = [self.training.solve(ridge) for ridge in _RIDGES]
        errors = [self.held_out.error(solution) for solution in solutions]
        best = solutions[errors.index(min(errors))]
        inputs = (len(best) - 1) // self.size**2
        weight = best[:-1].T.reshape(-1, inputs, self.size, self.size)
        return Kernel(weight.float().contiguous(), best[-1].float().contiguous()), min(errors)

    def plain(self, op: LatentOp) -> float:
        """The relative error of the plain latent op on the held-out images."""
        wrong = sum(float((op.plain(m) - t).square().sum()) for m, t in self.kept)
        whole = sum(float(t.square().sum()) for _, t in self.kept)
        return (wrong / max(whole, 1e-30)) ** 0.5


def _encode_pair(vae: Any, image: Tensor, name: str, amount: float) -> tuple[Tensor, Tensor]:
    """Latents `(N, c, h, w)` of an image and of the moved one; the frames of a video's latent are the N."""
    z = _frames(vae.encode(image))
    target = _frames(vae.encode(move_image(image, name, amount)))
    if name == "scale 0.5":
        z = z[..., : target.shape[-2] * 2, : target.shape[-1] * 2]
    elif name == "scale 2":
        target = target[..., : z.shape[-2] * 2, : z.shape[-1] * 2]
    if not (z.isfinite().all() and target.isfinite().all()):
        raise ValueError(
            "The VAE gives latents that are not finite (NaN): it overflows in half precision; start "
            "ComfyUI with --fp32-vae."
        )
    return z.float().cpu(), target.float().cpu()


def _frames(samples: Tensor) -> Tensor:
    return samples.transpose(1, 2).flatten(0, 1) if samples.ndim == 5 else samples


def _before_shuffle(op: LatentOp, target: Tensor) -> Tensor:
    return F.pixel_unshuffle(target, 2) if op.name == "scale 2" else target
