"""The view of an autoencoder that the rest of the library works with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder.calls import calls_of, encode_by_output
from equivae.autoencoder.geometry import Geometry, Layout
from equivae.autoencoder.modes import differentiable, require_differentiable
from equivae.autoencoder.posteriors import gaussian_of
from equivae.autoencoder.precision import (
    has_mixed_dtypes,
    in_full_precision,
    outside_fp16_autocast,
    working_dtype,
)
from equivae.autoencoder.probe import has_frames, probe
from equivae.errors import InputError
from equivae.transforms.base import Transform

__all__ = ["Autoencoder"]


class Autoencoder:
    """A view of any autoencoder with one pair of calls; the module itself is neither patched nor copied.

    Args:
        module: a diffusers autoencoder, or any `nn.Module` whose `encode` takes images `(B, C, H, W)`,
            videos `(B, C, T, H, W)` or audio `(B, C, T)` in [-1, 1] and whose `decode` takes the latents.

    A video autoencoder takes images too, as videos of one frame, and gives their latents as
    `(B, c, h, w)`. Where its config has `force_upcast`, fp16 autocast is switched off for the calls.

    Raises `InputError` for a module without the two calls, or whose calls need arguments beside the
    tensor (`register_adapter` teaches the library such a class), and for weights that were made under
    `torch.inference_mode`.

    ```python
    import torch

    import equivae

    vae = equivae.Autoencoder(equivae.zoo.load())
    latent = vae.encode(torch.zeros(1, 3, 64, 64))
    assert vae.layout == "image"
    assert latent.shape == (1, vae.latent_channels, 64 // vae.factor, 64 // vae.factor)
    assert vae.decode(latent).shape == (1, 3, 64, 64)
    ```
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._calls = calls_of(module)
        require_differentiable(module)
        self._probed = False

    def encode(
        self, images: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Latents of the images' rank, `(B, c, h, w)` for `(B, C, H, W)`, before any scaling factor.

        Args:
            images: images, videos or audio in [-1, 1].
            sample: draw from the posterior instead of taking its mode. Ignored by autoencoders
                without a posterior.
            generator: makes the draw repeatable.
        """

        def call(batch: Tensor) -> Tensor:
            return self._calls.encode(self.module, _dense(batch), sample, generator)

        with outside_fp16_autocast(self.module, images) as given:
            return self._as_frames(self._suited(given, self.encoder_parameters), call)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the images' posterior, each of the latents' shape.

        Raises `InputError` for an autoencoder whose `encode` gives no Gaussian.
        """

        def call(batch: Tensor) -> Tensor:
            module: Any = self.module
            found = gaussian_of(module.encode(_dense(batch))) if self.direct else None
            if found is None:
                raise InputError(
                    f"{type(module).__name__} has no posterior with a mean and a variance; its `encode` "
                    "gives plain latents."
                )
            return torch.cat(found, 1)

        with outside_fp16_autocast(self.module, images) as given:
            both = self._as_frames(self._suited(given, self.encoder_parameters), call)
        mean, logvar = both.chunk(2, 1)
        return mean, logvar

    def decode(self, latents: Tensor, *, chunk_size: int | None = None) -> Tensor:
        """Images, videos or audio of latents as `encode` returns them; not clamped.

        Args:
            latents: `(B, c, h, w)`, `(B, c, t, h, w)` or `(B, c, t)`.
            chunk_size: decode at most so many at a time, to save memory.
        """
        with outside_fp16_autocast(self.module, latents) as given:
            given = self._suited(given, self.decoder_parameters)
            parts = [given] if chunk_size is None else torch.split(given, chunk_size)
            images = [self._as_frames(part, self._decode) for part in parts]
        return images[0] if len(images) == 1 else torch.cat(images)

    def _decode(self, latents: Tensor) -> Tensor:
        images = self._calls.decode(self.module, _dense(latents))
        if latents.ndim == 5 and self.geometry.frames_first:
            images = images.transpose(1, 2)
        return images

    def _suited(self, given: Tensor, half: Callable[[], list[nn.Parameter]]) -> Tensor:
        """In the dtype of the half that gets it, where the two halves' differ and no autocast sees to it."""
        if torch.is_autocast_enabled(given.device.type) or not has_mixed_dtypes(self.module):
            return given
        return given.to(working_dtype(half(), given.dtype))

    def _as_frames(self, batch: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        """Images as videos of one frame, where the calls want those."""
        if batch.ndim != 4:
            return call(batch)
        # The probe costs an encode and a decode, which a plain image autoencoder does without.
        if not self._probed and not has_frames(self.module):
            try:
                return call(batch)
            except Exception:
                if not self._wants_frames:
                    raise
        elif not self._wants_frames:
            return call(batch)
        return call(batch.unsqueeze(2)).squeeze(2)

    @property
    def direct(self) -> bool:
        """Whether the module's own `encode` takes what this one does, with no adapter between."""
        return self._calls.encode is encode_by_output

    @property
    def _wants_frames(self) -> bool:
        return self.layout == "video" or self.geometry.framed

    def place(self, transform: Transform) -> Transform:
        """The transform at this autoencoder's `factor` and `time_factor`."""
        return transform.at_factor(self.factor, self.time_factor)

    def full_precision(self) -> AbstractContextManager[None]:
        """Within it, float16 weights are float32 if the config has `force_upcast`; then as they were.

        For measuring and fitting; not for training, whose steps it would undo.
        """
        return in_full_precision(self.module)

    @property
    def layout(self) -> Layout:
        """`"image"`, `"video"` or `"audio"`: what its calls take."""
        return self.geometry.layout

    @property
    def factor(self) -> int:
        """How many pixels one latent cell spans along an axis, `H / h`; 1 for audio."""
        return self.geometry.factor

    @property
    def time_factor(self) -> int | None:
        """How many frames, or audio samples, one more latent step spans; `None` for images."""
        return self.geometry.time_factor

    @property
    def latent_channels(self) -> int:
        return self.geometry.latent_channels

    @property
    def image_channels(self) -> int:
        return self.geometry.image_channels

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The parameters that the latent depends on."""
        return self._named(self.geometry.encoder_parameters)

    def decoder_parameters(self) -> list[nn.Parameter]:
        """The parameters that a decoded image depends on, the latent given."""
        return self._named(self.geometry.decoder_parameters)

    def _named(self, names: frozenset[str]) -> list[nn.Parameter]:
        return [p for name, p in self.module.named_parameters() if name in names]

    @property
    def device(self) -> torch.device:
        return self._like.device

    @property
    def dtype(self) -> torch.dtype:
        return self._like.dtype

    @property
    def _like(self) -> Tensor:
        return next(self.module.parameters(), torch.empty(0))

    @property
    def geometry(self) -> Geometry:
        """Found by encoding and decoding something small, once for as long as the layers are the same."""
        found = probe(self.module, self._calls)
        self._probed = True
        return found


def _dense(tensor: Tensor) -> Tensor:
    """A moved tensor is a view, and some modules reshape what they get as if it were none."""
    tensor = differentiable(tensor)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    kept = formats.get(tensor.ndim)
    if kept is not None and tensor.is_contiguous(memory_format=kept):
        return tensor
    return tensor.contiguous()
