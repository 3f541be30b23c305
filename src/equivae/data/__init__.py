"""Images: folders, datasets, the hub, tensors, and a procedural set."""

from equivae.data.procedural import DeadLeaves, dead_leaves
from equivae.data.sources import ImageDataset, load_images

__all__ = ["DeadLeaves", "ImageDataset", "dead_leaves", "load_images"]
