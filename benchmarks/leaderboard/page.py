"""The page `docs/leaderboard.md`, from the files in `leaderboard/results`.

cd benchmarks/leaderboard && PYTHONPATH=.. python page.py    # as make does
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tables import rows as table

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "leaderboard.md"
SIGNS = {"ours": "equivae", "peer": "peer", "control": "control", "baseline": "baseline"}
START = HERE / "start.md"
SLACK = 1.02


def best(row: Mapping[str, Any], budget: float) -> dict[str, Any] | None:
    """The last point of a way within the budget, or None; the step at which time ran out still counts."""
    within = [point for point in row["points"] if point["seconds"] <= SLACK * budget]
    return max(within, key=lambda point: point["seconds"]) if within else None


def ranked(found: Mapping[str, Any], budget: float) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Ways and their points, the best round trip first."""
    both = [(row, best(row, budget)) for row in found["rows"]]
    return sorted(
        ((row, point) for row, point in both if point is not None),
        key=lambda one: -one[1]["round_trip_psnr"],
    )


def comparison(found: Mapping[str, Any]) -> list[str]:
    lines = ["", f"## {found['title']}", "", found["about"].strip()]
    for budget in found["budgets"]:
        name = "Without training or fitting" if budget == 0 else f"Within {budget} s"
        lines += ["", f"### {name}", ""]
        body = []
        for place, (row, point) in enumerate(ranked(found, budget), 1):
            seconds = f"{point['seconds']:.0f} s" + ("*" if "of" in point else "")
            body.append(
                [
                    f"{place}. {point.get('name', row['name'])}",
                    f"{point['round_trip_psnr']:.2f} dB",
                    f"{point['reconstruction_psnr']:.2f} dB",
                    seconds,
                    SIGNS[row["kind"]],
                ]
            )
        lines += table(["way", "round trip", "reconstruction", "spent", "whose"], body)
    peers = [row for row in found["rows"] if row.get("leaves_out")]
    if peers:
        lines += ["", "What the peers' rows leave out:", ""]
        lines += [f"- *{row['name']}*: {row['leaves_out']}." for row in peers]
    if found["missing"]:
        lines += ["", f"Not measured yet: {', '.join(found['missing'])}."]
    files = list(dict.fromkeys(f"`{row['file']}` ({row['date']})" for row in found["rows"]))
    lines += ["", f"From {', '.join(files)}, in `benchmarks/results`."]
    return lines


def render(paths: Sequence[Path]) -> str:
    lines = START.read_text(encoding="utf-8").splitlines()
    for path in paths:
        lines += comparison(json.loads(path.read_text(encoding="utf-8")))
    return "\n".join(lines) + "\n"


def results() -> list[Path]:
    return sorted((HERE / "results").glob("*.json"), reverse=True)


if __name__ == "__main__":
    PAGE.write_text(render(results()), encoding="utf-8")
