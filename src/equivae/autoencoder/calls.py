"""How an autoencoder is called: by what its calls take and return, or through an adapter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from equivae.autoencoder.posteriors import drawn, is_posterior, mode_of
from equivae.errors import InputError

__all__ = [
    "Calls",
    "Decode",
    "Encode",
    "calls_of",
    "decode_by_output",
    "encode_by_output",
    "parameters_of",
    "register_adapter",
]

Encode = Callable[[nn.Module, Tensor, bool, "torch.Generator | None"], Tensor]
Decode = Callable[[nn.Module, Tensor], Tensor]
_LATENT_NAMES = ("latents", "latent")
_ADAPTERS: list[tuple[Callable[[nn.Module], bool], Encode, Decode]] = []
_HINT = "Teach the library this class with equivae.register_adapter(applies, encode, decode)."


@dataclass(frozen=True)
class Calls:
    """The pair of calls that the library makes on a module."""

    encode: Encode
    decode: Decode


def register_adapter(applies: Callable[[nn.Module], bool], encode: Encode, decode: Decode) -> None:
    """Teach the library an autoencoder whose calls it does not understand.

    Needed when a call takes more than the tensor, or when what it returns is no latent and no image;
    an adapter stands above everything that the library would find by itself.

    Args:
        applies: says whether a module is meant.
        encode: `(module, images, sample, generator) -> latents`, a tensor of the images' rank.
        decode: `(module, latents) -> images`, of the shape that `encode` took.

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


def calls_of(module: nn.Module) -> Calls:
    """The calls for a module; `InputError` if it has none, or needs arguments that nobody can guess."""
    for applies, encode, decode in _ADAPTERS:
        if applies(module):
            return Calls(encode, decode)
    for call in ("encode", "decode"):
        if not callable(getattr(module, call, None)):
            raise InputError(
                f"{type(module).__name__} is not an autoencoder: it has no `{call}` call. Pass a "
                "diffusers autoencoder, or a module with `encode(images)` and `decode(latents)`; "
                "for one whose calls have other names use equivae.register_adapter."
            )
    _require_no_more(module, "encode", ())
    _require_no_more(module, "decode", ("num_frames",))
    if "num_frames" in parameters_of(module, "decode"):
        return Calls(_encode_frames, _decode_frames)
    return Calls(encode_by_output, decode_by_output)


# Signatures -------------------------------------------------------------------------------------


def parameters_of(module: nn.Module, call: str) -> dict[str, inspect.Parameter]:
    """What a call takes after its tensor; nothing when it cannot be known."""
    try:
        bound: Any = getattr(module, call, None)
        parameters = list(inspect.signature(bound).parameters.values())
    except (TypeError, ValueError):
        return {}
    return {parameter.name: parameter for parameter in parameters[1:]}


def _require_no_more(module: nn.Module, call: str, known: Iterable[str]) -> None:
    missing = [
        name
        for name, parameter in parameters_of(module, call).items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in known
    ]
    if missing:
        raise InputError(
            f"`{call}` of {type(module).__name__} needs {', '.join(missing)} beside the tensor, which "
            f"the library cannot know. {_HINT}"
        )


# The calls --------------------------------------------------------------------------------------


def encode_by_output(
    module: Any, images: Tensor, sample: bool, generator: torch.Generator | None
) -> Tensor:
    options: dict[str, Any] = {}
    taken = parameters_of(module, "encode")
    if "sample_posterior" in taken:
        options["sample_posterior"] = sample
    if "generator" in taken:
        options["generator"] = generator
    return _latents_of(module.encode(images, **options), module, sample, generator)


def decode_by_output(module: Any, latents: Tensor) -> Tensor:
    options: dict[str, Any] = {}
    if "generator" in parameters_of(module, "decode"):
        # A decoder that draws noise gets the same noise every time, so that measurements repeat.
        options["generator"] = torch.Generator().manual_seed(0)
    return _images_of(module.decode(latents, **options), module)


def _encode_frames(
    module: Any, images: Tensor, sample: bool, generator: torch.Generator | None
) -> Tensor:
    """For a decoder that asks for `num_frames`: batch and frames share an axis in both calls."""
    if images.ndim != 5:
        return encode_by_output(module, images, sample, generator)
    folded = rearrange(images, "b c t h w -> (b t) c h w")
    latents = encode_by_output(module, folded, sample, generator)
    return rearrange(latents, "(b t) c h w -> b c t h w", b=images.shape[0])


def _decode_frames(module: Any, latents: Tensor) -> Tensor:
    if latents.ndim != 5:
        return _images_of(module.decode(latents, num_frames=1), module)
    folded = rearrange(latents, "b c t h w -> (b t) c h w")
    images = _images_of(module.decode(folded, num_frames=latents.shape[2]), module)
    return rearrange(images, "(b t) c h w -> b c t h w", b=latents.shape[0])


# What they return -------------------------------------------------------------------------------


def _latents_of(
    output: Any, module: nn.Module, sample: bool, generator: torch.Generator | None
) -> Tensor:
    """The latent in a posterior, in a named output, in a tuple such as (latents, codes), or bare."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    posterior = getattr(output, "latent_dist", output)
    if is_posterior(posterior):
        latents = drawn(posterior, generator) if sample else mode_of(posterior)
        return _require_tensor(latents, module, "encode")
    for name in _LATENT_NAMES:
        if hasattr(output, name):
            return _require_tensor(getattr(output, name), module, "encode")
    return _require_tensor(_only_tensor(output), module, "encode")


def _images_of(output: Any, module: nn.Module) -> Tensor:
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return _require_tensor(_only_tensor(getattr(output, "sample", output)), module, "decode")


def _only_tensor(output: Any) -> Any:
    """The one float tensor of an output class whose field has a name of its own."""
    if isinstance(output, Tensor) or not callable(getattr(output, "to_tuple", None)):
        return output
    found = [v for v in output.to_tuple() if isinstance(v, Tensor) and v.is_floating_point()]
    return found[0] if len(found) == 1 else output


def _require_tensor(value: Any, module: nn.Module, call: str) -> Tensor:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value
    expected = (
        "a posterior (`latent_dist`), `latents`, `latent` or a tensor"
        if call == "encode"
        else "`sample` or a tensor"
    )
    if isinstance(value, Tensor):
        what = f"{value.dtype} codes, through which no gradient passes"
    else:
        fields = [*value.keys()] if isinstance(value, dict) else []
        what = type(value).__name__ + (f" with {', '.join(map(str, fields))}" if fields else "")
    raise InputError(
        f"`{call}` of {type(module).__name__} returned {what}, expected {expected}. {_HINT}"
    )
