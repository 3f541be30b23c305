"""The leaderboard: its page agrees with its data, and its ranking with its rule."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "leaderboard"
sys.path.insert(0, str(FOLDER))

import collect  # noqa: E402
import page  # noqa: E402


@pytest.mark.parametrize(
    "path", sorted((FOLDER / "comparisons").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_comparison_agrees_with_the_results_it_names(path):
    found = collect.collect(collect.read(path), collect.BENCHMARKS / "results")
    kept = FOLDER / "results" / f"{path.stem}.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == found, (
        "run make in benchmarks/leaderboard"
    )


def test_the_page_agrees_with_its_data():
    assert page.render(page.results()) == page.PAGE.read_text(encoding="utf-8")


def row(name: str, *points: tuple[float, float]) -> dict[str, object]:
    return {
        "name": name,
        "points": [
            {"seconds": seconds, "round_trip_psnr": psnr, "reconstruction_psnr": psnr}
            for seconds, psnr in points
        ],
    }


def test_the_last_point_within_the_budget_counts_even_if_an_earlier_one_was_better():
    found = {
        "rows": [
            row("a", (10, 25.0), (101, 24.0), (400, 30.0)),
            row("b", (0, 24.5)),
            row("c", (300, 40)),
        ]
    }
    assert [(one["name"], point["seconds"]) for one, point in page.ranked(found, 100)] == [
        ("b", 0),
        ("a", 101),  # the step at which time ran out
    ]
    assert [one["name"] for one, _ in page.ranked(found, 50)] == ["a", "b"]


def test_points_say_what_came_before_training_and_of_which_run_they_are():
    curve = [
        {"seconds": seconds, "reconstruction_psnr": 28.0, "round_trip_psnr": 20.0 + seconds}
        for seconds in (20, 50, 80)
    ]
    result = {"arms": {"fitted": {"curve": curve}, "published": {"curve": curve[1:]}}}
    entry = {"arm": "fitted", "before": "fitted alone"}
    first, middle, last = collect.points(entry, result)
    assert first["name"] == "fitted alone"
    assert "of" not in first
    assert middle["of"] == 80
    assert set(last) == {"seconds", "reconstruction_psnr", "round_trip_psnr"}
    assert collect.points({"arm": "gone"}, result) == []


def test_a_peers_row_has_to_say_what_it_leaves_out(tmp_path):
    text = (FOLDER / "comparisons" / "taef2-rot180.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "LPIPS, PatchGAN" not in line]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"EQ-VAE's objective.*leaves_out"):
        collect.read(tmp_path / "x.yaml")
