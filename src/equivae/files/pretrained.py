"""Autoencoders from wherever they are, and back to disk. Weights are read from safetensors only."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from equivae.autoencoder.naming import uncompiled
from equivae.autoencoder.padding import (
    apply_padding_mode,
    check_padding_mode,
    get_padding_mode,
    note_padding_mode,
)
from equivae.errors import InputError, first_line
from equivae.files.single_file import counted, is_single_file, load_single_file
from equivae.files.writing import write_files_beside
from equivae.options import check_path

__all__ = ["EMBEDDED", "load_vae", "note_origin", "origin_of", "register_loader", "save_vae"]

EMBEDDED = Path(__file__).parents[1] / "zoo" / "embedded"
"""The diffusers folder of the VAE that comes in the wheel."""

# Where modules came from, as long as they live; a card names it as the base.
_ORIGINS: WeakKeyDictionary[nn.Module, str | Path] = WeakKeyDictionary()

# Imported when such a folder is met, as diffusers imports the class that a config names.
_LOADERS = {"symmetrize.json": "equivae.symmetry.module:load_symmetrized"}


def register_loader(config_name: str, loader: str) -> None:
    """Teach `load_vae` the folders of another kind of autoencoder.

    Args:
        config_name: the file by which such a folder is known.
        loader: `"module:function"`, called with the folder and the options of `load_vae`.

    ```python
    from equivae.files import register_loader

    register_loader("my_codec.json", "my_package.codec:load_codec")
    ```
    """
    _LOADERS[config_name] = loader


def load_vae(model: str | Path | nn.Module, **options: Any) -> nn.Module:
    """An autoencoder from wherever it is.

    Args:
        model: a module (returned as it is); `"embedded"` for the one in the wheel; a diffusers folder
            of a VAE or of a whole pipeline (its `vae` is found); a single `.safetensors` or `.sft` file
            in LDM's or diffusers' names, a bare VAE or a whole checkpoint; a folder of a symmetrized VAE; or
            a hub name such as `"Disty0/SoteMix"`.
        options: handed to diffusers, such as `torch_dtype`, `variant`, `revision` or `subfolder`. A single
            file needs no network: its config is read off the weights. They do not tell SD from SDXL, nor
            SD3 from FLUX, whose VAEs differ in nothing but the scaling factor: say `config="sdxl"`
            (`"sd"`, `"sd3"`, `"flux"`, or a folder with a `config.json`), else there is a warning.

    A `padding_mode` in the config (see `set_padding_mode`) is applied. Only safetensors are read. Raises
    `InputError`, in one sentence, when there is no autoencoder.

    ```python
    vae = equivae.load_vae("embedded")
    ```
    """
    if isinstance(model, nn.Module):
        return model
    check_path("the name of a VAE", model)
    loaded = _load(model, options)
    note_origin(loaded, model)
    return loaded


def note_origin(module: nn.Module, place: str | Path) -> None:
    """Remember, as long as the module lives, where it came from or was saved to."""
    _ORIGINS[module] = place


def origin_of(module: nn.Module) -> str | Path | None:
    """What `load_vae` was given for this very module, or where `finetune` saved it; `None` if neither.

    ```python
    from equivae.files.pretrained import load_vae, origin_of

    assert origin_of(load_vae("embedded")) == "embedded"
    ```
    """
    return _ORIGINS.get(module)


def _load(model: str | Path, options: dict[str, Any]) -> nn.Module:
    path = EMBEDDED if model == "embedded" else Path(model)
    places = [options["subfolder"]] if options.get("subfolder") else ["", "vae"]
    for config_name, loader in _LOADERS.items():
        for place in places:
            if (path / place / config_name).is_file():
                module, _, function = loader.partition(":")
                return getattr(import_module(module), function)(path / place, **options)  # type: ignore[no-any-return]
    if is_single_file(path) or path.is_file():
        return _pad_as_noted(load_single_file(path, options))
    if "config" in options:
        raise InputError(
            f"config={options['config']!r} is for a single .safetensors file, and {model} is none; leave it "
            "out."
        )
    name = str(path if model == "embedded" else model)
    return _pad_as_noted(_load_pretrained(name, path.is_dir(), options))


def _pad_as_noted(vae: nn.Module) -> nn.Module:
    """Apply the padding mode that `set_padding_mode` left in the config."""
    mode = getattr(getattr(vae, "config", None), "padding_mode", None) or "zeros"
    if mode != "zeros" and mode != get_padding_mode(vae):
        apply_padding_mode(vae, check_padding_mode(mode))
    return vae


def _load_pretrained(name: str, is_folder: bool, options: dict[str, Any]) -> nn.Module:
    import diffusers

    options = dict(options)
    subfolder = options.pop("subfolder", None)
    if is_folder:
        folder = Path(name)
        if subfolder is None and not (folder / "config.json").is_file():
            subfolder = "vae"
        if not (folder / (subfolder or "") / "config.json").is_file():
            raise InputError(
                f"folder {name} holds no autoencoder: neither config.json nor vae/config.json is there."
            )
        candidates = [subfolder]
    else:
        # A pipeline's VAE lies in a subfolder; a repository of a VAE alone has it at the top.
        candidates = [subfolder] if subfolder else ["vae", None]
    failure: Exception | None = None
    for candidate in candidates:
        place = {"subfolder": candidate} if candidate else {}
        try:
            with _errors_said_once():
                config = diffusers.AutoencoderKL.load_config(name, **place, **_hub_options(options))
                cls = getattr(diffusers, str(config.get("_class_name")), None)
                if cls is None or not (hasattr(cls, "encode") and hasattr(cls, "decode")):
                    raise InputError(
                        f"{name} is not an autoencoder: its config names {config.get('_class_name')!r}."
                    )
                loaded, info = cls.from_pretrained(
                    name, use_safetensors=True, output_loading_info=True, **place, **options
                )
            _check_loading(name, cls.__name__, info)
            return loaded  # type: ignore[no-any-return]
        except InputError:
            raise
        except Exception as error:
            failure = error
    what = "folder" if is_folder else "hub repository"
    hint = " Without a network, pass a local folder or 'embedded'."
    if is_folder:
        hint = _variant_hint(Path(name) / (subfolder or ""), options.get("variant"))
    raise InputError(
        f"no autoencoder could be loaded from {what} {name!r}: {first_line(failure)}.{hint}"
    ) from failure


@contextmanager
def _errors_said_once() -> Iterator[None]:
    """Leave out what diffusers logs of an error that it raises too, and the hub's words to its callers."""
    log = logging.getLogger("diffusers.models.modeling_utils")

    def new(record: logging.LogRecord) -> bool:
        return "An error occurred while trying to fetch" not in str(record.msg)

    log.addFilter(new)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="huggingface_hub", category=UserWarning)
            yield
    finally:
        log.removeFilter(new)


def _check_loading(name: str, kind: str, info: dict[str, Any]) -> None:
    """diffusers fills up what is missing with random weights, and says so in its log alone."""
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if missing:
        raise InputError(
            f"{name} lacks {counted(missing)} of its {kind}; pass one whose weights are whole."
        )
    if unexpected:
        warnings.warn(
            f"{name} holds {counted(unexpected)} for which {kind} has no place; they are left out.",
            stacklevel=6,
        )


def _variant_hint(folder: Path, asked: str | None) -> str:
    """Which variants lie in a folder, when the one asked for does not."""
    names = [p.name.split(".") for p in folder.glob("diffusion_pytorch_model*.safetensors")]
    variants = sorted({parts[1].split("-")[0] for parts in names if len(parts) == 3})
    if asked in variants or not names:
        return ""
    there = " or ".join(f"variant={v!r}" for v in variants)
    if any(len(parts) == 2 for parts in names):
        there = f"{there} or no variant" if there else "no variant"
    return f" Pass {there}, which is there."


def _hub_options(options: dict[str, Any]) -> dict[str, Any]:
    known = ("revision", "token", "cache_dir", "local_files_only", "force_download", "proxies")
    return {key: value for key, value in options.items() if key in known}


def save_vae(module: nn.Module, folder: str | Path) -> None:
    """Save with the module's own `save_pretrained`, or its weights as `model.safetensors`.

    The names of the weights are those of the module before `torch.compile`, whatever was compiled; the
    config of a diffusers model gets a note of how it pads, where that is not what its class builds.

    Every file is written beside and renamed, once it is on the disk. Raises `WriteError`, with what was there
    untouched, when the disk is full or read-only.
    """
    with uncompiled(module) as plain:
        if hasattr(plain, "save_pretrained"):
            note_padding_mode(plain)
        write_files_beside(Path(folder), lambda staging: _save(plain, staging))


def _save(module: nn.Module, folder: Path) -> None:
    import diffusers
    from safetensors.torch import save_file, save_model

    save: Any = getattr(module, "save_pretrained", None)
    of_diffusers = (
        getattr(type(module), "save_pretrained", None) is diffusers.ModelMixin.save_pretrained
    )
    if save is None:
        save_model(module, str(folder / "model.safetensors"))
    elif of_diffusers and _tied(module):
        # safetensors has no way to say that two weights are one: both are written.
        assert isinstance(module, diffusers.ModelMixin)
        module.save_config(folder)
        weights = {name: t.detach().cpu().clone() for name, t in module.state_dict().items()}
        metadata = {"format": "pt"}
        save_file(weights, folder / "diffusion_pytorch_model.safetensors", metadata)
    else:
        save(folder, safe_serialization=True)


def _tied(module: nn.Module) -> bool:
    places = [t.untyped_storage().data_ptr() for t in module.state_dict().values() if t.numel()]
    return len(set(places)) < len(places)
