"""The table of latent ops against re-encoding: what `latent_operators.py --table` measures and prints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import equivae
from equivae.autoencoder import measuring
from equivae.operators.decoding import decoded_psnr

__all__ = ["ROWS", "as_text", "measure_row"]

ROWS = (
    "rot180",
    "hflip",
    "vflip",
    "rot90",
    "transpose",
    "scale(factor=0.5)",
    "scale(factor=0.75)",
    "scale(factor=1.5)",
    "scale(factor=2)",
    "rotate(angle=15)",
    "fractional_shift(y=0.5,x=0.5)",
    "exposure(factor=0.6)",
    "greyscale",
    "saturation(factor=0.5)",
)
_BATCH = 4


def measure_row(
    vae: nn.Module,
    photos: Tensor,
    test: Tensor,
    name: str,
    decoded_steps: int = 0,
    network: str = "",
) -> dict[str, Any]:
    """Decoded PSNR in dB of everything that can stand for a transform, with processor seconds.

    Args:
        vae: the autoencoder.
        photos: `(N, 3, H, W)`, to fit on.
        test: the same, to measure on.
        name: of the transform.
        decoded_steps: gradient steps on the decoded error that follow the closed form; 0 for none.
        network: `"small"`, `"medium"` or `"large"`: a residual network takes these steps too.
    """
    view = equivae.Autoencoder(vae)
    transform = view.place(equivae.get_transform(name))
    moves = getattr(transform, "keeps_grid", False) or name in ROWS[:5]
    options: dict[str, Any] = {"kernel_size": 7, "magnitude": 3} if moves else {"kernel_size": 5}
    fitted, seconds = _busy(lambda: _fit(vae, name, photos, **options))
    row: dict[str, Any] = {"transform": name, "fit_images": len(photos), "test_images": len(test)}
    with measuring(vae):
        latents = torch.cat([view.encode(x) for x in test.split(_BATCH)])
        seen = torch.cat([view.decode(z) for z in latents.split(_BATCH)]).clamp(-1, 1)

    def score(found: Callable[[int, int], Tensor]) -> float:
        batches = (
            (found(i, i + _BATCH), transform.pixel(test[i : i + _BATCH]), transform.mask(test[:1]))
            for i in range(0, len(test), _BATCH)
        )
        return round(decoded_psnr(view, batches), 2)

    row["plain"] = score(lambda i, j: transform.latent(latents[i:j]))
    row["fitted"] = score(lambda i, j: fitted.latent(latents[i:j]))
    row["fit_seconds"] = round(seconds, 1)
    row["kernel"] = list(fitted.operator.kernel)
    if decoded_steps:
        more = {"objective": "decoded", "max_train_steps": decoded_steps}
        if network:
            width, layers = equivae.operators.options.NETWORK_SIZES[network]
            more |= {"method": "network", "width": width, "layers": layers}
        better, seconds = _busy(lambda: _fit(vae, name, photos, **options, **more))
        row["decoded"] = score(lambda i, j: better.latent(latents[i:j]))
        row["decoded_seconds"], row["network"] = round(seconds, 1), network or None
    row["reencoded"] = score(lambda i, j: view.encode(transform.pixel(seen[i:j])))
    row["ceiling"] = score(lambda i, j: view.encode(transform.pixel(test[i:j])))
    row["apply_ms"] = _milliseconds(lambda: fitted.latent(latents[:1]))
    row["reencode_ms"] = _milliseconds(
        lambda: view.encode(transform.pixel(view.decode(latents[:1]))), vae
    )
    return row


def _fit(vae: nn.Module, name: str, photos: Tensor, **options: Any) -> equivae.FittedTransform:
    return equivae.fit_latent_op(vae, name, photos, progress=False, **options)


def _busy(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    made = call()
    return made, time.process_time() - began


def _milliseconds(call: Callable[[], Tensor], vae: nn.Module | None = None) -> float:
    """Processor time of one image, the least of three."""
    with torch.no_grad():
        call()
        return round(min(_busy(call)[1] for _ in range(3)) * 1e3, 1)


def as_text(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    head = (
        "transform",
        "plain",
        "fitted",
        "decoded",
        "re-encoded",
        "ceiling",
        "fit",
        "apply, re-encode",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        decoded = f"{row['decoded']:.2f}" if "decoded" in row else ""
        seconds = f"{row['fit_seconds']:.0f} s"
        if decoded:
            seconds += f", {row['decoded_seconds']:.0f} s"
        cells = [
            f"{row['vae']} {row['transform']}",
            f"{row['plain']:.2f}",
            f"{row['fitted']:.2f}",
            decoded,
            f"{row['reencoded']:.2f}",
            f"{row['ceiling']:.2f}",
            seconds,
            f"{row['apply_ms']:.1f} ms, {row['reencode_ms']:.0f} ms",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
