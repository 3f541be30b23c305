"""The tables of the docs, rendered from `results/*.json` between markers.

A new table is one function here with `@table("name", "file.json")`, and in a document the two lines

    <!-- table: name -->
    <!-- end table -->

    python benchmarks/tables.py            # write the tables into the documents
    python benchmarks/tables.py --check    # exit with 1 if one of them differs

A table whose file is not there yet is left out: its markers enclose nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = ("README.md", "docs/benchmarks.md", "docs/guides/choose.md", "docs/report.md")
Render = Callable[[dict[str, Any]], list[str]]
TABLES: dict[str, tuple[str, Render]] = {}
_MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- end table -->)", re.S)


def table(name: str, file: str) -> Callable[[Render], Render]:
    """Register a function that makes the lines of a table from the content of a result file."""

    def register(render: Render) -> Render:
        TABLES[name] = (file, render)
        return render

    return register


def rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, whose cells may hold the sign that parts them."""
    lines = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]


def origin(content: dict[str, Any]) -> list[str]:
    """A line that says how the numbers came about, for below a table."""
    words = [f"`{content['command']}`", machine(content), content["date"][:10]]
    if content.get("commit"):
        words.append(f"commit {content['commit']}")
    return ["", f"{', '.join(words)}."]


def origins(content: dict[str, Any], parts: Sequence[dict[str, Any]]) -> list[str]:
    """The same for rows that several commands made."""
    commands = list(dict.fromkeys(str(part["command"]) for part in parts))
    where = f"{machine(content)}, {' and '.join(dict.fromkeys(part['date'] for part in parts))}."
    if len(commands) < 3:
        return ["", f"{'; '.join(f'`{command}`' for command in commands)}; {where}"]
    summary = f"<summary>The {len(commands)} commands</summary>"
    listed = ["<details markdown>", summary, "", "```text", *commands, "```", "", "</details>"]
    return ["", where[0].upper() + where[1:], "", *listed]


def machine(content: dict[str, Any]) -> str:
    """What a result was measured on."""
    return str(content["machine"]).replace(" 1 threads", " 1 thread")


@table("interval-coverage", "interval_coverage.json")
def interval_coverage(content: dict[str, Any]) -> list[str]:
    counts = list(dict.fromkeys(row["images"] for row in content["rows"]))
    words = {"psnr": "PSNR", "gap": "gap"}
    body = [
        [f"{words[number]}, {kind}"]
        + [
            f"{row[kind]:.0%}"
            for count in counts
            for row in content["rows"]
            if (row["number"], row["images"]) == (number, count)
        ]
        for number in words
        for kind in ("percentile", "studentised")
    ]
    head = ["coverage of 95% intervals", *(f"{count} images" for count in counts)]
    return [*rows(head, body), *origin(content)]


_NUMBERS = {
    "psnr": ("PSNR", 2, " dB"),
    "ssim": ("SSIM", 4, ""),
    "imagenet_psnr": ("PSNR (imagenet)", 2, " dB"),
    "imagenet_ssim": ("SSIM (imagenet)", 4, ""),
    "imagenet_lpips": ("LPIPS stand-in (imagenet)", 5, ""),
    "imagenet_rfid": ("rFID, local features (imagenet)", 5, ""),
}


@table("protocols", "protocols.json")
def protocols(content: dict[str, Any]) -> list[str]:
    body = []
    for vae, one in content["vaes"].items():
        for row in one["rows"]:
            if row["kind"] == "latents":
                continue
            name, digits, unit = _NUMBERS[row["number"]]
            ends = ""
            if "low" in row:
                ends = f"{row['low']:.{digits}f} to {row['high']:.{digits}f}{unit}"
            value = f"{row['ours']:.{digits}f}{unit}"
            off = f"{abs(row['ours'] - row['independent']):.0e}"
            body.append([f"{vae}, {row['kind']}: {name}", value, ends, off])
    images = next(iter(content["vaes"].values()))["images"]
    head = [
        f"{images} images",
        "value",
        "95% interval",
        "difference from an independent computation",
    ]
    return [*rows(head, body), *origin(content)]


@table("latent-metrics", "latent_metrics.json")
def latent_metrics(content: dict[str, Any]) -> list[str]:
    vaes = content["vaes"]
    found = {
        vae: {row["number"]: row for row in one["rows"] if row["kind"] == "latents"}
        for vae, one in vaes.items()
    }
    body = []
    for number in next(iter(found.values())):
        cells = [number.replace("_", " ")]
        for one in found.values():
            row = one[number]
            scale = 255 if number.startswith("flat_field") else 1
            cells.append(f"{row['ours'] * scale:.4g}")
            off = row.get("relative_error_of_two_images")
            if off is None and row["independent"] is not None:
                off = row["ours"] / row["independent"] - 1
            cells.append("" if off is None else f"{abs(off):.0e}")
        body.append(cells)
    head = ["number"]
    for vae, one in vaes.items():
        head += [f"{vae}, {one['images']} images", "relative error"]
    said = "Beside each its distance from the independent number; EQ-R was checked with its authors' code."
    return [*rows(head, body), "", said, *origin(content)]


@table("demo-frontier", "demo_frontier.json")
def demo_frontier(content: dict[str, Any]) -> list[str]:
    body = [
        [
            name,
            f"{trial['gap_after_db']:.2f} dB",
            f"{trial['reconstruction_change_db']:+.2f} dB",
            f"{trial['seconds']:.0f}",
        ]
        for name, trial in content["trials"].items()
    ]
    before = next(iter(content["trials"].values()))["gap_before_db"]
    lines = rows(["", "gap after", "reconstruction", "seconds"], body)
    return [*lines, "", f"Gap before: {before:.2f} dB.", *origin(content)]


@table("finetune-taef2", "finetune_taef2_equivae.json")
def finetune_taef2(content: dict[str, Any]) -> list[str]:
    body = []
    for label, key in (("untouched", "before"), ("fine-tuned", "metrics")):
        numbers = content[key]
        for name, one in numbers["transforms"].items():
            body.append(
                [
                    f"{name}, {label}",
                    f"{numbers['reconstruction_psnr']:.2f} dB",
                    f"{one['round_trip_psnr']:.2f} dB",
                    f"{one['equivariance_gap_db']:.2f} dB",
                    f"{content['seconds']:.0f}" if key == "metrics" else "",
                ]
            )
    head = ["", "reconstruction", "round trip", "gap", "seconds"]
    return [*rows(head, body), *origin(content)]


@table("latent-operators-fit", "latent_operators.json")
def latent_operators_fit(content: dict[str, Any]) -> list[str]:
    body = [
        [
            f"{row['vae']}, {row['transform']}",
            f"{row['kernel_size']}x{row['kernel_size']}"
            f"{', then a small network' if row['method'] == 'network' else ''}, {row['images']} images",
            f"{row['grid_move_psnr']:.2f} dB",
            f"{row['fitted_psnr']:.2f} dB",
            f"{row['ceiling_psnr']:.2f} dB",
            f"{row['reconstruction_psnr']:.2f} dB",
            f"{row['processor_seconds']:.0f}",
        ]
        for row in content["fit"]
    ]
    head = ["", "latent op", "plain", "fitted", "ceiling", "reconstruction", "core seconds"]
    return [*rows(head, body), *origins(content, content["fit"])]


@table("latent-operators", "latent_operators_table.json")
def latent_operators(content: dict[str, Any]) -> list[str]:
    from operator_table import as_text

    head, *body = as_text(content["rows"])
    return [*rows(head, body), *origins(content, content["rows"])]


@table("symmetrize", "latent_operators.json")
def symmetrize(content: dict[str, Any]) -> list[str]:
    body = [
        [
            f"{row['vae']}, {row['group']}",
            f"{row['untouched_psnr']:.2f} dB",
            f"{row['reconstruction_psnr']:.2f} dB",
            f"{row['average_psnr']:.2f} dB",
            f"{row['encoder_relative_error']:.0e}, {row['decoder_error']:.0e}",
            f"{row['cost_in_cells']:.2f}x, {row['cost_in_time']:.2f}x",
        ]
        for row in content["symmetrize"]
    ]
    head = ["", "untouched", "symmetrized", "averaged", "law broken by", "cost: cells, time"]
    return [*rows(head, body), *origins(content, content["symmetrize"])]


@table("symmetrize-seams", "symmetrize.json")
def symmetrize_seams(content: dict[str, Any]) -> list[str]:
    seams = sorted({row["seam"] for row in content["rows"]}, key=lambda one: (one is None, one))
    keys = ("group", "margin", "passes", "kernel_size", "magnitude")
    found: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = {}
    for row in content["rows"]:
        found.setdefault(tuple(row[key] for key in keys), {})[row["seam"]] = row
    body = []
    for (group, margin, passes, kernel, magnitude), widths in found.items():
        any_row = next(iter(widths.values()))
        size = f"{kernel}x{kernel}" + (f", |z| {magnitude}x{magnitude}" if magnitude else "")
        losses = (f"{widths[seam]['loss']:+.2f}" if seam in widths else "" for seam in seams)
        cost = (f"{any_row['cells']:.2f}x", f"{any_row['time']:.2f}x")
        body.append([group, f"{margin}", size, f"{passes}", *losses, *cost])
    head = ["group", "margin", "context", "passes"]
    names = {0: "hard edge", None: "all"}
    head += [names.get(seam, f"seam {seam}") for seam in seams]
    images = content["rows"][0]["images"]
    start = (
        f"Change of reconstruction in dB against the plain VAE's {content['plain_psnr']:.2f} dB, on {images} "
        f"Kodak images; the context's ops are fitted on {content['photos']} photographs."
    )
    return [*rows([*head, "cells", "time"], body), "", start, *origins(content, content["rows"])]


@table("symmetrize-tuned", "symmetrized_finetune.json")
def symmetrize_tuned(content: dict[str, Any]) -> list[str]:
    body = [
        [row["group"]]
        + [f"{row[key]:.2f} dB" for key in ("untouched", "symmetrized", "tuned")]
        + [f"{row['margin']}", f"{row['steps']}", f"{row['seconds']}"]
        for row in content["rows"]
    ]
    head = ["group", "untouched", "symmetrized", "fine-tuned", "margin", "steps", "seconds"]
    start = f"Reconstruction on {content['images']} Kodak images."
    return [*rows(head, body), "", start, *origins(content, content["rows"])]


@table("exact-law", "exact_law.json")
def exact_law(content: dict[str, Any]) -> list[str]:
    body = [
        [
            f"{row['transform']}, fitted "
            + ("alone" if row["fit"] == row["transform"] else f"as a part of {row['fit']}"),
            f"{row['psnr']:.2f} dB",
            f"{row['law']:.0e}",
            f"{row['seconds']}",
        ]
        for row in content["rows"]
    ]
    head = ["conjugation", "decoded", "off the latent after there and back", "seconds to fit"]
    count = content["rows"][0]
    start = (
        f"Fitted on {count['photos']} photographs at 128 px, measured on {count['images']} Kodak "
        "images at 256 px."
    )
    return [*rows(head, body), "", start, *origins(content, content["rows"])]


@table("latent-maps", "latent_maps.json")
def latent_maps(content: dict[str, Any]) -> list[str]:
    body = [
        [f"{row['from']} to {row['to']}"]
        + [f"{row[key]:.2f} dB" for key in ("mapped_psnr", "reencoded_psnr", "ceiling_psnr")]
        for row in content["maps"]
    ]
    lines = rows(["latents", "mapped", "decoded and encoded again", "ceiling"], body)
    body = [[row["vae"], f"{row['psnr']:.2f} dB"] for row in content["previews"]]
    lines += ["", *rows(["preview of", "against the small image"], body)]
    body = [
        [f"`{row['transform']}`", f"{row['plain_psnr']:.2f} dB", f"{row['fitted_psnr']:.2f} dB"]
        for row in content["family"]
    ]
    lines += ["", *rows(["member of a family, taef2", "plain", "fitted"], body)]
    start = (
        f"Fitted on {content['photos']} photographs at {content['resolution']} px, measured on "
        f"{content['images']} Kodak images."
    )
    return [*lines, "", start, *origin(content)]


@table("seams", "seams.json")
def seams(content: dict[str, Any]) -> list[str]:
    columns = ("plain", "fitted", "reencoded", "ceiling")
    body = [
        [f"{row['vae']}, {row['transform']}"]
        + [f"{row[name]:.2f} / {row[f'{name}_seam']:.2f}" for name in columns]
        + [f"{row['fit_cpu_seconds']:.0f}"]
        for row in content["rows"]
    ]
    head = ["", "plain", "fitted", "re-encoded", "ceiling", "seconds to fit"]
    start = (
        f"{content['kernel_size']}x{content['kernel_size']} ops, fitted on {content['photos']} photographs "
        f"at {content['photo_resolution']} px, measured on {content['images']} Kodak images at "
        f"{content['resolution']} px."
    )
    return [*rows(head, body), "", start, *origin(content)]


@table("sharpness", "sharpness.json")
def sharpness(content: dict[str, Any]) -> list[str]:
    arms = dict(content["arms"])
    photographs, untouched = arms.pop("photographs"), arms["untouched"]
    before = untouched["reconstruction"] - untouched["plain_round_trip"]
    body = []
    for name, one in arms.items():
        gap = one["reconstruction"] - one["round_trip"]
        changes = (one[key] / untouched["power"] - 1 for key in ("power", "power_moved"))
        body.append(
            [
                "untouched, with the fitted op" if name == "untouched" else name,
                *(f"{change:+.1%}" for change in changes),
                *(f"{one[key]:.2f} dB" for key in ("reconstruction", "round_trip")),
                f"{gap:.2f} dB, {1 - gap / before:.0%}",
                f"{one.get('steps', '')}",
            ]
        )
    head = ["", "high frequencies", "of the moved", "reconstruction", "round trip"]
    settings = content["settings"]
    real = photographs["power"] / untouched["power"] - 1
    start = (
        f"{settings['max_samples']} Kodak images at {settings['resolution']} px; {settings['seconds']:g} s "
        f"of one core an arm. Power against that of the untouched VAE's decodes; the images themselves have "
        f"{real:+.1%}. The gap of the plain latent op is {before:.2f} dB; how much of it is closed stands "
        "beside what is left."
    )
    return [*rows([*head, "gap left, closed", "steps"], body), "", start, *origin(content)]


@table("recipes", "recipes.json")
def recipes(content: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for vae, found in content["models"].items():
        before = found["rows"]["untouched"]
        body = [[name, *_recipe(one, before)] for name, one in found["rows"].items()]
        setting = found["setting"]
        start = (
            f"**{vae}**, {setting['seconds']:g} s an arm, {setting['photos']} photographs, "
            f"{setting['test']} Kodak images at {setting['resolution']} px, crops of "
            f"{setting['crop_size']} px:"
        )
        head = ["", "PSNR", "SSIM", "VGG distance", "d4: round trip, gap left (closed)"]
        head += ["scale 0.5", "scale 0.75", "latent std", "smoothness", "steps", "MB", "without"]
        lines += [start, "", *rows(head, body), *origins(content | found, [found]), ""]
    return lines[:-1]


def _recipe(one: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """The cells of an arm."""
    deviations = one["latents"]["channel_deviations"]
    return [
        f"{one['psnr']:.2f}",
        f"{one['ssim']:.3f}",
        f"{one['perceptual']:.3f}",
        f"{one['d4']:.2f}, {one['d4_gap']:.2f} ({1 - one['d4_gap'] / before['d4_gap']:.0%})",
        *(f"{one[key]:.2f}, {one[f'{key}_gap']:.2f}" for key in ("scale_0.5", "scale_0.75")),
        f"{sum(deviations) / len(deviations):.3f}",
        f"{one['latents']['smoothness']:.3f}",
        f"{one.get('steps', '')}",
        f"{one.get('peak_mb', '')}",
        one.get("without", ""),
    ]


@table("low-rank", "recipes.json")
def low_rank(content: dict[str, Any]) -> list[str]:
    body = []
    for vae, found in content["models"].items():
        kept = found["rows"]
        for name in ("equivae", "lora", "decoder", "decoder-lora"):
            if name not in kept:
                continue
            one = kept[name]
            size = one["adapter_bytes"] or one["vae_bytes"]
            body.append(
                [
                    f"{vae}, {name}",
                    f"{one['trained'] / 1e6:.3f} million",
                    f"{size / 2**20:.2f} MB",
                    f"{one['psnr']:.2f} dB",
                    f"{one['d4_gap']:.2f} dB, {1 - one['d4_gap'] / kept['untouched']['d4_gap']:.0%}",
                    f"{one['steps']}",
                ]
            )
    head = ["", "weights that learn", "file", "reconstruction", "gap left, closed", "steps"]
    return rows(head, body)


def training_curves(content: dict[str, Any]) -> list[str]:
    from comparison import table as curves

    later = [arm for arm in content["arms"].values() if "command" in arm]
    where = origins(content, [content, *later]) if later else origin(content)
    return [*curves(content).splitlines(), *where]


table("rot180-taef2", "sotemix_rot180_taef2.json")(training_curves)
table("rot180-embedded", "sotemix_rot180_embedded.json")(training_curves)


@table("fitted-recipe", "fitted_recipe.json")
def fitted_recipe(content: dict[str, Any]) -> list[str]:
    body = []
    for name, trial in content["trials"].items():
        last = trial["curve"][-1]
        numbers = (last["reconstruction_psnr"], last["round_trip_psnr"])
        gap = numbers[0] - numbers[1]
        body.append([name, *(f"{v:.2f} dB" for v in (*numbers, gap)), f"{last['steps']}"])
    head = ["", "reconstruction", "round trip", "gap", "steps"]
    first = next(iter(content["trials"].values()))["curve"][0]
    start = (
        f"Before training: reconstruction {first['reconstruction_psnr']:.2f} dB, round trip "
        f"{first['round_trip_psnr']:.2f} dB after a fit of {first['seconds']:.0f} s; then "
        f"{content['seconds']:.0f} s each."
    )
    return [*rows(head, body), "", start, *origin(content)]


@table("demo", "demo.json")
def demo(content: dict[str, Any]) -> list[str]:
    body = [
        [
            one["name"],
            f"{one['reconstruction_psnr']:.2f} dB",
            f"{one['round_trip_psnr']:.2f} dB",
            f"{one['gap_db']:.2f} dB",
            f"{one['seconds']:.0f}",
            one["latent_op"],
            "yes" if one["latents_stay_valid"] else "no",
        ]
        for one in content["choices"]
    ]
    head = ["", "reconstruction", "rot180 round trip", "gap", "seconds", "latent op"]
    return [*rows([*head, "old latents stay valid"], body), *origin(content)]


@table("downstream", "downstream.json")
def downstream(content: dict[str, Any]) -> list[str]:
    vaes = content["vaes"]
    steps = list(next(iter(vaes.values()))["runs"][0]["distance"])
    body = []
    for name, one in vaes.items():
        psnrs = (f"{one[key]:.2f} dB" for key in ("reconstruction_psnr", "round_trip_psnr"))
        losses = (_seeds(one["runs"], "validation_loss", s, ".4f") for s in steps[-2:])
        distances = (_seeds(one["runs"], "distance", s, ".2f") for s in steps)
        body.append([name, *psnrs, *losses, *distances, f"{one['floor']:.2f}"])
    head = ["", "reconstruction", "rot180 round trip"]
    head += [f"loss, {step} steps" for step in steps[-2:]]
    head += [*(f"distance, {step} steps" for step in steps), "floor"]
    seeds = len(next(iter(vaes.values()))["runs"])
    counted = "One seed." if seeds == 1 else f"Mean of {seeds} seeds ± the farthest from it."
    real = f"{counted} Real training crops lie at {content['real_distance']:.2f}."
    return [*rows(head, body), "", real, *origin(content)]


@table("public-vaes", "public_vaes.json")
def public_vaes(content: dict[str, Any]) -> list[str]:
    body = []
    for name, one in content["vaes"].items():
        numbers, moved = one["reconstruction"], one["transforms"]
        body.append(
            [
                f"{name}, `{one['model']}`",
                f"{numbers['psnr']:.2f}",
                f"{numbers['imagenet_psnr']:.2f}",
            ]
            + [
                f"{moved[key]['plain']['psnr']:.2f} / {moved[key]['fitted']['psnr']:.2f} / "
                f"{moved[key]['reencoded_psnr']:.2f}"
                for key in ("rot180", "hflip", "rot90")
                if key in moved
            ]
        )
    head = ["", "reconstruction", "by imagenet", "rot180", "hflip", "rot90"]
    said = "PSNR in dB; of a transform plain / fitted / decoded, moved and encoded again."
    return [*rows(head, body), "", said, *origin(content)]


@table("diffusability", "diffusability.json")
def diffusability(content: dict[str, Any]) -> list[str]:
    body = []
    for name, one in content["vaes"].items():
        psnrs = (f"{one[key]:.2f} dB" for key in ("reconstruction_psnr", "rot180_psnr"))
        ends = (_seeds(one["runs"], key, None, ".2f") for key in ("distance", "distance_to_images"))
        loss = _seeds(one["runs"], "loss", None, ".4f")
        body.append([name, *psnrs, *ends, loss, f"{one['floor']:.2f}"])
    head = ["", "reconstruction", "rot180", "distance", "distance to images", "loss", "floor"]
    lines = rows(head, body)
    compared = [
        [name, f"{one['ratio']:.3f}", f"{one['low']:.3f} to {one['high']:.3f}", f"{one['seeds']}"]
        for name, one in content["pairs"].items()
    ]
    lines += ["", *rows(["distances", "ratio", "95% interval", "seeds"], compared)]
    seeds = min(one["seeds"] for one in content["pairs"].values())
    said = f"Mean of {seeds} seeds ± the farthest from it. By the rule: {content['verdict']}."
    return [*lines, "", said, *origin(content)]


def _seeds(runs: Sequence[dict[str, Any]], key: str, step: str | None, digits: str) -> str:
    values = [run[key] if step is None else run[key][step] for run in runs]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return format(mean, digits)
    spread = max(abs(value - mean) for value in values)
    return f"{mean:{digits}} ± {spread:{digits}}"


@table("training-speed", "training_speed.json")
def training_speed(content: dict[str, Any]) -> list[str]:
    vaes = content["vaes"]
    keys = list(dict.fromkeys(key for one in vaes.values() for key in one["rows"]))
    body, parts = [], []
    for key in keys:
        found = [one["rows"].get(key) for one in vaes.values()]
        cells = []
        for row in found:
            if row is None:
                cells += ["", ""]
                continue
            ratios = sorted(row["ratios"])
            middle = ratios[len(ratios) // 2]
            cells += [f"{row['seconds_per_image']:.3f}"]
            cells += [f"{middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"]
            parts.append(row)
        body.append([next(row["name"] for row in found if row), *cells])
    head = [""]
    for name in vaes:
        head += [f"{name}: seconds an image", "times the plain loop"]
    off = max(one["loss_difference"] for one in vaes.values())
    said = [f"Losses of the first three steps of both loops differ by at most {off:.0e} of them."]
    bounds = [f"{one['bound']:.2f} ({name})" for name, one in vaes.items() if "bound" in one]
    if bounds:
        saved = " and ".join(bounds)
        said.append(f"Counted in operations, one decode in the place of two saves {saved} times.")
    lower = [_off(one["rows"], key) for one in vaes.values() for key in _LOWER]
    if any(found is not None for found in lower):
        worst = max(found for found in lower if found is not None)
        said.append(
            f"In bf16, channels-last or not, losses are within {worst:.1e} of those in float32."
        )
    if "loaded_per_second" in content:
        said.append(
            f"A loader without workers gives {content['loaded_per_second']:.0f} photographs a second."
        )
    return [*rows(head, body), "", " ".join(said), *origins(content, parts)]


_LOWER = ("default-bf16", "bf16-channels-last")


def _off(found: dict[str, Any], key: str) -> float | None:
    """By which part a row's losses differ at most from those of the default recipe in float32."""
    a, b = (found.get(name, {}).get("losses") for name in ("default", key))
    if not a or not b:
        return None
    return max(abs(x - y) / y for x, y in zip(b, a, strict=False))


_COSTS = {
    "images in a batch": "batch",
    "side of an image, pixels": "side",
    "transforms": "transforms",
    "processes": "processes",
}


@table("training-cost", "training_cost.json")
def training_cost(content: dict[str, Any]) -> list[str]:
    body = []
    for axis, of in _COSTS.items():
        points = [one for one in content["points"] if one["axis"] == axis]
        for line in dict.fromkeys(one["line"] for one in points):
            own = [one for one in points if one["line"] == line]
            times = (one["seconds_per_image"] / points[0]["seconds_per_image"] for one in own)
            memory = (f"{one['mib']:.0f}" for one in own)
            body.append(
                [
                    axis if line == "default" else f"{axis}, {line}",
                    ", ".join(str(one[of]) for one in own),
                    ", ".join(f"{time:.2f}" for time in times),
                    ", ".join(memory),
                ]
            )
    head = ["what grows", "from, to", "time per image, against the first point", "peak memory, MiB"]
    return [*rows(head, body), *origins(content, content["points"])]


@table("training-frontier", "training_frontier.json")
def training_frontier(content: dict[str, Any]) -> list[str]:
    body, parts = [], []
    for vae, one in content["vaes"].items():
        base = one["untouched"]
        first = [f"{base['reconstruction_psnr']:.2f} dB", "", f"{base['gap_db']:.2f} dB"]
        body.append([f"{vae}, untouched", *first, "", "", ""])
        for name, row in one["arms"].items():
            psnr = row["reconstruction_psnr"]
            cells = [f"{psnr:.2f} dB", f"{psnr - base['reconstruction_psnr']:+.2f} dB"]
            steps = row.get("whole_steps")
            spent = f"{steps} whole steps" if steps else f"{row['seconds']:.0f}"
            cells += [f"{row['gap_db']:.2f} dB", spent]
            first_steps = row["options"]["bottleneck_steps"]
            body.append([name, *cells, str(first_steps), str(row["steps"])])
            parts.append(row)
    head = ["", "reconstruction", "change", "gap", "seconds", "bottleneck steps", "steps"]
    return [*rows(head, body), *origins(content, parts)]


def render(text: str, results: Path = RESULTS) -> str:
    """The document with every table as its result file has it.

    Raises `KeyError` for a marker whose table is unknown.
    """

    def fill(match: re.Match[str]) -> str:
        file, make = TABLES[match["name"]]
        path = results / file
        if not path.exists():
            return match[1] + match[4]
        lines = make(json.loads(path.read_text(encoding="utf-8")))
        return match[1] + "\n".join(["", *lines, "", match[4]])

    return _MARKED.sub(fill, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    differing = []
    for name in DOCUMENTS:
        path = ROOT / name
        if not path.exists():
            continue
        old = path.read_text(encoding="utf-8")
        new = render(old)
        if new != old:
            differing.append(name)
            if not check:
                path.write_text(new, encoding="utf-8")
    for name in differing:
        print(f"{name} {'differs from the results' if check else 'written'}")
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
