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

from equivae.autoencoder.doubt import ScalingDoubt, ScalingDoubtWarning, note_doubt
from equivae.errors import InputError, first_line
from equivae.files.families import FAMILIES, PREFIXES, Evidence, check_family, family_config
from equivae.files.layouts import SingleFileLayout, layout_of
from equivae.files.ldm_config import detect_config
from equivae.files.ldm_names import in_diffusers_names, ldm_names
from equivae.files.noted_config import check_config

__all__ = ["CONFIG_KEY", "PADDING_KEY", "counted", "is_single_file", "load_single_file"]

CONFIG_KEY = "diffusers_config"
"""Under which an exported file's metadata has the config."""

PADDING_KEY = "padding_mode"
"""Under which its metadata, and a config, say how the VAE pads."""

_SUFFIXES = (".safetensors", ".sft")
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
        raise InputError(
            f"{path} is not a .safetensors file, the only kind of weights that is read."
        )
    given = None if asked is None else _config_asked_for(asked)
    try:
        weights, evidence = _read(path)
        config, families = _config(path, weights, evidence, given)
    except (InputError, SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} holds no autoencoder in LDM layout that could be read: {first_line(error)}."
        ) from error
    name = str(config.get("_class_name"))
    cls: Any = getattr(diffusers, name, None)
    layout = layout_of(name)
    if cls is not None and layout is not None:
        vae = _build(path, cls, layout, config, weights, options)
        if families:
            _doubt(vae, path, families)
        return vae
    if not hasattr(cls, "from_single_file"):
        raise InputError(
            f"{name} has no single-file layout in diffusers; pass its diffusers folder."
        )
    return _through_diffusers(path, cls, config, weights, options)


def _build(
    path: Path,
    cls: Any,
    layout: SingleFileLayout,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    options: dict[str, Any],
) -> nn.Module:
    """An autoencoder whose layout is known here, whatever names its weights have in the file."""
    try:
        with torch.device("meta"):
            model: nn.Module = cls.from_config(config)
    except Exception as error:
        raise InputError(
            f"{path} does not fit the config of its {cls.__name__}: {first_line(error)}."
        ) from error
    built: Any = model.config
    needed = model.state_dict()
    places = {alias: name for name in needed for alias in layout.aliases(name, built)}
    found = {places[name]: tensor for name, tensor in weights.items() if name in places}
    missing = [n for n in needed if n not in found and not n.endswith(_DEFAULTS)]
    if not in_diffusers_names(weights):  # in the words of the file
        missing = [layout.file_name(name, built) for name in missing]
    _check_names(
        path,
        cls.__name__,
        missing,
        [name for name in weights if name not in places and name not in layout.extras],
    )
    dtype = options.get("torch_dtype", options.get("dtype")) or torch.float32
    state: dict[str, Tensor] = {}
    for name, like in needed.items():
        tensor = found.get(name, torch.zeros(like.shape, dtype=like.dtype))
        tensor = layout.loaded(name, tensor)
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


def _read(path: Path) -> tuple[dict[str, Tensor], Evidence]:
    """The VAE's tensors without their prefix, and what else the file tells."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        prefix = next((p for p in PREFIXES if any(n.startswith(p) for n in names)), "")
        inside = [n for n in names if n.startswith(prefix)]
        weights = {
            n.removeprefix(prefix): file.get_tensor(n)
            for n in inside
            if not n.removeprefix(prefix).startswith(_LEFTOVERS)
        }
        metadata = dict(file.metadata() or {})
    return weights, Evidence(frozenset(n for n in names if not n.startswith(prefix)), metadata)


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
    evidence: Evidence,
    asked: dict[str, Any] | str | None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config asked for, noted in the file, lying beside it, or read off the weights.

    And the families that it can be of, where nothing tells which.
    """
    names = ldm_names(weights)
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in weights.items()}
    if isinstance(asked, dict):
        mode = evidence.metadata.get(PADDING_KEY, "zeros")
        noted_mode = {} if mode == "zeros" else {PADDING_KEY: mode}
        return {**noted_mode, **check_config(asked, shapes, "the config passed")}, ()
    text = evidence.metadata.get(CONFIG_KEY)
    noted = json.loads(text) if text else None
    if noted is not None:
        check_config(noted, shapes, "the config in its metadata")
    if asked is not None:
        return _of_family(asked, noted, shapes, evidence), ()
    if noted is not None:
        return dict(noted), ()
    beside = path.parent / "config.json"
    if in_diffusers_names(weights) and beside.is_file():  # a diffusers folder's own weights
        return check_config(_json(beside), shapes, "the config.json beside it"), ()
    return detect_config(shapes, evidence)


def _of_family(
    family: str, noted: dict[str, Any] | None, shapes: dict[str, Any], evidence: Evidence
) -> dict[str, Any]:
    """A config with the numbers of the family that was asked for."""
    if noted is None:
        return detect_config(shapes, evidence, family)[0]
    kind = noted.get("_class_name")
    if kind != "AutoencoderKL":
        raise InputError(f"it is an {kind}, and config={family!r} is for an AutoencoderKL")
    check_family(family, int(noted.get("latent_channels", 4)))
    return {**noted, **family_config(family)}


def _doubt(vae: nn.Module, path: Path, families: tuple[str, ...]) -> None:
    """Remember that the scaling is a guess, and say so."""
    factors = {name: FAMILIES[name]["scaling_factor"] for name in families}
    doubt = ScalingDoubt(path.name, factors)
    note_doubt(vae, doubt)
    warnings.warn(
        f"{doubt}; taken as {families[0]}'s, and refused where it counts. {doubt.remedy}, whichever it is.",
        ScalingDoubtWarning,
        stacklevel=5,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is not a config of an autoencoder; pass a config.json of diffusers."
        )
    return content
