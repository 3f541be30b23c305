"""`equivae demo`: the embedded VAE, every way to equivariance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

from rich.table import Table

from equivae.cli.options import OutputDir, opt
from equivae.cli.showing import console, plain
from equivae.files.writing import check_claim
from equivae.options import SEED, at_least

__all__ = ["demo"]


def demo(
    output_dir: OutputDir = Path("equivae-demo"),
    seed: Annotated[int, opt("seed", "Seed of the images and draws.", range=SEED)] = 0,
    max_train_steps: Annotated[
        Optional[int],
        opt("max_train_steps", "Steps of each fine-tune; fewer is faster.", range=at_least(1)),
    ] = None,
) -> None:
    """The embedded VAE under 180° rotation: fitted, symmetrized, fine-tuned; minutes on two CPU cores."""
    from equivae.demo import PAGE
    from equivae.demo import demo as run

    check_claim(output_dir)
    console.print(
        "The goal: a latent turned by 180° decodes to the image turned by 180°. Four ways to reach it, "
        "beside re-encoding."
    )
    result = run(output_dir, seed=seed, max_train_steps=max_train_steps)
    # Without lines, so that nothing is cut off in a terminal of 80.
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    heads = ("", "recon-\nstruction", "round\ntrip", "gap", "seconds", "latent\nop")
    for head in (*heads, "old latents\nvalid"):
        table.add_column(head, no_wrap=True)
    for one in result.choices:
        table.add_row(
            one.name,
            f"{one.reconstruction_psnr:.2f} dB",
            f"{one.round_trip_psnr:.2f} dB",
            f"{one.gap_db:.2f} dB",
            f"{one.seconds:.0f}",
            one.latent_op,
            "yes" if one.latents_stay_valid else "no",
        )
    console.print(table)
    console.print(f"Written to [bold]{plain(output_dir)}[/]: ", end="")
    console.print(", ".join(sorted(p.name for p in output_dir.iterdir())))
    console.print(f"Open [bold]{plain(output_dir / PAGE)}[/] in a browser.")
