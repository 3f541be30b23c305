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
    words = [f"`{content['command']}`", content["machine"], content["date"][:10]]
    if content.get("commit"):
        words.append(f"commit {content['commit']}")
    return ["", f"{', '.join(words)}."]


def origins(content: dict[str, Any], parts: Sequence[dict[str, Any]]) -> list[str]:
    """The same for rows that several commands made."""
    commands = list(dict.fromkeys(f"`{part['command']}`" for part in parts))
    days = " and ".join(dict.fromkeys(part["date"] for part in parts))
    return ["", f"{'; '.join(commands)}; {content['machine']}, {days}."]


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
    "imagenet_lpips": ("LPIPS's place (imagenet)", 5, ""),
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
    head = [f"{images} images", "value", "95% interval", "off the independent number by"]
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
    head = ["", "operator", "grid move", "fitted", "ceiling", "reconstruction", "core seconds"]
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


def training_curves(content: dict[str, Any]) -> list[str]:
    from comparison import table as curves

    return [*curves(content).splitlines(), *origin(content)]


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


def _seeds(runs: Sequence[dict[str, Any]], key: str, step: str, digits: str) -> str:
    values = [run[key][step] for run in runs]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return format(mean, digits)
    spread = max(abs(value - mean) for value in values)
    return f"{mean:{digits}} ± {spread:{digits}}"


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
