"""What a run did, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["CacheReport", "Check"]


@dataclass(frozen=True)
class Check:
    """How far moved latents are from the latents of moved images, `‖a - b‖ / ‖b‖` over all of them.

    Attributes:
        images: that were encoded again.
        fitted: error of the latent op.
        plain: error of the plain latent op.
        unmoved: error of the cache itself against encoding the images again: the floor, from the sampled
            posterior and from another resizing than the tool's.
    """

    images: int
    fitted: float
    plain: float
    unmoved: float


@dataclass(frozen=True)
class CacheReport:
    """What `equivae.caches.transform` found and did.

    Attributes:
        format: of the cache.
        transform: that was applied.
        files: of the cache.
        latents: that were moved and written; with `dry_run`, that would have been, where that is known
            without reading them: files.
        written: files that got moved latents.
        done: files that had them already.
        kept: files that hold the tool's own flipped latents, which are originals.
        output_dir: where the moved latents are, if not in the cache.
        dry_run: whether nothing was written.
        seconds: that it took.
        check: what re-encoding said.
        taken: whether the latents were taken as scaled, and why.
    """

    format: str
    transform: str
    files: int
    written: int
    latents: int
    done: int
    kept: int
    output_dir: str | None
    dry_run: bool
    seconds: float
    check: Check | None = None
    taken: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        would = "would be " if self.dry_run else ""
        lines = [f"{self.format}: {self.files} files, {self.transform}"]
        if self.taken:
            lines.append(self.taken)
        lines.append(
            f"{self.written} {would}written" + (f" to {self.output_dir}" if self.output_dir else "")
        )
        if self.done:
            lines.append(f"{self.done} had them already")
        if self.kept:
            lines.append(
                f"{self.kept} hold the tool's own flipped latents and were left as they are"
            )
        if not self.dry_run and self.latents:
            lines.append(
                f"{self.latents} latents in {self.seconds:.1f} s, {self.latents / self.seconds:.0f} a "
                "second"
            )
        if self.check is not None:
            lines.append(
                f"relative error against encoding {self.check.images} moved images: latent op "
                f"{self.check.fitted:.3f}, "
                f"plain {self.check.plain:.3f} (the cache itself {self.check.unmoved:.3f})"
            )
        return "\n".join(lines)
