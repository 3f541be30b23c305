"""What moves: transforms, their registry, and groups of them. Knows nothing of VAEs."""

from equivae.transforms.base import ComposedTransform, Transform
from equivae.transforms.builtin import register_builtins
from equivae.transforms.cells import Crop, Shift
from equivae.transforms.combinators import Choice, choice, compose, maybe
from equivae.transforms.families import Blend, PerSample, RandomTransform
from equivae.transforms.groups import (
    Group,
    get_group,
    list_groups,
    resolve_transforms,
    split_transforms,
)
from equivae.transforms.lattice import LatticeTransform
from equivae.transforms.paste import Paste
from equivae.transforms.placing import CellTransform
from equivae.transforms.registry import (
    FunctionTransform,
    get_transform,
    list_transforms,
    register_transform,
)
from equivae.transforms.representations import (
    ChannelPermutation,
    ChannelResponse,
    ModuleResponse,
    RepresentedTransform,
    SignFlips,
)
from equivae.transforms.resampled import FractionalShift, Scale
from equivae.transforms.table import TransformInfo, transform_table
from equivae.transforms.warp import Warp

register_builtins()

__all__ = [
    "Blend",
    "CellTransform",
    "ChannelPermutation",
    "ChannelResponse",
    "Choice",
    "ComposedTransform",
    "Crop",
    "FractionalShift",
    "FunctionTransform",
    "Group",
    "LatticeTransform",
    "ModuleResponse",
    "Paste",
    "PerSample",
    "RandomTransform",
    "RepresentedTransform",
    "Scale",
    "Shift",
    "SignFlips",
    "Transform",
    "TransformInfo",
    "Warp",
    "choice",
    "compose",
    "get_group",
    "get_transform",
    "list_groups",
    "list_transforms",
    "maybe",
    "register_transform",
    "resolve_transforms",
    "split_transforms",
    "transform_table",
]
