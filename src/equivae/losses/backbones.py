"""Pretrained vision backbones of transformers, timm and diffusers, by name, folder or module."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.autoencoder import copy_module
from equivae.errors import InputError, did_you_mean, first_line

__all__ = ["Backbone", "load_backbone"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5,) * 3, (0.5,) * 3)
_WEIGHTS = "model.safetensors"


class Backbone(nn.Module):
    """A network and the layers whose outputs are its features.

    Args:
        network: takes images `(B, 3, H, W)`.
        layers: names of its parts, or places in the list of features that the network gives by itself.
        mean: of the images that it takes, by channel, in [0, 1].
        std: of the images that it takes.
        multiple: sides that it takes are multiples of this.
        own: the features that the network gives by itself.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[int | str],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        multiple: int = 1,
        own: Callable[[nn.Module, Tensor], Sequence[Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.layers, self.multiple, self.own = network, layers, multiple, own
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features of images in [-1, 1], in the order of the layers."""
        images = (images / 2 + 0.5 - self.mean) / self.std
        size = [-(-side // self.multiple) * self.multiple for side in images.shape[-2:]]
        if size != list(images.shape[-2:]):
            images = F.interpolate(images, size=size, mode="bicubic", align_corners=False)
        if self.own is None:
            return self._watched(images)
        every = self.own(self.network, images)
        return [every[int(place)] for place in self.layers]

    def _watched(self, images: Tensor) -> list[Tensor]:
        parts, found = dict(self.network.named_modules()), {}

        def keep(name: str) -> Callable[..., None]:
            def note(part: nn.Module, inputs: Any, output: Any) -> None:
                found[name] = output[0] if isinstance(output, (tuple, list)) else output

            return note

        handles = [parts[str(n)].register_forward_hook(keep(str(n))) for n in self.layers]
        try:
            self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        return [found[str(name)] for name in self.layers]


@dataclass(frozen=True)
class _Found:
    """A network as it was loaded."""

    network: nn.Module
    mean: Sequence[float] = _IMAGENET[0]
    std: Sequence[float] = _IMAGENET[1]
    own: Callable[[nn.Module, Tensor], Sequence[Tensor]] | None = None


def load_backbone(source: Any, layers: Sequence[int | str] | None) -> Backbone:
    """The backbone that a name on the hub, a folder or a module stands for; no code of others runs.

    Args:
        source: a folder with `config.json` and `model.safetensors` of transformers, timm or diffusers, a
            repository of that kind on the hub, or a module that takes images `(B, 3, H, W)`, of which a copy
            is made.
        layers: names of parts as in `named_modules`, or places in the list of features that transformers
            (`hidden_states`) and timm (`forward_intermediates`) give; the last feature, or for other
            modules what they return, unless given.

    Raises `InputError` for what cannot be loaded, with the package or the command that is missing, and for
    layers that it does not have.
    """
    if isinstance(source, nn.Module):
        found = _Found(copy_module(source), own=_own_of(source))
    else:
        found = _from_folder(_folder(source), str(source))
    layers = list(layers) if layers is not None else ([-1] if found.own else [""])
    named = [name for name in layers if isinstance(name, str)]
    if named and len(named) < len(layers):
        raise InputError(
            f"layers of the term 'perceptual' are names or places, not both, got {layers}."
        )
    known = [name for name, _ in found.network.named_modules()]
    for name in named:
        if name not in known:
            raise InputError(
                f"the backbone {_short(source)} has no layer {name!r}.{did_you_mean(name, known[1:])}"
            )
    if not named and found.own is None:
        raise InputError(
            f"the backbone {_short(source)} lists no features of its own; pass layers by name, such as "
            f"{known[-1]!r}."
        )
    own = None if named else found.own
    multiple = _multiple(found.network)
    backbone = Backbone(found.network, layers, found.mean, found.std, multiple=multiple, own=own)
    backbone.eval().requires_grad_(False)
    _try(backbone, source)
    return backbone


@torch.no_grad()
def _try(backbone: Backbone, source: Any) -> None:
    try:
        features = backbone(torch.zeros(1, 3, 64, 64))
    except IndexError as error:
        raise InputError(
            f"the backbone {_short(source)} has no features at the places {backbone.layers}; pass lower ones."
        ) from error
    if not all(isinstance(one, Tensor) and one.ndim in (3, 4) for one in features):
        raise InputError(
            f"layers {backbone.layers} of {_short(source)} give no features (B, C, h, w) or (B, tokens, C); "
            "choose others."
        )


def _folder(source: Any) -> Path:
    """The folder itself, or that of a repository's configuration and weights on the hub."""
    folder = Path(str(source))
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or str(source).count("/") != 1:
        raise InputError(
            f"backbone {str(source)!r} is neither a folder nor a repository on the hub ('owner/name'); pass "
            "one of them, or a module."
        )
    from huggingface_hub import snapshot_download

    patterns = ["config.json", "preprocessor_config.json", "*.safetensors"]
    try:
        return Path(snapshot_download(str(source), allow_patterns=patterns))
    except Exception as error:
        raise InputError(
            f"backbone {str(source)!r} is not available ({first_line(error)}); `hf download {source}` where "
            "there is a network and pass the folder, or pass another."
        ) from error


def _from_folder(folder: Path, source: str) -> _Found:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"backbone {source!r} has no config.json that can be read ({first_line(error)}); pass a folder "
            "of transformers, timm or diffusers."
        ) from error
    if not list(folder.glob("*.safetensors")):
        raise InputError(
            f"backbone {source!r} has no weights as .safetensors, and others are not loaded; save it with "
            "safe_serialization=True."
        )
    kinds = {"model_type": _transformers, "architecture": _timm, "_class_name": _diffusers}
    for key, load in kinds.items():
        if key in config:
            try:
                return load(folder, config)
            except ImportError as error:
                raise InputError(
                    f"backbone {source!r} needs {load.__name__[1:]} ({first_line(error)}); pip install "
                    "'equivae[perceptual]'."
                ) from error
            except Exception as error:
                raise InputError(
                    f"backbone {source!r} cannot be loaded ({first_line(error)}); pass another."
                ) from error
    raise InputError(
        f"backbone {source!r} says neither of transformers nor of timm nor of diffusers in its config.json; "
        "pass the module itself."
    )


def _transformers(folder: Path, config: dict[str, Any]) -> _Found:
    from transformers import AutoModel

    network = AutoModel.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    mean, std = _IMAGENET
    path = folder / "preprocessor_config.json"
    if path.is_file():
        prepared = json.loads(path.read_text(encoding="utf-8"))
        mean, std = prepared.get("image_mean") or mean, prepared.get("image_std") or std
    return _Found(network, mean, std, _own_of(network))


def _timm(folder: Path, config: dict[str, Any]) -> _Found:
    import timm
    from safetensors.torch import load_file

    network = timm.create_model(config["architecture"], pretrained=False)
    weights = load_file(folder / _WEIGHTS)
    network.load_state_dict(weights)
    given = config.get("pretrained_cfg", {})
    mean, std = given.get("mean", _IMAGENET[0]), given.get("std", _IMAGENET[1])
    return _Found(network, mean, std, _own_of(network))


def _diffusers(folder: Path, config: dict[str, Any]) -> _Found:
    import diffusers

    network = getattr(diffusers, config["_class_name"]).from_pretrained(
        folder, use_safetensors=True, local_files_only=True
    )
    inner = getattr(network, "encoder", network)  # of an autoencoder, the half that looks
    return _Found(inner, *_HALF)


def _own_of(network: Any) -> Callable[[nn.Module, Tensor], Sequence[Tensor]] | None:
    """How a network gives its features by itself, as transformers' and timm's do."""
    if callable(getattr(network, "forward_intermediates", None)):
        return _timm_features
    if hasattr(network, "config") and hasattr(network, "dummy_inputs"):
        kept = type(network).__module__.startswith("transformers.")
        return _hidden_states if kept else None
    return None


def _timm_features(network: Any, images: Tensor) -> Sequence[Tensor]:
    features: Sequence[Tensor] = network.forward_intermediates(images, intermediates_only=True)
    return features


def _hidden_states(network: Any, images: Tensor) -> Sequence[Tensor]:
    states: Sequence[Tensor] = network(images, output_hidden_states=True).hidden_states
    return states


def _multiple(network: Any) -> int:
    size = getattr(getattr(network, "config", None), "patch_size", 1)
    return size if isinstance(size, int) and size > 0 else 1


def _short(source: Any) -> str:
    return type(source).__name__ if isinstance(source, nn.Module) else repr(str(source))
