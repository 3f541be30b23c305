"""How alike two batches of images are by their structure, whole or inside a mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LEAST_SIDE", "similarity"]

# Wang, Simoncelli, Bovik: Multiscale structural similarity (2003), the weights of its five scales.
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2

LEAST_SIDE = _WINDOW * 2 ** (len(_SCALES) - 1)
"""The smallest side in pixels at which MS-SSIM has its five scales."""


def similarity(
    a: Tensor, b: Tensor, mask: Tensor | None = None, *, zero: float = 0.0
) -> tuple[Tensor | None, Tensor | None]:
    """SSIM and MS-SSIM of images in [0, 1], each `(B,)`.

    Args:
        a: images `(B, C, H, W)`, or videos `(B, C, T, H, W)`, whose frames count alike.
        b: the images they are compared with.
        mask: where they count, as `Transform.mask` gives it; every window counts with the share of it
            that lies inside.
        zero: the grey whose luminance is 0; 0.5 for the SSIM of images that are kept in [-1, 1].

    SSIM is that of Wang et al. (2004) with a Gaussian window of 11x11, smaller for images below that size,
    over the windows that lie in the image. `None` instead of MS-SSIM where the coarsest of its five scales
    is smaller than the window, and instead of both for signals that are no images.
    """
    if a.ndim == 5:
        frames = a.shape[2]
        flat = [t.transpose(1, 2).flatten(0, 1) for t in (a, b)]
        if mask is not None and mask.ndim == 4:
            mask = mask.repeat_interleave(frames, 0)
        found = similarity(flat[0], flat[1], mask, zero=zero)
        return tuple(  # type: ignore[return-value]
            None if value is None else value.reshape(-1, frames).mean(1) for value in found
        )
    if a.ndim != 4:
        return None, None
    side = min(a.shape[-2:])
    window = min(_WINDOW, (side - 1) // 2 * 2 + 1)
    valid: Tensor | None = None
    if mask is not None:
        a = torch.where(mask, a, b)
        valid = mask.to(a.dtype).expand(a.shape[0], 1, *a.shape[-2:])
    whole, contrast = _terms(a, b, valid, window, zero)
    ssim = whole.mean(1)
    if valid is not None:  # nothing to compare is not a number, as in `mean_inside`
        ssim = ssim.where(valid.flatten(1).any(1), torch.nan)
    if side // 2 ** (len(_SCALES) - 1) < _WINDOW:
        return ssim, None
    product = contrast.clamp_min(0) ** _SCALES[0]
    for i, weight in enumerate(_SCALES[1:], 1):
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        if valid is not None:
            valid = (F.avg_pool2d(valid, 2) > 1 - 1e-6).to(a.dtype)
        whole, contrast = _terms(a, b, valid, window, zero)
        last = i == len(_SCALES) - 1
        product = product * (whole if last else contrast).clamp_min(0) ** weight
    return ssim, product.mean(1)


def _terms(
    a: Tensor, b: Tensor, valid: Tensor | None, window: int, zero: float
) -> tuple[Tensor, Tensor]:
    """Mean SSIM, and mean of its contrast-structure factor, of every channel, `(B, C)`."""
    # Variances do not depend on the origin; near it, float32 keeps more of them.
    a, b = a - 0.5, b - 0.5
    moments = _blurred(torch.cat([a, b, a * a, b * b, a * b], 1), window)
    mean_a, mean_b, aa, bb, ab = moments.chunk(5, 1)
    contrast = (2 * (ab - mean_a * mean_b) + _C2) / (aa - mean_a**2 + bb - mean_b**2 + _C2)
    mean_a, mean_b = mean_a + (0.5 - zero), mean_b + (0.5 - zero)
    whole = contrast * (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    if valid is None:
        return whole.mean((2, 3)), contrast.mean((2, 3))
    share = _blurred(valid, window)
    total = share.sum((2, 3)).clamp_min(torch.finfo(share.dtype).tiny)

    def average(values: Tensor) -> Tensor:
        return (values * share).sum((2, 3)) / total

    return average(whole), average(contrast)


def _blurred(planes: Tensor, window: int) -> Tensor:
    """Gaussian means over the windows that lie inside `(B, C, H, W)`."""
    from kornia.filters import filter2d_separable, get_gaussian_kernel1d

    kernel = get_gaussian_kernel1d(window, _SIGMA, device=planes.device, dtype=planes.dtype)
    blurred: Tensor = filter2d_separable(planes, kernel, kernel, padding="valid")
    return blurred
