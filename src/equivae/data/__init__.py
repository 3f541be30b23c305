"""Images: folders, datasets, the hub, tensors, and a procedural set."""

from equivae.data.base import Source
from equivae.data.images import ImageDataset
from equivae.data.procedural import DeadLeaves, dead_leaves
from equivae.data.sources import load_images
from equivae.data.unreadable import UnreadableImage

__all__ = [
    "DeadLeaves",
    "ImageDataset",
    "Source",
    "UnreadableImage",
    "dead_leaves",
    "load_images",
]
