"""What the demo can reach in its two minutes: the settings tried, and what each gives.

python benchmarks/demo_frontier.py --output_dir frontier
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import record
from equivae import demo

# Each beside the demo's own options.
TRIALS: dict[str, dict[str, Any]] = {
    "as it ships": {},
    "all weights at once": {"bottleneck_steps": 0},
    "weight 1": {"weight": 1.0},
    "weight 0.17": {"weight": 0.17},
    "weight 1, 100 steps": {"weight": 1.0, "max_train_steps": 100},
    "decoder alone": {"train": "decoder"},
}


def main(
    output_dir: Annotated[Path, typer.Option("--output_dir", help="a new folder")],
    only: Annotated[str, typer.Option("--only", help="one trial")] = "",
) -> None:
    rows = {}
    for name, options in TRIALS.items():
        if only and name != only:
            continue
        result = demo.finetune_plain(output_dir / name.replace(" ", "-"), progress=False, **options)
        before, after = result.report.before, result.report.metrics
        assert before is not None
        rows[name] = {
            "options": {**demo.PLAIN, **options},
            "seconds": result.report.settings["seconds"],
            "reconstruction_change_db": after.reconstruction_psnr - before.reconstruction_psnr,
            "gap_before_db": before.transforms["rot180"].equivariance_gap_db,
            "gap_after_db": after.transforms["rot180"].equivariance_gap_db,
        }
        print(name, {k: round(v, 2) for k, v in rows[name].items() if k != "options"}, flush=True)
    if not only:
        print(record.save("demo_frontier", {"trials": rows}))


if __name__ == "__main__":
    typer.run(main)
