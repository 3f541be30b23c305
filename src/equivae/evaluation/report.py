"""The report: numbers before and after, a verdict, and pictures, as JSON, Markdown and PNG."""

from __future__ import annotations

import datetime
import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivae.errors import InputError
from equivae.evaluation.metrics import Metrics, Panel
from equivae.files import write_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report"]

SCHEMA = 1


@dataclass
class Report:
    """What `evaluate` and `finetune` found.

    Attributes:
        metrics: the numbers of the VAE (of the fine-tuned one, after `finetune`).
        before: the numbers of the VAE that it is compared with, or `None`.
        panels: pictures of a few images, and `panels_before` those of the VAE compared with.
        history: records of the training loss: `step`, `epoch`, `loss`, `validation_loss`.
        settings: how the numbers came about: data, resolution, options, seconds.
        skipped: `(name, reason)` of images that could not be read.

    ```python
    import equivae

    vae = equivae.zoo.load()
    report = equivae.evaluate(vae, equivae.data.dead_leaves(2, 64), transforms="rot180")
    assert report.metrics.transforms["rot180"].equivariance_gap_db > 0
    print(report.to_markdown())
    ```
    """

    metrics: Metrics
    before: Metrics | None = None
    panels: list[Panel] = field(default_factory=list)
    panels_before: list[Panel] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    created: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"
        )
    )

    @property
    def verdict(self) -> str:
        """One sentence: how far the worst transform is from a reconstruction, and how far it was."""
        now = self.metrics
        if not now.transforms:
            return f"Reconstruction is {now.reconstruction_psnr:.2f} dB over {_count(now.images)}."
        name, worst = max(now.transforms.items(), key=lambda item: item[1].equivariance_gap_db)
        which = (
            f"under {name}" if len(now.transforms) == 1 else f"under {name}, the worst transform,"
        )
        if self.before is None or name not in self.before.transforms:
            return (
                f"The equivariance gap {which} is {worst.equivariance_gap_db:.2f} dB: the round trip has "
                f"{worst.round_trip_psnr:.2f} dB, reconstruction {now.reconstruction_psnr:.2f} dB, over "
                f"{_count(now.images)}."
            )
        old = self.before.transforms[name]
        before, after = self.before.reconstruction_psnr, now.reconstruction_psnr
        change = 0.0 if before == after else after - before  # both may be infinite
        return (
            f"The equivariance gap {which} went from {old.equivariance_gap_db:.2f} to "
            f"{worst.equivariance_gap_db:.2f} dB while reconstruction changed by {change:+.2f} dB, over "
            f"{_count(now.images)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, of JSON types; infinite numbers become `None`."""
        content = {
            "schema": SCHEMA,
            "created": self.created,
            "verdict": self.verdict,
            "units": "errors as MSE in [0, 1] units after clamping; PSNR, gap in dB",
            "metrics": asdict(self.metrics),
            "before": None if self.before is None else asdict(self.before),
            "history": self.history,
            "settings": self.settings,
            "skipped": [{"image": name, "reason": reason} for name, reason in self.skipped],
            "versions": _versions(),
        }
        return _json_types(content)  # type: ignore[no-any-return]

    def to_markdown(self) -> str:
        """A short document: the verdict, the table, the settings."""
        lines = ["# Equivariance report", "", self.verdict, "", *self.table(), ""]
        for name, caption in self.figure_captions().items():
            lines += [f"![{caption}]({name})", ""]
        if self.skipped:
            lines += [f"Skipped {_count(len(self.skipped))} that could not be read:", ""]
            lines += [f"- `{name}`: {reason}" for name, reason in self.skipped] + [""]
        if self.settings:
            lines += ["## Settings", "", "| setting | value |", "|---|---|"]
            lines += [f"| {key} | `{value}` |" for key, value in self.settings.items()] + [""]
        versions = ", ".join(f"{name} {number}" for name, number in _versions().items())
        lines += [f"Made {self.created} with {versions}."]
        lines += ["Errors are in [0, 1] units after clamping (peak 1), PSNR with them."]
        return "\n".join(lines) + "\n"

    def rows(self) -> list[tuple[str, str, str]]:
        """The before/after table: `(metric, before, after)`; `before` is empty without one."""
        found = []
        for label, unit, attribute in _METRICS:
            old = getattr(self.before, attribute) if self.before else None
            found.append((label, unit, old, getattr(self.metrics, attribute)))
        for name in self.metrics.transforms:
            for label, unit, attribute in _TRANSFORM_METRICS:
                one = self.before.transforms.get(name) if self.before else None
                found.append(
                    (
                        f"{name}: {label}",
                        unit,
                        getattr(one, attribute) if one else None,
                        getattr(self.metrics.transforms[name], attribute),
                    )
                )
        return [(label, _number(old, unit), _number(new, unit)) for label, unit, old, new in found]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write `report.json`, `report.md` and the figures as PNG into a folder.

        Every file is written beside and renamed. Raises `InputError` if the folder holds a report
        already, unless `overwrite` is set.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"output folder {folder} is a file; choose another name.")
        if (folder / "report.json").exists() and not overwrite:
            raise InputError(
                f"{folder} holds a report already; choose another folder or pass overwrite=True."
            )
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in self.figures().items():
            write_beside(folder / name, lambda path, f=figure: f.savefig(path))  # type: ignore[misc]
        text = json.dumps(self.to_dict(), indent=1) + "\n"
        write_beside(folder / "report.md", lambda path: _write(path, self.to_markdown()))
        write_beside(folder / "report.json", lambda path: _write(path, text))
        return folder

    def figures(self) -> dict[str, Figure]:
        """The pictures by file name: `panels_<transform>.png`, and `loss.png` after a training."""
        from equivae.evaluation.figures import draw_losses, draw_panels

        drawn: dict[str, Figure] = {}
        for name in self._figure_names():
            if name == "loss.png":
                drawn[name] = draw_losses(self.history)
                continue
            drawn[name] = draw_panels(
                [p for p in self.panels if _panel_file(p.transform) == name],
                [p for p in self.panels_before if _panel_file(p.transform) == name],
            )
        return drawn

    def _figure_names(self) -> list[str]:
        names = [_panel_file(t) for t in dict.fromkeys(p.transform for p in self.panels)]
        return [*names, *(["loss.png"] if self.history else [])]

    def figure_captions(self) -> dict[str, str]:
        """What each picture shows, by file name."""
        return {name: _alt_text(name) for name in self._figure_names()}

    def table(self) -> list[str]:
        """`rows` as the lines of a Markdown table."""
        if self.before is None:
            head = ["| metric | value |", "|---|---|"]
            return head + [f"| {label} | {new} |" for label, _, new in self.rows()]
        head = ["| metric | before | after |", "|---|---|---|"]
        return head + [f"| {label} | {old} | {new} |" for label, old, new in self.rows()]


_METRICS: tuple[tuple[str, str, str], ...] = (
    ("reconstruction PSNR", "dB", "reconstruction_psnr"),
    ("reconstruction MSE", "", "reconstruction_mse"),
    ("reconstruction SSIM", "", "reconstruction_ssim"),
)
_TRANSFORM_METRICS: tuple[tuple[str, str, str], ...] = (
    ("round-trip PSNR", "dB", "round_trip_psnr"),
    ("round-trip MSE", "", "round_trip_mse"),
    ("round-trip SSIM", "", "round_trip_ssim"),
    ("equivariance gap", "dB", "equivariance_gap_db"),
    ("encoder relative error", "", "encoder_relative_error"),
)


def _number(value: float | None, unit: str) -> str:
    if value is None or math.isnan(value):
        return ""
    if unit == "dB":
        return f"{value:.2f} dB"
    return f"{value:.5f}" if abs(value) < 0.1 else f"{value:.4f}"


def _count(images: int) -> str:
    return f"{images} image" + ("s" if images != 1 else "")


def _panel_file(transform: str) -> str:
    """`panels_rot180.png`; what does not belong into a file name or a link becomes `_`."""
    return f"panels_{re.sub(r'[^A-Za-z0-9_.=,-]+', '_', transform).strip('_')}.png"


def _alt_text(figure: str) -> str:
    if figure == "loss.png":
        return "Training and validation loss"
    transform = figure.removeprefix("panels_").removesuffix(".png")
    return f"Original, reconstruction, decode of the latent under {transform}, and that moved back"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("equivae", "torch", "diffusers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _json_types(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_types(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    if isinstance(value, Sequence):
        return [_json_types(item) for item in value]
    return str(value)
