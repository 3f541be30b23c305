"""The one seam to a VAE: everything else in the library encodes and decodes through it.

Autoencoders are recognised by what their calls return, never by their class, so a new diffusers class
or a module of your own works when its `encode` returns a posterior, a latent or an output that holds
one, and its `decode` an image or an output that holds one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equivae.errors import InputError

__all__ = ["Autoencoder", "Geometry", "check_images", "check_resolution", "register_adapter"]

_LATENT_NAMES = ("latents", "latent")
_PROBE_SIDES = (64, 128, 256, 512)


@dataclass(frozen=True)
class Geometry:
    """What a probe found: `factor = H / h`, channels of images and latents, and whose weights are whose."""

    factor: int
    image_channels: int
    latent_channels: int
    encoder_parameters: frozenset[str]
    decoder_parameters: frozenset[str]


class Autoencoder:
    """A view of any autoencoder with one pair of calls; the module itself is neither patched nor copied.

    Args:
        module: a diffusers autoencoder, or any `nn.Module` whose `encode` takes images `(B, C, H, W)`
            in [-1, 1] and whose `decode` takes the latents.

    Raises `InputError` for a module without the two calls.

    ```python
    import torch

    import equivae

    vae = equivae.Autoencoder(equivae.zoo.load())
    latent = vae.encode(torch.zeros(1, 3, 64, 64))
    assert latent.shape == (1, vae.latent_channels, 64 // vae.factor, 64 // vae.factor)
    assert vae.decode(latent).shape == (1, 3, 64, 64)
    ```
    """

    def __init__(self, module: nn.Module) -> None:
        for call in ("encode", "decode"):
            if not callable(getattr(module, call, None)):
                raise InputError(
                    f"{type(module).__name__} is no autoencoder: it has no `{call}` call. Pass a "
                    "diffusers autoencoder, or a module with `encode(images)` and `decode(latents)`."
                )
        self.module = module
        self._encode, self._decode = _adapter_for(module)
        self._geometry: Geometry | None = None

    def encode(
        self, images: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Latents `(B, c, h, w)` of images `(B, C, H, W)` in [-1, 1], before any scaling factor.

        Args:
            images: the images.
            sample: draw from the posterior instead of taking its mode. Ignored by autoencoders
                without a posterior.
            generator: makes the draw repeatable.
        """
        return self._encode(self.module, images, sample, generator)

    def decode(self, latents: Tensor, *, chunk_size: int | None = None) -> Tensor:
        """Images `(B, C, H, W)` of latents `(B, c, h, w)`; not clamped.

        Args:
            latents: latents as `encode` returns them.
            chunk_size: decode at most so many at a time, to save memory.
        """
        if chunk_size is None or latents.shape[0] <= chunk_size:
            return self._decode(self.module, latents)
        return torch.cat(
            [self._decode(self.module, part) for part in torch.split(latents, chunk_size)]
        )

    @property
    def factor(self) -> int:
        """How many pixels one latent cell spans along an axis, `H / h`."""
        return self.geometry.factor

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
        """Found by encoding and decoding one small image, once."""
        if self._geometry is None:
            self._geometry = _probe(self)
        return self._geometry


# Adapters ---------------------------------------------------------------------------------------

Encode = Callable[[nn.Module, Tensor, bool, "torch.Generator | None"], Tensor]
Decode = Callable[[nn.Module, Tensor], Tensor]
_ADAPTERS: list[tuple[Callable[[nn.Module], bool], Encode, Decode]] = []


def register_adapter(applies: Callable[[nn.Module], bool], encode: Encode, decode: Decode) -> None:
    """Teach the library an autoencoder whose calls it does not understand.

    Args:
        applies: says whether a module is meant.
        encode: `(module, images, sample, generator) -> latents`.
        decode: `(module, latents) -> images`.

    ```python
    import equivae

    equivae.register_adapter(
        lambda module: type(module).__name__ == "MyCodec",
        encode=lambda module, images, sample, generator: module.to_code(images),
        decode=lambda module, latents: module.from_code(latents),
    )
    ```
    """
    _ADAPTERS.insert(0, (applies, encode, decode))


def _adapter_for(module: nn.Module) -> tuple[Encode, Decode]:
    for applies, encode, decode in _ADAPTERS:
        if applies(module):
            return encode, decode
    return _encode_by_output, _decode_by_output


def _encode_by_output(
    module: Any, images: Tensor, sample: bool, generator: torch.Generator | None
) -> Tensor:
    output = module.encode(images)
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    posterior = getattr(output, "latent_dist", output)
    if hasattr(posterior, "sample") and hasattr(posterior, "mode"):
        latents = posterior.sample(generator=generator) if sample else posterior.mode()
        return _require_tensor(latents, module, "encode")
    for name in _LATENT_NAMES:
        if hasattr(output, name):
            return _require_tensor(getattr(output, name), module, "encode")
    return _require_tensor(output, module, "encode")


def _decode_by_output(module: Any, latents: Tensor) -> Tensor:
    output = module.decode(latents)
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return _require_tensor(getattr(output, "sample", output), module, "decode")


def _require_tensor(value: Any, module: nn.Module, call: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    expected = (
        "a posterior (`latent_dist`), `latents`, `latent` or a tensor"
        if call == "encode"
        else "`sample` or a tensor"
    )
    raise InputError(
        f"`{call}` of {type(module).__name__} returned {type(value).__name__}, expected {expected}; "
        "teach the library this class with equivae.register_adapter."
    )


# The probe --------------------------------------------------------------------------------------


def _probe(vae: Autoencoder) -> Geometry:
    candidates = _image_channels(vae.module)
    failure: Exception | None = None
    for channels in candidates:
        for side in _PROBE_SIDES:
            try:
                return _probe_at(vae, channels, side)
            except InputError:
                raise
            except Exception as error:  # a side or channels that this architecture cannot take
                failure = failure or error
    raise InputError(
        f"{type(vae.module).__name__} could neither encode nor decode an image of {candidates[0]} "
        f"channels at sides {_PROBE_SIDES}: {failure}"
    ) from failure


def _probe_at(vae: Autoencoder, channels: int, side: int) -> Geometry:
    """Encode and decode once; the parameters that gradients reach are each half's own."""
    named = dict(vae.module.named_parameters())
    image = torch.zeros(1, channels, side, side, device=vae.device, dtype=vae.dtype)
    with _requiring_grad(vae.module), torch.enable_grad():
        latent = vae.encode(image)
        encoder = _reached(latent, named)
        decoded = vae.decode(latent.detach())
        decoder = _reached(decoded, named)
    if latent.ndim != 4 or decoded.ndim != 4:
        raise InputError(
            f"{type(vae.module).__name__} has latents of shape {tuple(latent.shape)} and images of shape "
            f"{tuple(decoded.shape)}; this version handles images (B, C, H, W) alone."
        )
    if side % latent.shape[-1] or latent.shape[-1] != latent.shape[-2]:
        raise InputError(
            f"{type(vae.module).__name__} maps {side}x{side} pixels to {tuple(latent.shape[-2:])} "
            "latent cells, which is no whole factor."
        )
    return Geometry(side // latent.shape[-1], channels, latent.shape[1], encoder, decoder)


def _reached(output: Tensor, named: dict[str, nn.Parameter]) -> frozenset[str]:
    if not output.requires_grad:
        return frozenset()
    gradients = torch.autograd.grad(output.float().sum(), list(named.values()), allow_unused=True)
    return frozenset(n for n, g in zip(named, gradients, strict=True) if g is not None)


@contextmanager
def _requiring_grad(module: nn.Module) -> Iterator[None]:
    """Every parameter requires a gradient and nothing is in training mode; then all as it was."""
    wanted = [(p, p.requires_grad) for p in module.parameters()]
    modes = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(parameter.is_floating_point())
        yield
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)
        for part, training in modes:
            part.training = training


def _image_channels(module: nn.Module) -> list[int]:
    """What the images may have, the likeliest first: nothing says whose the first convolution is."""
    config = getattr(module, "config", None)
    configured = getattr(config, "in_channels", None)
    if isinstance(configured, int):
        return [configured]
    first = next((m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)), 3)
    usual = [3, 1, 4]
    return [first, *(n for n in usual if n != first)] if first in usual else usual


# Images -----------------------------------------------------------------------------------------


def check_images(images: Tensor, vae: Autoencoder | None = None) -> None:
    """Raise `InputError` unless `images` is a float tensor `(B, C, H, W)`, finite and in [-1, 1].

    With a `vae`, the channels have to be its own and the sides multiples of its factor. Values up to
    0.05 outside the range pass, because resampling filters overshoot.
    """
    if not isinstance(images, Tensor) or images.ndim != 4:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images must be a tensor (B, C, H, W), got {shape}.")
    if not images.is_floating_point():
        raise InputError(
            f"images must be floating point in [-1, 1], got {images.dtype}; for bytes use "
            "images.float().div(127.5).sub(1)."
        )
    if images.numel() == 0:
        raise InputError(f"images of shape {tuple(images.shape)} hold no pixel.")
    low, high = (float(value) for value in images.aminmax())
    if not (-float("inf") < low and high < float("inf")):  # false for NaN as well
        bad = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise InputError(f"images hold NaN or infinite values, at batch positions {bad[:5]}.")
    if low < -1.05 or high > 1.05:
        raise InputError(
            f"images must lie in [-1, 1], got values from {low:.3g} to {high:.3g}; for [0, 255] use "
            "images.float().div(127.5).sub(1)."
        )
    if vae is None:
        return
    if images.shape[1] != vae.image_channels:
        raise InputError(
            f"images have {images.shape[1]} channels, {type(vae.module).__name__} takes "
            f"{vae.image_channels}."
        )
    height, width = images.shape[-2:]
    if height % vae.factor or width % vae.factor:
        fitting = [max(1, side // vae.factor) * vae.factor for side in (height, width)]
        raise InputError(
            f"images of {height}x{width} pixels do not divide by the VAE's factor {vae.factor}; crop "
            f"or resize them, to {fitting[0]}x{fitting[1]} for example."
        )


def check_resolution(resolution: int | None, vae: Autoencoder) -> None:
    """Raise `InputError` unless the resolution divides by the VAE's factor."""
    if resolution is not None and (resolution < 1 or resolution % vae.factor):
        near = max(1, round(resolution / vae.factor)) * vae.factor
        raise InputError(
            f"resolution {resolution} does not divide by the VAE's factor {vae.factor}; use {near}, "
            "for example."
        )
