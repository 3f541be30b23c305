"""What symmetrizing costs and does."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["SymmetrizeReport"]


@dataclass(frozen=True)
class SymmetrizeReport:
    """What `symmetrize` costs and what it does to reconstruction, on some of the images given.

    Attributes:
        group: the group's name.
        margin: cells around the domain that are encoded and decoded with it; `None` means all.
        cost: cells encoded and decoded, relative to the plain VAE's, at the resolution of the images.
        images: how many were measured.
        plain_psnr: reconstruction PSNR of the plain VAE, in dB.
        reconstruction_psnr: that of the symmetrized one.
        margins: margin to reconstruction PSNR, the evidence behind the choice.
        seam: pixels over which the decoded parts fade into one another; `None` for all that is decoded.
        seams: seam to reconstruction PSNR at the smallest margin, the evidence behind the choice.
        encoder_law_error: `max |E'(T x) - S E'(x)|` over the largest latent, on one image and one element: 0
            or the rounding of the dtype.
        decoder_law_error: `max |D'(S z) - T D'(z)|`, in [-1, 1], on the same.
    """

    group: str
    margin: int | None
    cost: float
    images: int
    plain_psnr: float
    reconstruction_psnr: float
    margins: dict[int, float] = field(default_factory=dict)
    seam: int | None = 0
    seams: dict[str, float] = field(default_factory=dict)
    encoder_law_error: float = 0.0
    decoder_law_error: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it, of JSON types."""
        return asdict(self)
