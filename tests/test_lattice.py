"""The laws that every lattice transform keeps, on grids of any size, rank and dtype."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import equivae
from equivae.transforms.lattice import LATTICE
from models import noise

NAMES = [t.name for t in LATTICE]
elements = st.sampled_from(LATTICE)
sides = st.integers(1, 6)
leading = st.lists(st.integers(1, 3), max_size=3)


@st.composite
def grids(draw: st.DrawFn) -> Tensor:
    """Tensors of rank 2 to 5 whose entries are all different."""
    shape = (*draw(leading), draw(sides), draw(sides))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.int64, torch.float16]))
    return torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)


@given(elements, elements)
def test_closure(a, b):
    assert a @ b in LATTICE


@given(elements, elements, elements)
def test_associativity(a, b, c):
    assert (a @ b) @ c == a @ (b @ c)


@given(elements, grids())
def test_inverse_on_both_sides(t, x):
    identity = equivae.get_transform("identity")
    assert t.inverse @ t == identity == t @ t.inverse
    assert t.inverse.inverse == t
    for op, undo in ((t.pixel, t.inverse.pixel), (t.latent, t.inverse.latent)):
        assert undo(op(x)).equal(x)
        assert op(undo(x)).equal(x)


@given(elements, elements, grids())
def test_a_at_b_applies_b_first(a, b, x):
    assert (a @ b).pixel(x).equal(a.pixel(b.pixel(x)))
    assert (a @ b).latent(x).equal(a.latent(b.latent(x)))


@given(elements, grids())
def test_shape_and_dtype(t, x):
    height, width = x.shape[-2:]
    last = (width, height) if t.swaps_axes else (height, width)
    for moved in (t.pixel(x), t.latent(x)):
        assert moved.dtype == x.dtype
        assert moved.shape == (*x.shape[:-2], *last)
        assert moved.flatten().sort().values.equal(x.flatten().sort().values)


@given(grids())
def test_rotations_are_those_of_torch(x):
    for name, turns in (("identity", 0), ("rot90", 1), ("rot180", 2), ("rot270", 3)):
        assert equivae.get_transform(name).pixel(x).equal(torch.rot90(x, turns, (-2, -1)))


def test_flips_and_transpositions_by_hand():
    x = torch.tensor([[1, 2, 3], [4, 5, 6]])
    expected = {
        "hflip": [[3, 2, 1], [6, 5, 4]],
        "vflip": [[4, 5, 6], [1, 2, 3]],
        "transpose": [[1, 4], [2, 5], [3, 6]],
        "antitranspose": [[6, 3], [5, 2], [4, 1]],
        "rot90": [[3, 6], [2, 5], [1, 4]],
        "rot270": [[4, 1], [5, 2], [6, 3]],
    }
    for name, values in expected.items():
        assert equivae.get_transform(name).pixel(x).tolist() == values


@pytest.mark.parametrize("name", ["rot90", "rot270", "transpose", "antitranspose"])
def test_quarter_turns_of_non_square_images(name):
    t = equivae.get_transform(name)
    x = noise(2, 3, 8, 12)
    assert t.swaps_axes
    assert t.pixel(x).shape == (2, 3, 12, 8)
    assert t.mask(x) is None
    assert t.inverse.pixel(t.pixel(x)).equal(x)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_pass(name):
    t = equivae.get_transform(name)
    x = noise(1, 2, 3, 4).requires_grad_()
    weights = noise(*t.pixel(x).shape, seed=1)
    (t.latent(x) * weights).sum().backward()
    assert x.grad is not None
    # A permutation's adjoint is its inverse.
    assert x.grad.equal(t.inverse.pixel(weights))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_into_one_graph(name):
    t = equivae.get_transform(name)
    x = noise(1, 2, 4, 6)
    compiled = torch.compile(lambda z: t.latent(z) + 1, fullgraph=True, backend="eager")
    assert compiled(x).equal(t.latent(x) + 1)


@given(elements)
def test_a_deterministic_transform_draws_itself(t):
    assert t.draw(3) is t


@given(elements)
def test_repr_and_hash(t):
    assert t.name in repr(t)
    assert len({t, t.inverse.inverse}) == 1


def test_batches_agree_with_single_samples():
    x = noise(3, 2, 4, 6)
    for t in LATTICE:
        assert t.pixel(x).equal(torch.stack([t.pixel(sample) for sample in x]))
