"""Images that are a tensor already."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from equivae.autoencoder import check_images
from equivae.data.base import Source, digest_of
from equivae.data.preparing import Preparing
from equivae.errors import InputError

__all__ = ["TensorSource"]


class TensorSource(Source):
    """A tensor `(N, C, H, W)` in [-1, 1], videos `(N, C, T, H, W)` or audio `(N, C, T)`."""

    def __init__(self, images: Tensor, preparing: Preparing) -> None:
        check_images(images)
        channels = preparing.channels
        if images.ndim == 3 and images.shape[1] != channels:
            raise InputError(
                f"images must be a tensor (N, {channels}, H, W), or audio (N, {channels}, T); got "
                f"{tuple(images.shape)}."
            )
        self._images, self._preparing = images, preparing
        self.names = [f"#{i}" for i in range(len(images))]

    def read(self, index: int) -> Tensor:
        return self._preparing(self._images[index], self.names[index])

    def raw(self, index: int) -> Tensor:
        """The image before it is prepared."""
        return self._images[index]

    def sides(self, index: int) -> tuple[int, int] | None:
        height, width = self._images.shape[-2:]
        return int(height), int(width)

    def about(self) -> str:
        return f"tensor {replace(self._preparing, column=None)}"

    def marks(self) -> list[str]:
        return [digest_of(image) for image in self._images]
