"""The options of a fine-tune in groups, each with the rules between its fields."""

from equivae.training.options.hub import HubOptions
from equivae.training.options.images import ImageOptions
from equivae.training.options.learning import Half, LearningOptions, Train
from equivae.training.options.objective import ObjectiveOptions
from equivae.training.options.optimisation import OptimisationOptions, Precision
from equivae.training.options.run import RunOptions

__all__ = [
    "Half",
    "HubOptions",
    "ImageOptions",
    "LearningOptions",
    "ObjectiveOptions",
    "OptimisationOptions",
    "Precision",
    "RunOptions",
    "Train",
]
