"""What a fit found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Candidate", "FitReport"]


@dataclass(frozen=True)
class Candidate:
    """One choice of operator on held-out images.

    Attributes:
        method: `"linear"`, `"network"`, `"decoded"` for a convolution after steps on the decoded error, or
            `"start"` and `"conjugation"`: one matrix for all cells, and the network that learnt from there.
        kernel_size: latent cells along a side.
        latent_error: `‖ρ E(x) - E(T x)‖ / ‖E(T x)‖`.
        decoded_psnr: PSNR in dB of `D(ρ E(x))` against `T x`, inside the mask; `None` if not decoded.
    """

    method: str
    kernel_size: int
    latent_error: float
    decoded_psnr: float | None = None


@dataclass(frozen=True, repr=False)
class FitReport:
    """How an operator was fitted, and how well it fits. Errors are on held-out images.

    Attributes:
        transform: the transform it was fitted for.
        method: `"linear"`, `"network"` or `"conjugation"`.
        kernel_size: latent cells along a side of the linear part.
        padding: how cells beyond the border are made up.
        ridge: the chosen one, relative to the mean variance of a patch entry; 0 for a conjugation.
        images: how many images, held-out ones included.
        cells: over how many latent cells the least squares ran, of all images and places: each is an equation
            for every channel, so that the weights need fewer than these.
        held_out_images: how many chose the ridge.
        grid_error: `‖S E(x) - E(T x)‖ / ‖E(T x)‖`, how far the plain latent op `S` is from the latent of the
            transformed image; 0 for a perfect op, about 1 for one that is no better than zeros.
        latent_error: the same with the operator, `‖ρ E(x) - E(T x)‖ / ‖E(T x)‖`.
        inverse_latent_error: that of the inverse operator; `None` for an involution and without one.
        inverse_consistency: `‖ρ⁻¹ ρ z - z‖ / ‖z‖`, by how much a latent changes when the op and then its
            inverse are applied; 0 if they undo each other exactly, `None` without an inverse.
        candidates: the evidence behind the choice of kernel size.
        seconds: what the fit took.
        decoded_psnr: PSNR in dB of what the held-out latents decode to; `None` if not decoded.
        plain_decoded_psnr: that of the plain latent op, decoded where the fit is not clearly nearer.
        is_plain: whether the op is the plain one, because the fit lost to it.
        interpolates: whether the latent is interpolated first, because the cells were too few for a filter
            for every phase.
    """

    transform: str
    method: str
    kernel_size: int
    padding: str
    ridge: float
    images: int
    cells: int
    held_out_images: int
    grid_error: float
    latent_error: float
    inverse_latent_error: float | None = None
    inverse_consistency: float | None = None
    candidates: list[Candidate] = field(default_factory=list)
    seconds: float = 0.0
    objective: str = "latent"
    decoded_psnr: float | None = None
    plain_decoded_psnr: float | None = None
    is_plain: bool = False
    interpolates: bool = False

    def __post_init__(self) -> None:
        made = [c if isinstance(c, Candidate) else Candidate(**c) for c in self.candidates]
        object.__setattr__(self, "candidates", made)

    def to_dict(self) -> dict[str, Any]:
        """All of it, of JSON types."""
        return asdict(self)

    def summary(self) -> str:
        """A few lines of text: `to_markdown` without the candidates."""
        return self.to_markdown().partition("\n\n|")[0].rstrip()

    def __repr__(self) -> str:
        return self.summary()

    def to_markdown(self) -> str:
        """The fit in a line, how well the law of the group holds, and a table of the candidates."""
        lines = [
            f"{self.transform}: {self.method}, kernel {self.kernel_size}, {self.images} images, "
            f"{self.seconds:.0f} s; latent error {self.latent_error:.3f} "
            f"(plain latent op {self.grid_error:.3f})."
        ]
        if self.plain_decoded_psnr is not None:
            lines.append(
                f"Held-out images decode at {self.decoded_psnr:.2f} dB, by the plain latent op at "
                f"{self.plain_decoded_psnr:.2f} dB."
            )
        if self.is_plain:
            lines.append("The fit lost to the plain latent op, which was returned instead.")
        elif self.interpolates:
            lines.append(
                f"{self.cells} cells are too few for a filter for every phase, so the latent is interpolated "
                "first; more or larger images give each phase its own."
            )
        if self.inverse_consistency is not None:
            lines.append(
                "Applied and then inverted, the latent op changes latents by "
                f"{self.inverse_consistency:.2g} of their norm; with an exact group law that is 0."
            )
        if self.candidates:
            lines += ["", "| operator | latent error | decoded PSNR |", "|---|---|---|"]
        for one in self.candidates:
            decoded = "" if one.decoded_psnr is None else f"{one.decoded_psnr:.2f} dB"
            label = f"{one.method} {one.kernel_size}x{one.kernel_size}"
            lines.append(f"| {label} | {one.latent_error:.3f} | {decoded} |")
        return "\n".join(lines) + "\n"
