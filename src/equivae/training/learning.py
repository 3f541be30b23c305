"""Which weights of a VAE learn under the options: by half, without those that are frozen by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from torch import nn

from equivae.autoencoder import Autoencoder
from equivae.errors import InputError, did_you_mean
from equivae.options import quoted
from equivae.training.options import LearningOptions

__all__ = ["learning_names", "lora_targets"]

_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def learning_names(vae: Autoencoder, options: LearningOptions) -> list[str]:
    """The names of the weights that learn, or beside which low-rank factors do, in the module's order.

    Raises `InputError` where none is left, and for a pattern of `freeze` that matches nothing.
    """
    geometry = vae.geometry
    chosen = {
        "all": geometry.encoder_parameters | geometry.decoder_parameters,
        "encoder": geometry.encoder_parameters,
        "decoder": geometry.decoder_parameters,
    }[options.half]
    every = [name for name, _ in vae.module.named_parameters()]
    frozen = _matched("freeze", options.freeze, [*every, *_parents(every)])
    found = [name for name in every if name in chosen]
    if not found:
        raise InputError(
            f"train={options.train!r} leaves nothing to learn: {type(vae.module).__name__} has no such "
            "weights."
        )
    left = [name for name in found if not _under(name, frozen)]
    if not left:
        raise InputError(
            f"freeze={quoted(options.freeze)} leaves nothing to learn of the {len(found)} weights "
            f"that train={options.train!r} chooses; name fewer layers."
        )
    return left


def lora_targets(vae: Autoencoder, options: LearningOptions) -> list[str]:
    """The names of the layers that get low-rank factors: plain convolutions and linear layers.

    Raises `InputError` where there is none, and for a pattern of `lora_target_modules` that matches nothing.
    """
    learning = set(learning_names(vae, options))
    layers = [
        name
        for name, layer in vae.module.named_modules()
        if _takes_factors(layer) and f"{name}.weight" in learning
    ]
    if not layers:
        raise InputError(
            f"{type(vae.module).__name__} has no plain convolution or linear layer that learns under "
            f"train={options.train!r}, so none can get low-rank factors; leave lora_rank out."
        )
    wanted = options.lora_target_modules
    if not wanted:
        return layers
    ends = {".".join(name.split(".")[i:]) for name in layers for i in range(name.count(".") + 1)}
    named = _matched("lora_target_modules", wanted, [*ends, *_parents(layers)])
    return [name for name in layers if _under(name, named) or _ends(name) & named]


def _takes_factors(layer: nn.Module) -> bool:
    """Whether its forward is torch's own: factors beside one that pads by itself would see another input."""
    if getattr(layer, "groups", 1) != 1 or not isinstance(layer, _PLAIN):
        return False
    return any(type(layer).forward is kind.forward for kind in _PLAIN)


def _matched(option: str, patterns: Iterable[str], names: Collection[str]) -> set[str]:
    """The names that any of the patterns matches; every pattern has to match one."""
    found: set[str] = set()
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            near = did_you_mean(pattern.strip("*."), sorted(names))
            near = near if near.startswith(" Did") else f" There are {_some(names)}."
            raise InputError(f"{option}={quoted(pattern)} matches no layer of this VAE.{near}")
        found.update(matching)
    return found


def _some(names: Collection[str]) -> str:
    """The names nearest to the top, as many as a sentence takes."""
    high = sorted(names, key=lambda name: (name.count("."), name))[:6]
    return ", ".join(map(repr, high)) + (" and others" if len(names) > len(high) else "")


def _parents(names: Iterable[str]) -> list[str]:
    """The parts of a module that names lie in."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        found.update(dict.fromkeys(".".join(parts[:i]) for i in range(1, len(parts))))
    return list(found)


def _under(name: str, parts: set[str]) -> bool:
    return name in parts or any(parent in parts for parent in _parents([name]))


def _ends(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[i:]) for i in range(len(parts))}
