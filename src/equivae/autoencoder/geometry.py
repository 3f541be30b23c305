"""What a probe finds out about an autoencoder: layout, how cells tile the images, whose weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["LAYOUTS", "Axis", "Geometry", "Layout"]

Layout = Literal["image", "video", "audio"]

# Tensor ranks by layout, and how their shapes are written.
LAYOUTS: dict[Layout, tuple[int, str]] = {
    "image": (4, "(B, C, H, W)"),
    "video": (5, "(B, C, T, H, W)"),
    "audio": (3, "(B, C, T)"),
}


@dataclass(frozen=True)
class Axis:
    """How the latent cells of one axis tile its pixels, frames or samples.

    Attributes:
        step: how many one more latent cell spans; `None` when the cells are no regular tiling.
        first: how many the first cell spans: as many as the others, or 1 in a causal autoencoder,
            which maps `step * k + 1` frames to `k + 1` cells.
    """

    step: int | None
    first: int | None

    @property
    def even(self) -> bool:
        """Whether all cells span alike, so that the axis can be reversed, shifted and exchanged."""
        return self.step is not None and self.step == self.first

    def takes(self, size: int) -> bool:
        """Whether `size` pixels, frames or samples are whole cells."""
        if self.step is None or self.first is None:
            return True
        return size >= self.first and (size - self.first) % self.step == 0

    def fitting(self, size: int) -> int:
        """The largest size up to `size` that is whole cells, at least one."""
        if self.step is None or self.first is None:
            return size
        return self.first + max(0, (size - self.first) // self.step) * self.step

    @classmethod
    def of(cls, size: int, cells: int) -> Axis:
        """The axis on which `size` became `cells`."""
        if cells > 0 and size % cells == 0:
            return cls(size // cells, size // cells)
        if cells > 1 and (size - 1) % (cells - 1) == 0:
            return cls((size - 1) // (cells - 1), 1)
        return cls(None, None)


@dataclass(frozen=True)
class Geometry:
    """What a probe found.

    Attributes:
        layout: `"image"` `(B, C, H, W)`, `"video"` `(B, C, T, H, W)` or `"audio"` `(B, C, T)`.
        axes: one `Axis` for each axis after the channels: `(H, W)`, `(T, H, W)` or `(T,)`.
        image_channels: channels of the images, videos or waves.
        latent_channels: channels of the latents.
        encoder_parameters: names of the weights that the latent depends on.
        decoder_parameters: names of the weights that a decoded image depends on, the latent given.
        framed: whether the calls want images as videos of one frame.
        frames_first: whether `decode` returns videos as `(B, T, C, H, W)`.
    """

    layout: Layout
    axes: tuple[Axis, ...]
    image_channels: int
    latent_channels: int
    encoder_parameters: frozenset[str]
    decoder_parameters: frozenset[str]
    framed: bool = False
    frames_first: bool = False

    @property
    def factor(self) -> int:
        """Pixels per latent cell, `H / h`; 1 for audio, which has no pixels."""
        return 1 if self.layout == "audio" else self.axes[-1].step or 1

    @property
    def time(self) -> Axis | None:
        """The time axis of video and audio."""
        return None if self.layout == "image" else self.axes[0]

    @property
    def time_factor(self) -> int | None:
        """Frames, or audio samples, that one more latent step spans; `None` without such a number."""
        return None if self.time is None else self.time.step
