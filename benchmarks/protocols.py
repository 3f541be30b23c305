"""Every number under both protocols, and of the latent space, beside an independent computation.

TAEF2 and the embedded VAE on the Kodak images. What a network of ImageNet would say is said by small local
networks in its place, the same ones on both sides.

    python benchmarks/protocols.py --metrics all --images 2
    python benchmarks/protocols.py

The first, of few images, writes the numbers of the latent space; the second the protocols over all.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.ndimage
import scipy.stats
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn

import equivae
import record
from equivae.autoencoder import Autoencoder, measuring
from equivae.evaluation.latent_metrics import flat_field
from equivae.evaluation.latent_metrics.lie import FIELDS
from taef2 import load_taef2

SIDE, SEED = 256, 0
ROOT = Path(__file__).parents[1]


def local_inception(images: Tensor) -> Tensor:
    """A small fixed network in Inception's place: 24 features of images in [0, 1]."""
    weights = torch.randn(24, 3, 7, 7, generator=torch.Generator().manual_seed(1)) / 12
    return nn.functional.conv2d(images.float() - 0.5, weights, stride=4).relu().mean((2, 3))


def local_lpips(a: Tensor, b: Tensor) -> Tensor:
    """A small fixed distance in LPIPS's place."""
    return (local_maps(a) - local_maps(b)).square().mean((1, 2, 3))


def local_maps(images: Tensor) -> Tensor:
    weights = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(2)) / 9
    return nn.functional.conv2d(images.float() - 0.5, weights, stride=2).tanh()


def resized(picture: Image.Image) -> np.ndarray:
    """torchvision's `Resize(256)` and `CenterCrop(256)` the long way, `(3, 256, 256)` in [-1, 1]."""
    array = np.asarray(picture.convert("RGB"), dtype=np.float64) / 127.5 - 1
    height, width = array.shape[:2]
    short = min(height, width)
    rows, columns = (int(SIDE * side / short) for side in (height, width))
    array = np.einsum("ih,hwc->iwc", triangle(height, rows), array)
    array = np.einsum("jw,iwc->ijc", triangle(width, columns), array)
    top, left = round((rows - SIDE) / 2), round((columns - SIDE) / 2)
    return array[top : top + SIDE, left : left + SIDE].transpose(2, 0, 1)


def triangle(old: int, new: int) -> np.ndarray:
    scale = max(old / new, 1.0)
    centre = (np.arange(new) + 0.5) * old / new
    weights = 1 - np.abs(np.arange(old) + 0.5 - centre[:, None]) / scale
    weights = weights.clip(min=0)
    return weights / weights.sum(1, keepdims=True)


def as_bytes(images: np.ndarray) -> np.ndarray:
    return np.clip(127.5 * images + 128, 0, 255).astype(np.uint8)


def protocol_numbers(x: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """Both protocols' numbers of images `(N, 3, H, W)` in [-1, 1] and what became of them."""
    units = [(np.clip(a, -1, 1) + 1) / 2 for a in (x, made)]
    original, changed = as_bytes(x), as_bytes(made)
    pairs = list(zip(original, changed, strict=True))
    ssim = {"data_range": 2, "channel_axis": 0, "gaussian_weights": True, "sigma": 1.5}
    ssim |= {"use_sample_covariance": False}
    border = ((0, 0), (5, 5), (5, 5))
    features = [
        local_inception(torch.from_numpy(a / 255.0)).double().numpy() for a in (original, changed)
    ]
    distance = local_lpips(*(torch.from_numpy(a) for a in units))
    clamped = np.clip(made, -1, 1)
    return {
        "psnr": -10 * math.log10(float(((units[0] - units[1]) ** 2).mean())),
        "ssim": float(
            np.mean(
                [
                    structural_similarity(a, b, **{**ssim, "data_range": 1})
                    for a, b in zip(*units, strict=True)
                ]
            )
        ),
        "imagenet_psnr": float(
            np.mean([peak_signal_noise_ratio(a, b, data_range=255) for a, b in pairs])
        ),
        "imagenet_ssim": float(
            np.mean(
                [
                    structural_similarity(
                        np.pad(a, border, mode="reflect"), np.pad(b, border, mode="reflect"), **ssim
                    )
                    for a, b in zip(x, clamped, strict=True)
                ]
            )
        ),
        "imagenet_lpips": float(distance.mean()),
        "imagenet_rfid": frechet(*features),
    }


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    first, second = (np.cov(one, rowvar=False) for one in (a, b))
    root = scipy.linalg.sqrtm(first @ second).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


def latent_numbers(z: Tensor) -> dict[str, float]:
    """The numbers of the latent space, each by another way than the library's."""
    cells = z.double().numpy()
    flat = cells.transpose(1, 0, 2, 3).reshape(cells.shape[1], -1)
    centred = flat - flat.mean(1, keepdims=True)
    values = np.linalg.svd(centred, compute_uv=False)
    shares = values / values.sum()
    variances = values**2 / centred.shape[1]
    found = {
        "effective_rank": math.exp(-float((shares * np.log(shares)).sum())),
        "condition_number": float(variances[0] / variances[-1]),
        "volume_ratio": float(scipy.stats.gmean(variances) / variances.mean()),
        "kurtosis": float(scipy.stats.kurtosis(flat, axis=1).mean()),
        "sec": float(np.mean([sec(one) for one in cells])),
    }
    tokens = [one.reshape(one.shape[0], -1).T for one in cells]
    lds, cds = zip(*(structure(one, cells.shape[-1]) for one in tokens), strict=True)
    found |= {"lds": float(np.mean(lds)), "cds": float(np.mean(cds))}
    found["window_correlation"] = float(np.mean([windows(one) for one in cells]))
    return found


def costly_numbers(vae: Autoencoder, z: Tensor, made: Tensor) -> dict[str, float]:
    """Those that take decodes."""
    found = moved_numbers(vae, z, made)
    greys = flat_field(vae, SIDE, SIDE).pictures.double().numpy()
    levels = np.array([0, 0.25, 0.5, 0.75, 1.0])[:, None, None, None]
    f = vae.factor
    inner = greys[..., f:-f, f:-f]
    cell = inner.reshape(5, 3, SIDE // f - 2, f, SIDE // f - 2, f).mean((2, 4))
    centre = inner.mean((2, 3), keepdims=True)
    rim = np.ones((SIDE, SIDE), bool)
    rim[f:-f, f:-f] = False
    found["flat_field_error"] = rms(greys - levels)
    found["flat_field_grid"] = rms(cell - centre)
    found["flat_field_border"] = rms((greys - centre)[..., rim])
    return found


def rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def sec(one: np.ndarray) -> float:
    blocks = one.reshape(one.shape[0], one.shape[1] // 8, 8, one.shape[2] // 8, 8)
    energy = (scipy.fft.dctn(blocks, axes=(2, 4), norm="ortho") ** 2).sum((0, 1, 3))
    index = np.arange(8)
    high = (index[:, None] + index) / 14 > 0.5
    return float(energy[high].sum() / (energy.sum() - energy[0, 0]))


def structure(tokens: np.ndarray, width: int) -> tuple[float, float]:
    tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    cosines = tokens @ tokens.T
    y, x = np.divmod(np.arange(len(tokens)), width)
    distance = np.abs(y[:, None] - y) + np.abs(x[:, None] - x)
    lds = cosines[distance == 1].mean() - cosines[distance >= 6].mean()
    means = [cosines[distance == d].mean() for d in range(1, 9)]
    return float(lds), float(-np.polyfit(range(1, 9), means, 1)[0])


def windows(one: np.ndarray) -> float:
    found = []
    for i in range(0, one.shape[1], 2):
        for j in range(0, one.shape[2], 2):
            table = np.corrcoef(one[:, i : i + 2, j : j + 2].reshape(len(one), 4).T)
            found.append(table[np.triu_indices(4, 1)].mean())
    return float(np.mean(found))


def moved_numbers(vae: Autoencoder, z: Tensor, made: Tensor) -> dict[str, float]:
    """EQ-T with taps written out, the shift PSNR with scipy's Fourier shift."""
    f, side = vae.factor, z.shape[-1]
    errors, shifts = [], []
    for i, one in enumerate(z):
        seed = SEED * 1_000_003 + i
        draw = torch.rand(2, generator=torch.Generator().manual_seed(seed)).numpy()
        down, right = (round((float(s) * 2 - 1) * SIDE / 8) for s in draw)
        latent = taps(taps(one.double().numpy(), down / f, 1), right / f, 2)
        image = vae.decode(torch.from_numpy(latent).float()[None])[0].double().numpy()
        known = np.zeros((SIDE, SIDE), bool)
        for p in range(SIDE):
            for_row = _known(p, down, side, f)
            known[p] = [for_row and _known(q, right, side, f) for q in range(SIDE)]
        target = np.roll(made[i].double().numpy(), (down, right), (1, 2))
        errors.append((((image - target) ** 2).mean(0)[known] / 4).mean())
        steps = torch.randint(1, f, (2,), generator=torch.Generator().manual_seed(seed)).tolist()
        spectrum = scipy.ndimage.fourier_shift(
            np.fft.fft2(one.double().numpy()), (0, steps[0] / f, steps[1] / f)
        )
        moved = np.fft.ifft2(spectrum).real
        a = vae.decode(torch.from_numpy(moved).float()[None])[0].numpy()[:, f:, f:]
        b = np.roll(made[i].numpy(), steps, (1, 2))[:, f:, f:]
        peak = max(a.max(), b.max()) - min(a.min(), b.min())
        shifts.append(10 * math.log10(peak**2 / ((a - b) ** 2).mean()))
    found = {"eq_t": -10 * math.log10(np.mean(errors)), "shift_psnr": float(np.mean(shifts))}
    return found


def _known(pixel: int, shift: int, side: int, factor: int) -> bool:
    """Whether a pixel comes from inside the image, and its cell from taps inside the grid."""
    cells, first = shift / factor, math.floor(shift / factor) + 3
    inside = 0 <= pixel - shift < side * factor
    return inside and first <= pixel // factor <= math.floor(cells) + side - 3


def taps(grid: np.ndarray, shift: float, axis: int) -> np.ndarray:
    """Lanczos' filter with three lobes, tap by tap."""
    whole, part = math.floor(shift), shift - math.floor(shift)
    weights = {k: np.sinc(k - part) * np.sinc((k - part) / 3) for k in range(-2, 4)}
    total = sum(weights.values())
    moved = np.zeros_like(grid)
    side = grid.shape[axis]
    for place in range(side):
        for tap, weight in weights.items():
            source = place - whole - tap
            if 0 <= source < side:
                to, of = [slice(None)] * 3, [slice(None)] * 3
                to[axis], of[axis] = place, source
                moved[tuple(to)] += weight / total * grid[tuple(of)]
    return moved


def lie(vae: Autoencoder, z: Tensor, field: Any) -> float:
    """The error with the derivative along the decoder by automatic differentiation, twice backwards."""

    def generator(grid: Tensor) -> Tensor:
        axes = [torch.arange(n, dtype=grid.dtype) - (n - 1) / 2 for n in grid.shape[-2:]]
        down, right = field(*torch.meshgrid(*axes, indexing="ij"))
        rows, columns = np.gradient(grid.numpy(), axis=(-2, -1))
        return -(down * torch.from_numpy(rows) + right * torch.from_numpy(columns))

    with torch.enable_grad():
        output, along = torch.autograd.functional.jvp(vae.decode, z, generator(z))
    edge = 2 * vae.factor
    inside = (along - generator(output.detach()))[..., edge:-edge, edge:-edge] / 2
    return float(inside.square().mean())


def measure(name: str, module: nn.Module, folder: Path, count: int, level: str) -> dict[str, Any]:
    report = equivae.evaluate(
        module,
        folder,
        "rot180",
        protocol="imagenet",
        metrics=level,
        features=local_inception,
        lpips=local_lpips,
        max_samples=None if count >= 24 else count,
        sweep_samples=0,
        seed=SEED,
    )
    report.save(
        ROOT / "build" / f"protocols-{level}" / name, overwrite=True, figures=("png", "pdf")
    )
    metrics = report.metrics
    vae = Autoencoder(module)
    files = [folder / one for one in metrics.names]
    x = np.stack([resized(Image.open(file)) for file in files])
    tensor = torch.from_numpy(x).float()
    with measuring(module):
        z = torch.cat([vae.encode(one[None]) for one in tensor])
        made, turned = (
            torch.cat([vae.decode(one[None]) for one in grid]) for grid in (z, z.rot90(2, (-2, -1)))
        )
        independent = latent_numbers(z)
        if level == "all":
            independent |= costly_numbers(vae, z, made)
    plain = protocol_numbers(x, made.double().numpy())
    trip = protocol_numbers(x, turned.rot90(2, (-2, -1)).double().numpy())
    protocol, moved = metrics.imagenet, metrics.transforms["rot180"]
    assert protocol is not None
    assert moved.imagenet is not None
    rows = []
    for kind, ours, theirs, base in (
        ("reconstruction", metrics, protocol, plain),
        ("rot180 round trip", moved, moved.imagenet, trip),
    ):
        key = "reconstruction" if ours is metrics else "round_trip"
        for number, value in (
            ("psnr", getattr(ours, f"{key}_psnr")),
            ("ssim", getattr(ours, f"{key}_ssim")),
            *((f"imagenet_{n}", getattr(theirs, n)) for n in ("psnr", "ssim", "lpips", "rfid")),
        ):
            spread = metrics.spreads.get(_key(key, number, "" if ours is metrics else "/rot180"))
            rows.append(row(kind, number, value, base[number], spread))
    for number, value in metrics.latent_metrics.items():
        spread = metrics.spreads.get(f"latent/{number}")
        rows.append(row("latents", number, value, independent.get(number), spread))
        name_of = number.removeprefix("lee_")
        if (
            name_of in FIELDS
        ):  # by automatic differentiation, which costs six decodes, of two images
            some = [[lie(vae, one[None], field) for field in FIELDS[name_of]] for one in z[:2]]
            mine = np.mean(metrics.per_image[f"latent/{number}"][:2])
            rows[-1]["relative_error_of_two_images"] = float(mine / np.mean(some) - 1)
    return {"images": metrics.images, "rows": rows, "verdict": report.verdict}


def _key(kind: str, number: str, which: str) -> str:
    prefix = "imagenet/" if number.startswith("imagenet_") else ""
    return f"{prefix}{kind}_{number.removeprefix('imagenet_')}{which}"


def row(
    kind: str, number: str, ours: float, independent: float | None, spread: Any
) -> dict[str, Any]:
    found = {"kind": kind, "number": number, "ours": ours, "independent": independent}
    if spread is not None:
        found |= {"low": spread.low, "high": spread.high}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=record.DATA)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--metrics", choices=("fast", "all"), default="fast")
    parser.add_argument("--vae", choices=("TAEF2", "embedded"), action="append")
    options = parser.parse_args()
    found = {}
    for name in options.vae or ("TAEF2", "embedded"):
        module = (
            load_taef2(options.data / "taef2") if name == "TAEF2" else equivae.load_vae("embedded")
        )
        found[name] = measure(name, module, options.data / "kodak", options.images, options.metrics)
        for line in found[name]["rows"]:
            print(name, line, flush=True)
    record.save("latent_metrics" if options.metrics == "all" else "protocols", {"vaes": found})


if __name__ == "__main__":
    main()
