"""The options of a fine-tune in groups, each with the rules between its fields."""

from equivae.training.options.hub import HubOptions
from equivae.training.options.images import ImageOptions
from equivae.training.options.objective import ObjectiveOptions, Train
from equivae.training.options.optimisation import OptimisationOptions, Precision
from equivae.training.options.run import RunOptions

__all__ = [
    "HubOptions",
    "ImageOptions",
    "ObjectiveOptions",
    "OptimisationOptions",
    "Precision",
    "RunOptions",
    "Train",
]
