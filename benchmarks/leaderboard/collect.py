"""One comparison as data: what its YAML names, read out of the result files; a missing one is made first.

    make results/taef2-rot180.json     # in this folder; measures nothing that is there already
    make ../../docs/leaderboard.md     # the page

Every way keeps all its points, so that a page can rank by any budget. A point in the middle of a run whose
learning rate falls to its end is not what a run of that length would give; it says of how long a run it is.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
BENCHMARKS = HERE.parent
KINDS = ("ours", "peer", "control", "baseline")


def read(path: Path) -> dict[str, Any]:
    """A comparison's YAML, checked: `ValueError` says what is wrong with it."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in ("title", "vae", "transform", "budgets", "about", "measure", "entries"):
        if key not in content:
            raise ValueError(f"{path} lacks {key!r}")
    for entry in content["entries"]:
        if entry.get("kind") not in KINDS:
            raise ValueError(f"{path}: {entry['name']!r} needs a kind, one of {', '.join(KINDS)}")
        if entry["kind"] == "peer" and not entry.get("leaves_out"):
            raise ValueError(f"{path}: {entry['name']!r} is a peer's, so it has to say leaves_out")
        if entry["file"] not in content["measure"]:
            raise ValueError(f"{path}: nothing under 'measure' makes {entry['file']}")
    return content


def points(entry: Mapping[str, Any], result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a result file says of an entry: seconds, both PSNRs, and how long the run is that goes on."""
    if entry.get("untouched"):
        return [_point(0, result["untouched"])]
    if "row" in entry:
        return [_point(0, row) for row in _matching(result["rows"], entry["row"])]
    if "fit" in entry:
        rows = _matching(result["fit"], entry["fit"])
        return [
            _point(row["processor_seconds"], {**row, "round_trip_psnr": row["fitted_psnr"]})
            for row in rows
        ]
    if entry["arm"] not in result["arms"]:
        return []
    curve = result["arms"][entry["arm"]]["curve"]
    last = curve[-1]["seconds"]
    found = []
    for one in curve:
        if not one["seconds"]:
            continue  # the untouched VAE
        point = _point(one["seconds"], one)
        if one is curve[0]:  # what came before the training
            point["name"] = entry["before"]
        elif one is not curve[-1] and not entry.get("constant_rate"):
            point["of"] = round(last, 1)
        found.append(point)
    return found


def _matching(rows: list[dict[str, Any]], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())][:1]


def _point(seconds: float, numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 1),
        "reconstruction_psnr": numbers["reconstruction_psnr"],
        "round_trip_psnr": numbers["round_trip_psnr"],
    }


def collect(comparison: Mapping[str, Any], results: Path) -> dict[str, Any]:
    """Every entry with its points, its file and the day; those without a number are named under `missing`."""
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for entry in comparison["entries"]:
        path = results / entry["file"]
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        found = points(entry, content) if content else []
        if not found:
            missing.append(entry["name"])
            continue
        row = {key: entry[key] for key in ("name", "kind", "leaves_out") if key in entry}
        assert content is not None
        date = content.get("arms", {}).get(entry.get("arm"), {}).get("date", content["date"])
        rows.append({**row, "file": entry["file"], "date": date, "points": found})
    kept = ("title", "vae", "transform", "budgets", "about")
    return {**{key: comparison[key] for key in kept}, "rows": rows, "missing": missing}


def commands(comparison: Mapping[str, Any], file: str) -> list[str]:
    """What makes a result file: one command, or several that add to it."""
    found = comparison["measure"][file]
    return [found] if isinstance(found, str) else list(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", help="handed to the scripts that measure")
    parser.add_argument("--measure", action="store_true", help="run what makes a missing file")
    options = parser.parse_args()
    comparison = read(options.comparison)
    for name in comparison["measure"]:
        if options.measure and not (BENCHMARKS / "results" / name).is_file():
            for command in commands(comparison, name):
                script, *arguments = shlex.split(command)
                data = ["--data", options.data] if options.data else []
                subprocess.run(
                    [sys.executable, str(BENCHMARKS / script), *arguments, *data], check=True
                )
    found = collect(comparison, BENCHMARKS / "results")
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name in found["missing"]:
        known = [
            command for file in comparison["measure"] for command in commands(comparison, file)
        ]
        print(f"no number for {name!r}: run one of", *known, sep="\n  ")


if __name__ == "__main__":
    main()
