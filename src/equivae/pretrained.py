"""Autoencoders from wherever they are, and back to disk. Weights are read from safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from equivae.errors import InputError

__all__ = ["load_vae", "save_vae"]


def load_vae(model: str | Path | nn.Module, **options: Any) -> nn.Module:
    """An autoencoder from wherever it is.

    Args:
        model: a module (returned as it is); `"embedded"` for the one in the wheel; a diffusers folder
            of a VAE or of a whole pipeline (its `vae` is found); a single-file `.safetensors` in LDM
            layout; or a hub name such as `"Disty0/SoteMix"`.
        options: handed to diffusers, such as `torch_dtype`, `variant`, `revision` or `subfolder`.

    Only safetensors are read. Raises `InputError`, in one sentence, when there is no autoencoder.

    ```python
    vae = equivae.load_vae("embedded")
    ```
    """
    if isinstance(model, nn.Module):
        return model
    if model == "embedded":
        from equivae import zoo

        embedded: nn.Module = zoo.load(**options)
        return embedded
    path = Path(model)
    if path.suffix == ".safetensors" or path.is_file():
        return _load_single_file(path, options)
    return _load_pretrained(str(model), path.is_dir(), options)


def _load_single_file(path: Path, options: dict[str, Any]) -> nn.Module:
    from diffusers import AutoencoderKL

    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    if path.suffix != ".safetensors":
        raise InputError(f"{path} is no .safetensors file, the only kind of weights that is read.")
    try:
        return AutoencoderKL.from_single_file(str(path), **options)  # type: ignore[no-any-return]
    except Exception as error:
        raise InputError(
            f"{path} holds no autoencoder in LDM layout: {_first_line(error)}"
        ) from error


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
            config = diffusers.AutoencoderKL.load_config(name, **place, **_hub_options(options))
            cls = getattr(diffusers, str(config.get("_class_name")), None)
            if cls is None or not (hasattr(cls, "encode") and hasattr(cls, "decode")):
                raise InputError(
                    f"{name} is no autoencoder: its config names {config.get('_class_name')!r}."
                )
            return cls.from_pretrained(  # type: ignore[no-any-return]
                name, use_safetensors=True, **place, **options
            )
        except InputError:
            raise
        except Exception as error:
            failure = error
    what = "folder" if is_folder else "hub repository"
    hint = "" if is_folder else " Without a network, pass a local folder or 'embedded'."
    raise InputError(
        f"no autoencoder could be loaded from {what} {name!r}: {_first_line(failure)}.{hint}"
    ) from failure


def _hub_options(options: dict[str, Any]) -> dict[str, Any]:
    known = ("revision", "token", "cache_dir", "local_files_only", "force_download", "proxies")
    return {key: value for key, value in options.items() if key in known}


def _first_line(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def save_vae(module: nn.Module, folder: str | Path) -> None:
    """Save with the module's own `save_pretrained`, or its weights as `model.safetensors`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(module, "save_pretrained"):
        save: Any = module.save_pretrained
        save(folder, safe_serialization=True)
    else:
        from safetensors.torch import save_model

        save_model(module, str(folder / "model.safetensors"))
