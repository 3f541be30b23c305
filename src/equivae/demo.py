"""`equivae demo`: the embedded VAE learns 180° rotation, in about two minutes on two CPU cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from equivae import zoo
from equivae.data import DeadLeaves, load_images
from equivae.training import FinetuneResult, finetune

__all__ = ["demo"]

# The point that benchmarks/demo_frontier.py found best in the time.
OPTIONS: dict[str, Any] = {
    "max_train_steps": 400,
    "train_batch_size": 4,
    "learning_rate": 1e-3,
    # Reconstruction counts more: the gap closes fast, what reconstruction loses comes back slowly.
    "weight": 0.17,
    "sweep_samples": 1,
}
TRAINING_IMAGES, RESOLUTION = 400, 64


def demo(output_dir: str | Path = "equivae-demo", **options: Any) -> FinetuneResult:
    """Fine-tune the embedded VAE for rot180 on procedural images, and test it on photographs.

    Args:
        output_dir: a new or empty folder; VAE, report and figures are written there.
        options: as in `finetune`, above the demo's own.

    ```python
    from equivae.demo import demo

    result = demo("demo-out", max_train_steps=1, train_batch_size=1)
    print(result.report.verdict)
    ```
    """
    seed = options.get("seed", 0)
    # A seed of its own: the embedded VAE was trained on images of seed 0.
    images = DeadLeaves(TRAINING_IMAGES, RESOLUTION, seed=seed + 1_000)
    return finetune(
        zoo.load(),
        load_images(images),
        transforms="rot180",
        output_dir=output_dir,
        validation_images=zoo.photographs(),
        **{**OPTIONS, **options},
    )
