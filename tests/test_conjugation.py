"""Latent ops that keep the law of their group exactly: a plain latent op behind an invertible network."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from torch import Tensor

import equivae
from equivae.errors import InputError
from equivae.operators import ConjugatedOperator, FittedTransform, load_latent_op, runtime
from equivae.operators.build import build_operator
from equivae.operators.conjugation import Element
from equivae.operators.representation import generated, plain_representation
from equivae.transforms import Group
from models import ConvAE
from test_cli import call
from test_fit import PatchAE, fit, noise

GROUPS = ["c2", "c4", "d2", "d4"]
# On an untrained autoencoder nothing decodes much better than anything else.
LOSES = pytest.mark.filterwarnings("ignore:the latent op fitted for")


def hidden(group: Group, copies: int = 2) -> dict[str, Tensor]:
    """A representation of a group in a basis that is no plain one: that of patches of 2x2 cells, mixed."""
    generator = torch.Generator().manual_seed(1)
    channels = 4 * copies
    basis = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    basis += 3 * torch.eye(channels, dtype=torch.float64)
    patches = torch.eye(4, dtype=torch.float64).view(4, 2, 2)
    found = {}
    for element in group:
        moved = torch.block_diag(*[element.pixel(patches).reshape(4, 4).T] * copies)
        found[element.name] = torch.linalg.inv(basis) @ moved @ basis
    return found


def affine(matrix: Tensor, fixed: Tensor) -> Tensor:
    """`(c, c + 1)`, of the map that has this matrix and leaves a point where it is."""
    return torch.cat([matrix, (fixed.double() - matrix @ fixed.double())[:, None]], 1)


def operators(group: Group, channels: int = 8) -> dict[str, ConjugatedOperator]:
    """Operators of a group that share a map whose couplings do much."""
    maps = {name: affine(one, torch.zeros(channels)) for name, one in hidden(group).items()}
    plain = plain_representation(group, maps, torch.zeros(channels), torch.eye(channels))
    first = ConjugatedOperator(plain.elements["identity"], channels, 3, width=6, couplings=5)
    first.map.begin(plain.basis, torch.linspace(-1, 1, channels))
    generator = torch.Generator().manual_seed(2)
    for parameter in first.map.couplings.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return {name: first.of(element) for name, element in plain.elements.items()}


@pytest.mark.parametrize("name", GROUPS)
def test_the_law_of_the_group_is_exact_whatever_the_map_is(name):
    group, z = equivae.get_group(name), noise(2, 8, 5, 7).double()
    ops = operators(group)
    assert (ops["rot180"](z) - group[0].latent(z)).abs().max() > 0.5, "the couplings do nothing"
    for g in group:
        for h in group:
            direct = ops[(g @ h).name](z)
            assert direct.shape == (g @ h).latent(z).shape
            torch.testing.assert_close(ops[g.name](ops[h.name](z)), direct, atol=1e-12, rtol=0)
        torch.testing.assert_close(ops[g.name].undoing(ops[g.name](z)), z, atol=1e-12, rtol=0)
    if "rot90" in ops:
        turned = z
        for _ in range(4):
            turned = ops["rot90"](turned)
        torch.testing.assert_close(turned, z, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_half_precision_keeps_the_law_to_its_rounding(dtype, most):
    ops, z = operators(equivae.get_group("c2")), noise(1, 8, 6, 6).to(dtype)
    back = ops["rot180"](ops["rot180"](z))
    assert back.dtype == dtype
    assert float((back - z).float().norm() / z.float().norm()) < most


@pytest.mark.parametrize("name", GROUPS)
def test_the_nearest_representation_is_that_which_is_there(name):
    """Out of noise too, where the matrices that were found are no representation."""
    group = equivae.get_group(name)
    true = hidden(group)
    for size in (0.0, 0.05):
        # From what generates the others.
        near = {
            k: affine(true[k] + size * noise(8, 8).double(), torch.arange(8.0))
            for k in ("rot180", "rot90", "hflip")
            if k in true
        }
        plain = plain_representation(group, near, torch.ones(8), torch.eye(8))
        kept = (plain.basis @ (plain.origin - torch.arange(8))).view(-1, 1, 1)
        back = torch.linalg.inv(plain.basis)
        for element in group:
            one = plain.elements[element.name]
            matrix = torch.zeros(8, 8, dtype=torch.float64)
            matrix[range(8), list(one.order)] = torch.tensor(one.signs).double()
            found = back @ matrix @ plain.basis
            if size == 0:  # the fixed point is found up to what the element leaves alone anyway
                moved = one(kept[None])[0]
                torch.testing.assert_close(moved, kept, atol=1e-8, rtol=0)
            error = (found - true[element.name]).norm() / true[element.name].norm()
            assert error < (1e-6 if size == 0 else 0.3)


@pytest.mark.parametrize("transform", ["rot180", "rot90", "transpose"])
def test_latents_that_have_a_representation_are_moved_exactly(transform):
    t = fit(
        PatchAE(), transform, noise(12, 3, 16, 16), 1, method="conjugation", network="small",
        max_train_steps=1,
    )  # fmt: skip
    assert t.report.latent_error < 1e-3
    z = noise(1, 12, 4, 6)
    assert (t.inverse.latent(t.latent(z)) - z).abs().max() < 1e-4
    assert (t.report.method, t.report.inverse_consistency < 1e-5) == ("conjugation", True)
    assert not t.operator.map.bases[0].requires_grad


@LOSES
@pytest.mark.parametrize("transform", ["hflip", "colour_negative"])
def test_steps_are_taken_and_the_law_stays(transform):
    vae, images = ConvAE(), noise(16, 3, 16, 16)
    t = fit(
        vae, transform, images, 3, method="conjugation", width=4, layers=2, max_train_steps=6,
        objective="decoded", validation_split=0.25,
    )  # fmt: skip
    start, after = t.report.candidates
    assert after.decoded_psnr > start.decoded_psnr
    z = noise(1, t.operator.channels, 6, 4).double()
    assert t.inverse is t
    torch.testing.assert_close(t.latent(t.latent(z)), z, atol=1e-12, rtol=0)


@LOSES
def test_a_group_is_fitted_at_once_and_obeys_its_law(tmp_path):
    group = equivae.fit_latent_group(
        ConvAE(), "d4", noise(8, 3, 16, 16), 3, method="conjugation", network="small",
        max_train_steps=3, progress=False,
    )  # fmt: skip
    assert len(group.closure) == 49
    assert group.closure_error < 1e-5
    assert len({id(t.operator.map) for t in group}) == 1
    quarter = group["rot90"]
    assert quarter.inverse.operator is group["rot270"].operator
    quarter.save(tmp_path / "quarter")
    back = load_latent_op(tmp_path / "quarter")
    z = noise(2, quarter.operator.channels, 4, 6)
    applied = runtime.load(tmp_path / "quarter")
    for one in (back, applied):
        move = one.latent if isinstance(one, FittedTransform) else one
        undo = one.inverse.latent if isinstance(one, FittedTransform) else one.inverse
        assert move(z).equal(quarter.latent(z))
        torch.testing.assert_close(undo(move(z)), z, atol=1e-5, rtol=0)
    assert back.header()["inverse"] == "derived"
    assert not any(key.startswith("inverse") for key in back.module.state_dict())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"transform": "scale(factor=2)"}, "quarter turns"),
        ({"transform": "exposure(factor=0.6)"}, "quarter turns"),
        ({"magnitude": 3}, "magnitude"),
        ({"ridge": 0.1}, "ridge"),
        ({"padding": "reflect"}, "padding"),
        ({"involution": True}, "involution"),
        ({"border": False}, "border"),
        ({"kernel_size": "auto"}, "kernel_size"),
    ],
)
def test_bad_input(options, word):
    given = {"transform": "rot180", "kernel_size": 1, **options}
    with pytest.raises(InputError, match=word):
        fit(ConvAE(), given.pop("transform"), noise(4, 3, 16, 16), method="conjugation", **given)


def test_bad_groups():
    images = noise(4, 3, 16, 16)
    with pytest.raises(InputError, match="generators"):
        equivae.fit_latent_group(
            ConvAE(), "c4", images, 1, basis="generators", method="conjugation", progress=False
        )
    open_ended = Group("open", tuple(map(equivae.get_transform, ("identity", "rot90", "rot180"))))
    with pytest.raises(InputError, match="not closed"):
        equivae.fit_latent_group(
            ConvAE(), open_ended, images, 1, method="conjugation", progress=False
        )
    assert [t.name for t in generated(equivae.get_transform("rot90"))] == [
        "identity", "rot90", "rot180", "rot270",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--group", "d5"], "d5"),
        (["--method", "conjugation", "--basis", "generators"], "generators"),
        (["--method", "conjugation", "--magnitude", "3"], "magnitude"),
        (["--kernel_size", "4"], "kernel_size"),
    ],
)
def test_a_group_through_the_command_line_refuses_what_is_wrong(
    words, said, tmp_path, capsys, monkeypatch
):
    asked = [
        "--pretrained_model_name_or_path",
        "embedded",
        "--train_data_dir",
        str(tmp_path),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert call(monkeypatch, "fit-group", *asked, *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@LOSES
def test_a_group_through_the_command_line(tmp_path, capsys, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, one in enumerate(noise(3, 3, 32, 32).add(1).mul(127).byte()):
        Image.fromarray(one.permute(1, 2, 0).numpy()).save(photos / f"{i}.png")
    words = ["--group", "c2", "--method", "conjugation", "--network", "small", "--kernel_size", "3"]
    words += ["--max_train_steps", "1", "--resolution", "32", "--validation_split", "0.3"]
    folder = tmp_path / "out"
    asked = [
        "--pretrained_model_name_or_path",
        "embedded",
        "--train_data_dir",
        str(photos),
        "--output_dir",
        str(folder),
    ]
    assert call(monkeypatch, "fit-group", *asked, *words) == 0
    assert "rot180_fitted" in capsys.readouterr().out
    op = load_latent_op(folder / "rot180_fitted")
    z = noise(1, op.operator.channels, 4, 6).double()
    torch.testing.assert_close(op.latent(op.latent(z)), z, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    "broken", [{"order": [0, 0]}, {"signs": [1, 2]}, {"signs": [1]}, {"move": None}]
)
def test_a_broken_description_is_refused(broken):
    one = ConjugatedOperator(Element({}, (1, 0), (1, -1)), 2, 3, width=2, couplings=2)
    config = json.loads(json.dumps(one.config()))
    assert build_operator(config).config() == one.config()
    with pytest.raises(InputError, match="broken"):
        build_operator(config | broken)


@LOSES
@pytest.mark.parametrize(("rate", "told"), [(1e6, True), (1e-3, False)])
def test_steps_that_improve_nothing_are_told_of(caplog, rate, told):
    equivae.fit_latent_op(
        ConvAE(), "hflip", noise(8, 3, 16, 16), 3, method="conjugation", network="small",
        max_train_steps=20, learning_rate=rate, progress=False,
    )  # fmt: skip
    assert ("no step improved" in caplog.text) is told
