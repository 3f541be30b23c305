"""Fine-tuning."""

from equivae.training.bottleneck import BottleneckOptions, BottleneckResult, train_bottleneck
from equivae.training.config import RECIPES, FinetuneConfig, Recipe
from equivae.training.finetune import FinetuneResult, finetune

__all__ = [
    "RECIPES",
    "BottleneckOptions",
    "BottleneckResult",
    "FinetuneConfig",
    "FinetuneResult",
    "Recipe",
    "finetune",
    "train_bottleneck",
]
