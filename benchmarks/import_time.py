"""How long `import equivae` takes beside `import torch`, each in a fresh interpreter.

    python benchmarks/import_time.py

The best of several runs counts, taken in turns, so that a busy moment hits all alike.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Annotated

import typer

import record

STATEMENTS = {
    "torch": "import torch",
    "equivae": "import equivae",
    "equivae_and_torch": "import equivae, torch",
    "first_transform": "import equivae; equivae.get_transform('rot180')",
    "first_loss": "import equivae; equivae.EquivarianceLoss('rot180')",
    "first_vae": "import equivae; equivae.zoo.load()",
    "finetune": "import equivae; equivae.finetune",
}


def seconds(statement: str) -> float:
    """Wall-clock time of an interpreter that runs one statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main(repeats: Annotated[int, typer.Option("--repeats", help="runs of each")] = 7) -> None:
    empty = min(seconds("pass") for _ in range(repeats))
    best = dict.fromkeys(STATEMENTS, float("inf"))
    for _ in range(repeats):
        for name, statement in STATEMENTS.items():
            best[name] = min(best[name], seconds(statement) - empty)
    ratios = {name: round(value / best["torch"], 3) for name, value in best.items()}
    for name, ratio in ratios.items():
        print(f"{STATEMENTS[name]:54} {best[name]:6.2f} s  {ratio:5.2f}x torch")
    times = {name: round(value, 3) for name, value in best.items()}
    print(record.save("import_time", {"seconds": times, "ratio_to_torch": ratios}))


if __name__ == "__main__":
    typer.run(main)
