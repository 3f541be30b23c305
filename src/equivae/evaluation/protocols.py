"""The two ways in which reconstructions are judged, and what each number of theirs means.

`equivae`, always taken: images in [0, 1] after clamping, the PSNR of a set is that of its mean error.
`imagenet`, beside it: what evaluations of tokenizers report (LightningDiT's `evaluate_tokenizer.py`, EQ-VAE).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.errors import InputError, first_line
from equivae.evaluation.features import (
    Backbone,
    Distance,
    resolve_features,
    resolve_lpips,
)
from equivae.evaluation.options import NumberOptions
from equivae.evaluation.quality import mean_inside, similarity

__all__ = [
    "Networks",
    "conventions",
    "eight_bit",
    "imagenet_numbers",
    "mean_of",
    "psnr_of_each",
]

_HALF = 5  # of SSIM's window
_INSTALL = "pip install 'equivae[metrics]'"


def eight_bit(images: Tensor) -> Tensor:
    """Images in [0, 1] as the 8-bit values that are saved: `clamp(127.5 x + 128, 0, 255)` of `x` in [-1, 1].

    Truncated, as a cast to bytes is. Whole numbers in float32; NaN stays NaN.
    """
    return (127.5 * (2 * images - 1) + 128).clamp(0, 255).floor()


def psnr_of_each(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """PSNR in dB of every image over 8 bits, `20 log10(255 / sqrt(MSE))`, `(B,)`; infinite for equal ones."""
    error = mean_inside((eight_bit(a).double() - eight_bit(b).double()).square(), mask)
    return 10 * torch.log10(255.0**2 / error)


def imagenet_numbers(a: Tensor, b: Tensor, mask: Tensor | None = None) -> dict[str, Tensor | None]:
    """The protocol's numbers of every image that need no network, each `(B,)`.

    SSIM as torchmetrics has it with `data_range=(-1, 1)`: values clamped to [-1, 1], so that the luminance
    of middle grey is 0, constants for a range of 2, and windows around every pixel, beyond the border in
    the image's reflection.

    Args:
        a: images `(B, C, ..., H, W)` in [0, 1].
        b: what they are compared with.
        mask: where.
    """
    if a.ndim > 3 and min(a.shape[-2:]) > _HALF:
        a_, b_ = _reflected(a), _reflected(b)
        inside = None
        if mask is not None:  # of all images, or of each
            whole = mask.float().reshape((1,) * (4 - mask.ndim) + mask.shape)
            inside = _reflected(whole) > 0
        ssim, _ = similarity(a_, b_, inside, zero=0.5)
    else:
        ssim, _ = similarity(a, b, mask, zero=0.5)
    return {"psnr": psnr_of_each(a, b, mask), "ssim": ssim}


def _reflected(images: Tensor) -> Tensor:
    sides = (_HALF,) * 4 + (0, 0) * (images.ndim - 4)
    return F.pad(images, sides, mode="reflect")


class Networks:
    """The networks that a measurement asks, and what is to be said of those that cannot be had.

    What was asked for by name and cannot be had is an `InputError`. The imagenet protocol takes Inception
    and LPIPS on VGG where nothing else is asked for, and does without where they cannot be had.
    """

    def __init__(self, options: NumberOptions, device: torch.device) -> None:
        self.notes: list[str] = []
        self.features: Backbone | None
        self.lpips: Distance | None
        imagenet = options.protocol == "imagenet"
        self.named = {"features": options.features, "lpips": options.lpips}
        for name, usual, what, resolve in (
            ("features", "inception", "rFID", resolve_features),
            ("lpips", "vgg", "LPIPS", resolve_lpips),
        ):
            asked = self.named[name]
            if imagenet and asked is None:
                found = self._try(name, usual, what, resolve, device)
            else:
                found = resolve(asked, device)  # type: ignore[operator]
            setattr(self, name, found)

    @property
    def any(self) -> bool:
        """Whether there is one to ask."""
        return self.features is not None or self.lpips is not None

    def _try(
        self, name: str, usual: str, what: str, resolve: Callable[..., object], device: torch.device
    ) -> object:
        try:
            found = resolve(usual, device)
        except InputError as error:
            cause = error.__cause__
            why = first_line(cause if isinstance(cause, Exception) else error)
            self.notes.append(
                f"{what} was not measured because its network is not available ({why}): {_INSTALL} and run "
                "the same again with a connection, over which its weights come once, or pass a callable of "
                f"your own as {name}."
            )
            return None
        self.named[name] = usual
        return found


def conventions(options: NumberOptions, named: dict[str, object]) -> dict[str, str]:
    """What the numbers of a measurement mean, by what they are called in tables."""
    found = {
        "PSNR": "of the mean squared error over the images, in [0, 1] units after clamping (peak 1)",
        "SSIM": "mean over the images, values in [0, 1], 11x11 Gaussian window (Wang et al., 2004)",
    }
    network, distance = (_name_of(named[one], one) for one in ("features", "lpips"))
    if options.protocol != "imagenet":
        if named["features"] is not None:
            found["rFID"] = f"{network}, images in [0, 1] after clamping"
        if named["lpips"] is not None:
            found["LPIPS"] = f"{distance}, images in [0, 1] after clamping"
        return found
    found |= {
        "images": "Resize of the shorter side (bilinear, anti-aliased) and centre crop, as torchvision does",
        "PSNR (imagenet)": "mean of the images' own PSNR over 8 bits, clamp(127.5 x + 128, 0, 255), peak 255",
        "SSIM (imagenet)": "torchmetrics' with data_range=(-1, 1), mean over the images",
        "gap (imagenet)": "mean of the images' own differences of that PSNR",
    }
    if named["features"] is not None:
        against = options.rfid_reference or "the images themselves"
        found["rFID (imagenet)"] = f"{network}, 8-bit images, against {against}"
    if named["lpips"] is not None:
        found["LPIPS (imagenet)"] = f"{distance}, images clamped"
    return found


def _name_of(network: object, kind: str) -> str:
    if network == "inception":
        return "Inception-2048 of torch-fidelity"
    if isinstance(network, str):
        return f"{network} of torchmetrics"
    return f"{kind}={getattr(network, '__name__', type(network).__name__)}"


def mean_of(values: list[float]) -> float:
    """A mean that is infinite where a value is, and NaN where one is."""
    if any(map(math.isinf, values)) and not any(map(math.isnan, values)):
        return sum(values)
    return math.fsum(values) / len(values)
