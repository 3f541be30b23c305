"""Fine-tuning."""

from equivae.training.config import RECIPES, FinetuneConfig, Recipe
from equivae.training.finetune import FinetuneResult, finetune

__all__ = ["RECIPES", "FinetuneConfig", "FinetuneResult", "Recipe", "finetune"]
