"""Whatever a parameter of a transform is given: it works, or one sentence says that it cannot."""

import inspect
import warnings

import pytest
import torch

import equivae
from equivae import InputError
from equivae.transforms.registry import factory_of

get = equivae.get_transform
BUILTIN = [row.name for row in equivae.transforms.transform_table() if row.source == "equivae"]
PARAMETERS = [(n, p) for n in BUILTIN for p in inspect.signature(factory_of(n)).parameters]
NAN, INF = float("nan"), float("inf")
NONSENSE = [
    *(None, "a", "", b"x", True, 0, -1, 3, 10**30, -0.5, 1.5, NAN, INF, -INF, 1j, ...),
    *((), (1,), (2, 1), (NAN, 1), ("a", "b"), [], {}, {"a": 1}, ((1,),), (1, 2, 3)),
]
SHAPES = {
    "image": ((2, 3, 8, 8), (2, 8, 4, 4)),
    "video": ((2, 3, 4, 8, 8), (2, 8, 2, 4, 4)),
    "audio": ((2, 1, 16), (2, 8, 8)),
}


def use(name, **parameters):
    """Build, place, draw and apply; `InputError` is the only error that may come."""
    t = get(name, **parameters)
    image, latent = (
        (*shape[:-2], *(side * t.block for side in shape[-2:])) for shape in SHAPES[t.layouts[0]]
    )
    drawn = t.at_factor(2, 2).draw(2, torch.Generator().manual_seed(0))
    moved = drawn.pixel(torch.rand(image))
    assert moved.isfinite().all()
    assert drawn.latent(torch.rand(latent)).isfinite().all()
    if t.layouts[0] == "image":
        drawn.mask(torch.rand(image))
    if all(not isinstance(value, torch.Tensor) for value in vars(t).values()):
        assert get(t.name) == t


def test_a_name_shows_what_differs_from_the_defaults_of_its_own_class():
    assert "antialias" not in get("haku_affine").name
    assert "padding_mode" not in get("haku_affine").name
    other = get("haku_affine", antialias=True, padding_mode="zeros")
    assert other.name.endswith("padding_mode='zeros',antialias=True)")
    assert get(other.name) == other


def refuses(name, parameter, value):
    try:
        use(name, **{parameter: value})
    except InputError as error:
        if len(str(error).splitlines()) == 1:
            return True
        raise
    except Exception as error:
        raise AssertionError(f"{name}({parameter}={value!r}): {error!r}") from error
    return False


def test_nonsense_is_refused_in_one_sentence_or_can_be_meant():
    tried = refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for name, parameter in PARAMETERS:
            for value in NONSENSE:
                tried += 1
                refused += refuses(name, parameter, value)
    assert tried > 3000
    assert refused > tried / 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rotate(angle='a')", "angle must be made of finite numbers"),
        ("shift(y=1e999)", "y must be made of finite numbers"),
        ("crop(y=1.5)", "y must be a number in [0, 1]"),
        ("scale(factor=0)", "factor must be above 0"),
        ("fractional_shift(y=(1,2))", "y must be a number"),
        ("random_affine(scale=(2,1))", "scale must be a range (low, high)"),
        ("random_zoom(between=0.5)", "between must be a range"),
        ("random_crop(sizes=())", "sizes must be made of finite numbers"),
        ("random_scale(factors=(0.5,-1))", "factors must be a number of at least"),
        ("random_shift(cells=1000000)", "cells must be a number in [0, 65536]"),
        ("random_perspective(distortion_scale=2)", "distortion_scale must be a number in [0, 1]"),
        ("random_rot90(same_on_batch=1)", "same_on_batch must be True or False"),
        ("eqvae(antialias='yes')", "antialias must be True or False"),
        ("signed_hflip(channels=(0.5,))", "channels must be whole numbers"),
        ("blend(partner=(0.5,))", "partner must be a row of the batch"),
        ("maybe(p='a')", "p must lie in [0, 1]"),
    ],
)
def test_what_is_wrong_is_named_when_it_is_built(text, words):
    with pytest.raises(InputError) as caught:
        get(text)
    assert words in str(caught.value)


def test_partners_that_are_no_rows_are_refused():
    with pytest.raises(InputError, match="no rows of a batch of 2"):
        get("blend", partner=(2, 0)).pixel(torch.rand(2, 3, 8, 8))
    x = torch.rand(2, 3, 8, 8)
    assert torch.allclose(get("blend", weight=0.0, partner=(1, 0)).pixel(x), x.flip(0))


@pytest.mark.parametrize("nonsense", [None, 5, 1.5])
def test_what_is_no_list_of_transforms_is_refused(nonsense):
    with pytest.raises(InputError, match="is not a transform"):
        equivae.resolve_transforms(nonsense)


def test_one_number_of_cells_moves_both_axes():
    x = torch.rand(1, 3, 32, 32)
    both = [get("translate", cells=cells, cell=8).pixel(x) for cells in (1, (1, 1))]
    assert torch.equal(*both)
