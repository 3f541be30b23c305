"""The demo, measured: every way to 180° rotation on the embedded VAE, tested on photographs.

python benchmarks/demo.py --output_dir demo
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import record
from equivae.demo import demo


def main(
    output_dir: Annotated[Path, typer.Option("--output_dir", help="a new folder")],
) -> None:
    result = demo(output_dir, progress=False)
    choices = json.loads((output_dir / "choices.json").read_text(encoding="utf-8"))
    print(result.to_markdown())
    print(record.save("demo", {"choices": choices}))


if __name__ == "__main__":
    typer.run(main)
