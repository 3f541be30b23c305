"""What moves: transforms, their registry, and groups of them. Knows nothing of VAEs."""

from equivae.transforms.base import ComposedTransform, Transform
from equivae.transforms.groups import Group, get_group, list_groups, resolve_transforms
from equivae.transforms.lattice import LatticeTransform
from equivae.transforms.registry import (
    FunctionTransform,
    get_transform,
    list_transforms,
    register_transform,
)

__all__ = [
    "ComposedTransform",
    "FunctionTransform",
    "Group",
    "LatticeTransform",
    "Transform",
    "get_group",
    "get_transform",
    "list_groups",
    "list_transforms",
    "register_transform",
    "resolve_transforms",
]
