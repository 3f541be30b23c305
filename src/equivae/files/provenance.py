"""What a VAE from a folder of `finetune`, or from a file that was exported of it, was trained for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from equivae.files.families import FAMILIES
from equivae.files.pretrained import origin_of

__all__ = ["NOTE_KEY", "OPERATORS", "Provenance", "ops_beside"]

NOTE_KEY = "equivae"
"""Under which an exported file's metadata has what is known of it, as JSON."""

OPERATORS = "operators"
"""The folder, in a run's output folder, that holds the latent ops that the VAE was trained for."""

_OP_FILE = "latent_op.safetensors"
_REPORT, _BASES_SCALING = "report.json", "scaling_factor of the base"
_TINY = {"taesd": "sd", "taesdxl": "sdxl", "taesd3": "sd3", "taef1": "flux"}


@dataclass(frozen=True)
class Provenance:
    """What is known of a VAE beside its weights and config.

    Attributes:
        transforms: the names of those that it was fine-tuned for.
        latent_ops: the names of the fitted latent ops among them.
        family: of the diffusion models whose latents it has, where somebody said so.
        source: the folder that holds the ops, each below its name.
        encoder_trained: whether a fine-tune changed the encoder, and with it the latents.
        scaling_factor: what that fine-tune put in the place of the base's.
    """

    transforms: tuple[str, ...] = ()
    latent_ops: tuple[str, ...] = ()
    family: str | None = None
    source: Path | None = None
    encoder_trained: bool = False
    scaling_factor: float | None = None

    @classmethod
    def of(cls, vae: nn.Module) -> Provenance:
        """Of a module that `load_vae` or `finetune` gave; empty for any other."""
        origin = origin_of(vae)
        known = cls()
        if origin is not None:
            path = Path(origin)
            known = cls.of_folder(path) if path.is_dir() else cls.of_file(path)
        named = getattr(getattr(vae, "config", None), "_name_or_path", None)
        tiny = next((_TINY[n] for n in map(_last, (origin, named)) if n in _TINY), None)
        return replace(known, family=known.family or tiny)

    @classmethod
    def of_folder(cls, folder: Path) -> Provenance:
        """Of an output folder of `finetune`."""
        source = folder / OPERATORS
        report = _report(folder / _REPORT)
        settings = report.get("settings", {})
        scaling = settings.get("scaling_factor") if _BASES_SCALING in settings else None
        changed = settings.get("encoder_unchanged") is False
        measured = report.get("metrics", {}).get("transforms")
        transforms = tuple(map(str, measured)) if isinstance(measured, dict) else ()
        return cls(transforms, _names(source), None, source, changed, scaling)

    @classmethod
    def of_file(cls, path: Path) -> Provenance:
        """Of a single file, by its metadata."""
        try:
            with safe_open(path, "pt") as file:
                noted: Any = json.loads((file.metadata() or {}).get(NOTE_KEY, "{}"))
            family, scaling = noted.get("family"), noted.get("scaling_factor")
            return cls(
                _texts(noted.get("transforms")),
                tuple(n for n in _texts(noted.get("latent_ops")) if Path(n).name == n),
                family if family in FAMILIES else None,
                ops_beside(path),
                noted.get("encoder_trained") is True,
                scaling if isinstance(scaling, float) else None,
            )
        except (SafetensorError, OSError, ValueError, AttributeError, TypeError):
            return cls()

    def op_files(self) -> dict[str, Path]:
        """The file of each of its ops, of those that are still there."""
        files = {n: self.source / n / _OP_FILE for n in self.latent_ops} if self.source else {}
        return {name: file for name, file in files.items() if file.is_file()}

    def to_json(self) -> str:
        """For a file's metadata."""
        return json.dumps({k: v for k, v in asdict(self).items() if v and k != "source"})


def ops_beside(path: Path) -> Path:
    """The folder beside an exported file that its latent ops lie in."""
    return path.with_name(f"{path.stem}-latent_ops")


def _report(path: Path) -> dict[str, Any]:
    """Metrics and settings of a fine-tune's report; nothing for what is none."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        parts = {name: dict(content[name]) for name in ("metrics", "settings")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return parts if "recipe" in parts["settings"] else {}


def _texts(content: Any) -> tuple[str, ...]:
    return tuple(map(str, content)) if isinstance(content, list) else ()


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(file.parent.name for file in folder.glob(f"*/{_OP_FILE}")))


def _last(name: object) -> str:
    return str(name).rstrip("/").rpartition("/")[2].lower()
