"""Channel responses, and group laws for the pair of pixel op and latent op."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import equivae
from equivae.testing import ContractError, check_group, check_transform
from equivae.transforms import ChannelPermutation, ModuleResponse, SignFlips

get = equivae.get_transform


@given(st.sets(st.integers(-4, 3)))
def test_sign_flips_flip_the_named_channels_and_undo_themselves(channels):
    z = torch.randn(2, 4, 3, 3)
    response = SignFlips(tuple(channels))
    flipped = {c % 4 for c in channels}
    for c in range(4):
        assert torch.equal(response(z)[:, c], -z[:, c] if c in flipped else z[:, c])
    assert torch.equal(response.inverse(response(z)), z)


@given(st.permutations(range(5)))
def test_permutations_have_inverses(order):
    z = torch.randn(2, 5, 3, 3)
    response = ChannelPermutation(tuple(order))
    assert torch.equal(response(z), z[:, order])
    assert torch.equal(response.inverse(response(z)), z)


def test_auraequivae_flips_are_those_of_its_published_usage():
    z = torch.randn(2, 16, 8, 8)
    horizontal = torch.flip(z, [-1])
    horizontal[:, -4:-2] = -horizontal[:, -4:-2]
    assert torch.equal(get("signed_hflip").latent(z), horizontal)
    vertical = torch.flip(z, [-2])
    vertical[:, -2:] = -vertical[:, -2:]
    assert torch.equal(get("signed_vflip").latent(z), vertical)


def test_auraequivae_is_a_group_as_pairs():
    check_group([get(n) for n in ("identity", "signed_hflip", "signed_vflip", "signed_rot180")])


def test_the_grid_alone_does_not_make_a_group():
    """The grids are d2, but the signs do not multiply: hflip's and vflip's are not rot180's."""
    pairs = [get(n) for n in ("identity", "signed_hflip", "signed_vflip", "rot180")]
    check_group([get(n) for n in ("identity", "hflip", "vflip", "rot180")])
    with pytest.raises(ContractError, match="none of the elements"):
        check_group(pairs)


@pytest.mark.parametrize("name", equivae.list_groups())
def test_the_groups_are_groups(name):
    check_group(equivae.get_group(name))


def test_what_is_no_group_is_found_out():
    with pytest.raises(ContractError, match="identity"):
        check_group([get("hflip")])
    with pytest.raises(ContractError, match="none of the elements"):
        check_group([get("identity"), get("rot90")])
    four = get("rot180").with_representation(ChannelPermutation((1, 2, 3, 0)))
    with pytest.raises(ContractError, match="none of the elements"):
        check_group([get("identity"), four])


def test_pairs_compose_as_pairs():
    a = get("rot90").with_representation(ChannelPermutation((1, 2, 0, 3)))
    b = get("hflip").with_representation(SignFlips((0,)))
    x, z = torch.randn(1, 3, 6, 8), torch.randn(1, 4, 3, 4)
    assert torch.equal((a @ b).latent(z), a.latent(b.latent(z)))
    assert torch.equal((a @ b).pixel(x), x.flip(-1).rot90(1, (-2, -1)))
    assert torch.equal((a @ b).inverse.latent((a @ b).latent(z)), z)


def test_a_module_is_a_response_with_gradients_for_its_weights():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    t = get("rot180").with_representation(ModuleResponse(conv))
    z = torch.randn(2, 4, 8, 8)
    assert torch.equal(t.latent(z), conv(z.flip((-2, -1))))
    t.latent(z).sum().backward()
    assert conv.weight.grad is not None
    assert t.latent(z.double()).dtype == torch.float64
    with pytest.raises(NotImplementedError):
        _ = t.inverse
    check_transform(t)


def test_the_inverse_of_a_module_pair_undoes_the_response_first():
    torch.manual_seed(0)
    wide = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), bias=False)
    with torch.no_grad():  # shifts channel 0 by one column: it does not commute with a flip
        wide.weight.zero_()
        for c in range(4):
            wide.weight[c, c, 0, 0 if c == 0 else 1] = 1
    back = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), bias=False)
    with torch.no_grad():
        back.weight.copy_(wide.weight.flip(-1))
    t = get("hflip").with_representation(ModuleResponse(wide, back))
    z = torch.zeros(1, 4, 5, 7)
    z[..., 3] = torch.randn(1, 4, 5)
    assert not torch.equal(t.latent(z), z.flip(-1))
    assert torch.equal(t.inverse.latent(t.latent(z)), z)


def test_pointwise_modules_have_pointwise_inverses():
    weight = torch.linalg.qr(torch.randn(4, 4))[0]
    there, back = nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)
    with torch.no_grad():
        there.weight.copy_(weight[..., None, None])
        back.weight.copy_(torch.linalg.inv(weight)[..., None, None])
    t = get("rot90").with_representation(ModuleResponse(there, back, pointwise=True))
    z = torch.randn(1, 4, 5, 7)
    assert torch.allclose(t.inverse.latent(t.latent(z)), z, atol=1e-5)
    assert t.inverse.swaps_axes


def test_wrong_channels_are_named():
    with pytest.raises(equivae.InputError, match="4 channels"):
        get("signed_hflip", channels=(7,)).latent(torch.zeros(1, 4, 2, 2))
    with pytest.raises(equivae.InputError, match="permutation"):
        ChannelPermutation((0, 0, 1))
    with pytest.raises(equivae.InputError, match="3 channels"):
        ChannelPermutation((0, 2, 1))(torch.zeros(1, 4, 2, 2))


def test_representations_survive_drawing_and_masks():
    t = get("random_rotate").with_representation(SignFlips((1,))).at_factor(8)
    drawn = t.draw(2, torch.Generator().manual_seed(0))
    z = torch.randn(2, 4, 8, 8)
    assert torch.allclose(drawn.latent(z)[:, 1], -drawn.grid.latent(z)[:, 1])
    assert drawn.mask(torch.randn(2, 3, 64, 64)).shape == (2, 1, 64, 64)
    assert drawn.name == t.name


def test_every_pair_of_signed_flips_commutes():
    names = ("signed_hflip", "signed_vflip", "signed_rot180")
    z = torch.randn(1, 8, 4, 4)
    for a, b in itertools.product(names, names):
        assert torch.equal((get(a) @ get(b)).latent(z), (get(b) @ get(a)).latent(z))
