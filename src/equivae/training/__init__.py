"""Fine-tuning."""

from equivae.training.bottleneck import BottleneckOptions, BottleneckResult, train_bottleneck
from equivae.training.config import RECIPES, FinetuneConfig, Recipe, find_recipe
from equivae.training.finetune import FinetuneResult, finetune
from equivae.training.lora import Lora, load_lora
from equivae.training.recipes import read_recipe

__all__ = [
    "RECIPES",
    "BottleneckOptions",
    "BottleneckResult",
    "FinetuneConfig",
    "FinetuneResult",
    "Lora",
    "Recipe",
    "find_recipe",
    "finetune",
    "load_lora",
    "read_recipe",
    "train_bottleneck",
]
