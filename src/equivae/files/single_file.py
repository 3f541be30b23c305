"""One `.safetensors` file, in the names of LDM or of diffusers, a bare VAE or a whole checkpoint: read."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from equivae.errors import InputError, first_line
from equivae.files.ldm_config import (
    FAMILIES,
    PREFIXES,
    check_config,
    detect_config,
    family_config,
)
from equivae.files.ldm_names import (
    aliases,
    in_diffusers_names,
    is_attention_weight,
    ldm_name,
    ldm_names,
)

__all__ = ["CONFIG_KEY", "counted", "is_single_file", "load_single_file"]

CONFIG_KEY = "diffusers_config"
"""Under which an exported file's metadata has the config."""

_SUFFIXES = (".safetensors", ".sft")
_LDM_CLASSES = ("AutoencoderKL", "AutoencoderKLFlux2")
# What a training left in the checkpoint, and no autoencoder has.
_LEFTOVERS = ("loss.", "model_ema.")
_DEFAULTS = (".num_batches_tracked",)  # may be absent: nothing is computed from it


def is_single_file(path: Path) -> bool:
    """Whether the name is that of a file of weights."""
    return path.suffix.lower() in _SUFFIXES


def load_single_file(path: Path, options: dict[str, Any]) -> nn.Module:
    """An autoencoder from one `.safetensors` file, without any network; see `load_vae`.

    Every weight of the autoencoder has to be in the file, and every weight in the file in the autoencoder.
    """
    import diffusers

    options = dict(options)
    asked = options.pop("config", None)
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    if not is_single_file(path):
        raise InputError(f"{path} is no .safetensors file, the only kind of weights that is read.")
    given = None if asked is None else _config_asked_for(asked)
    try:
        weights, others, noted = _read(path)
        config = _config(path, weights, others, noted, given)
    except (InputError, SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} holds no autoencoder in LDM layout that could be read: {first_line(error)}."
        ) from error
    name = str(config.get("_class_name"))
    cls: Any = getattr(diffusers, name, None)
    if cls is not None and name in _LDM_CLASSES:
        return _build(path, cls, config, weights, options)
    if not hasattr(cls, "from_single_file"):
        raise InputError(
            f"{name} has no single-file layout in diffusers; pass its diffusers folder."
        )
    return _through_diffusers(path, cls, config, weights, options)


def _build(
    path: Path,
    cls: Any,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    options: dict[str, Any],
) -> nn.Module:
    """An autoencoder of the LDM kind, whatever names its weights have in the file."""
    try:
        with torch.device("meta"):
            model: nn.Module = cls.from_config(config)
    except Exception as error:
        raise InputError(
            f"{path} does not fit the config of its {cls.__name__}: {first_line(error)}."
        ) from error
    needed = model.state_dict()
    places = {alias: n for n in needed for alias in aliases(n, len(config["block_out_channels"]))}
    found = {places[name]: tensor for name, tensor in weights.items() if name in places}
    said = in_diffusers_names(weights)
    missing = [n for n in needed if n not in found and not n.endswith(_DEFAULTS)]
    _check_names(
        path,
        cls.__name__,
        [n if said else ldm_name(n, len(config["block_out_channels"])) for n in missing],
        [n for n in weights if n not in places],
    )
    dtype = options.get("torch_dtype", options.get("dtype")) or torch.float32
    state: dict[str, Tensor] = {}
    for name, like in needed.items():
        tensor = found.get(name, torch.zeros(like.shape, dtype=like.dtype))
        if is_attention_weight(name) and tensor.ndim == 4:
            tensor = tensor.flatten(1)
        if tensor.shape != like.shape:
            raise InputError(
                f"{path} does not fit the config of its {cls.__name__}: {name} is {tuple(tensor.shape)} in "
                f"the file and {tuple(like.shape)} by the config."
            )
        state[name] = tensor.to(dtype) if like.is_floating_point() else tensor.to(like.dtype)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_().eval()


def _check_names(path: Path, kind: str, missing: list[str], unexpected: list[str]) -> None:
    said = []
    if missing:
        said.append(f"lacks {counted(missing)} of its {kind}")
    if unexpected:
        said.append(f"holds {counted(unexpected)} for which {kind} has no place")
    if said:
        raise InputError(
            f"{path} {' and '.join(said)}; pass a whole autoencoder, or the config=FOLDER that belongs to it."
        )


def counted(names: list[str]) -> str:
    """The first of some weights, and how many others there are."""
    rest = len(names) - 1
    return names[0] + (f" and {rest} other weight{'s' if rest > 1 else ''}" if rest else "")


def _through_diffusers(
    path: Path,
    cls: Any,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    options: dict[str, Any],
) -> nn.Module:
    """An autoencoder of another kind, which diffusers itself knows how to convert."""
    with tempfile.TemporaryDirectory() as folder, _unused_weights() as unused:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            vae: nn.Module = cls.from_single_file(
                weights, config=folder, local_files_only=True, **options
            )
        except NotImplementedError as error:  # a weight that was not in the file is moved
            raise InputError(
                f"{path} lacks weights of its {cls.__name__}; pass a whole autoencoder."
            ) from error
        except Exception as error:
            raise InputError(
                f"{path} does not fit the config of its {config['_class_name']}: {first_line(error)}."
            ) from error
    missing = [name for name, tensor in vae.state_dict().items() if tensor.is_meta]
    _check_names(path, cls.__name__, missing, unused)
    return vae


@contextmanager
def _unused_weights() -> Iterator[list[str]]:
    """The weights that diffusers did not use, which it says in its log alone."""
    names: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _, _, tail = record.getMessage().partition("were not used when initializing")
            if tail:
                names.extend(tail.partition(":")[2].strip(" \n[]'").split(", "))

    log = logging.getLogger("diffusers.loaders.single_file_model")
    listener, level = Listener(), log.level
    log.addHandler(listener)
    log.setLevel(logging.WARNING)
    try:
        yield names
    finally:
        log.removeHandler(listener)
        log.setLevel(level)


def _read(path: Path) -> tuple[dict[str, Tensor], frozenset[str], Any]:
    """The VAE's tensors without their prefix, the names of the others, and the config in the metadata."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        prefix = next((p for p in PREFIXES if any(n.startswith(p) for n in names)), "")
        inside = [n for n in names if n.startswith(prefix)]
        weights = {
            n.removeprefix(prefix): file.get_tensor(n)
            for n in inside
            if not n.removeprefix(prefix).startswith(_LEFTOVERS)
        }
        noted = (file.metadata() or {}).get(CONFIG_KEY)
    others = frozenset(n for n in names if not n.startswith(prefix))
    return weights, others, json.loads(noted) if noted else None


def _config_asked_for(asked: str | Path) -> dict[str, Any] | str:
    """What `config=` names: the content of a `config.json`, or a family of VAEs."""
    folder = Path(asked)
    for candidate in (folder / "vae" / "config.json", folder / "config.json", folder):
        if candidate.is_file():
            return _json(candidate)
    family_config(str(asked))
    return str(asked)


def _config(
    path: Path,
    weights: dict[str, Tensor],
    others: frozenset[str],
    noted: Any,
    asked: dict[str, Any] | str | None,
) -> dict[str, Any]:
    """The config asked for, noted in the file, lying beside it, or read off the weights."""
    names = ldm_names(weights)
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in weights.items()}
    if noted is not None and not isinstance(asked, dict):
        check_config(noted, shapes, "the config in its metadata")
    if isinstance(asked, dict):
        return check_config(asked, shapes, "the config passed")
    if asked is not None:
        numbers = family_config(asked)
        return {**noted, **numbers} if noted else detect_config(shapes, others, asked)[0]
    if noted is not None:
        return dict(noted)
    beside = path.parent / "config.json"
    if in_diffusers_names(weights) and beside.is_file():  # a diffusers folder's own weights
        return check_config(_json(beside), shapes, "the config.json beside it")
    config, certain = detect_config(shapes, others)
    if not certain:
        named = [n for n, f in FAMILIES.items() if f["scaling_factor"] == config["scaling_factor"]]
        warnings.warn(
            f"the weights of {path.name} do not say which diffusion models it belongs to; taken as "
            f"{named[0]!r} with scaling_factor {config['scaling_factor']}. Pass config= one of "
            f"{', '.join(map(repr, FAMILIES))} or a folder to say so.",
            stacklevel=5,
        )
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no config of an autoencoder; pass a config.json of diffusers.")
    return content
