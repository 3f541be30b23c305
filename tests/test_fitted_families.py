"""Fitted ops of random transforms: they draw as before, and what is drawn applies its own fitted op."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivae
from equivae.operators import FittedFamily, operators_of
from equivae.operators.transform import default_name
from equivae.transforms import ComposedTransform
from models import ConvAE, PoolAE, noise

get = equivae.get_transform


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def eqvae() -> FittedFamily:
    family = get("compose", of=[get("scale_equivariance"), get("random_rot90", same_on_batch=True)])
    return equivae.fit_latent_op(ConvAE(), family, noise(6, 3, 32, 32), 3, progress=False)


def test_it_draws_as_before(eqvae):
    factors = set()
    for seed in range(12):
        plain = eqvae.base.draw(2, generator(seed))
        fitted = eqvae.draw(2, generator(seed))
        x = noise(2, 3, 32, 32)
        assert fitted.pixel(x).equal(plain.pixel(x))
        assert fitted.latent(noise(2, 4, 16, 16)).shape == plain.latent(noise(2, 4, 16, 16)).shape
        factors.add((plain.outer.name, plain.inner.name))
    assert len(factors) > 3


def test_what_is_drawn_is_the_fitted_op_of_each_factor(eqvae):
    ops = {one.base.name: one for one in eqvae.members}
    assert all(one.operator.moves_grid == ("scale" in name) for name, one in ops.items())
    assert set(ops) == {"scale(factor=0.5)", "scale(factor=0.25)", "rot90", "rot180", "rot270"}
    ops["identity"] = get("identity")
    for seed in range(8):
        drawn = eqvae.draw(2, generator(seed))
        assert isinstance(drawn, ComposedTransform)
        plain = eqvae.base.draw(2, generator(seed))
        z = noise(2, 4, 16, 16)
        expected = ops[plain.outer.name].latent(ops[plain.inner.name].latent(z))
        assert drawn.latent(z).equal(expected)


class Blocks(nn.Module):
    """Pixels of a block of 2x2 as channels: nothing is lost, every move of pixels is linear in the latent."""

    def encode(self, images: Tensor) -> Tensor:
        return F.pixel_unshuffle(images, 2)

    def decode(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(latents, 2)


def test_it_is_nearer_than_the_plain_ops():
    vae, x = Blocks(), noise(3, 3, 32, 32, seed=5)
    base = get("compose", of=[get("scale", factor=0.5), get("random_rot90", same_on_batch=True)])
    family = equivae.fit_latent_op(vae, base, noise(24, 3, 32, 32), 3, progress=False)
    z = vae.encode(x)
    turned = 0
    for seed in range(6):
        plain, fitted = (t.draw(3, generator(seed)) for t in (family.base, family))
        goal = vae.encode(plain.pixel(x))
        errors = [float((one.latent(z) - goal)[..., 2:-2, 2:-2].std()) for one in (fitted, plain)]
        assert errors[0] < 0.05 * errors[1]
        turned += plain.outer.name != "identity"
    assert turned > 1


def test_the_untouched_images_are_encoded_once():
    seen: list[torch.Size] = []

    class Counting(PoolAE):
        def encode(self, images: Tensor) -> Tensor:
            seen.append(images.shape)
            return super().encode(images)

    vae = Counting(2)
    equivae.Autoencoder(vae).geometry  # noqa: B018  probed outside the count
    family = get("random_scale", factors=(0.25, 0.5, 0.75))
    images = equivae.data.dead_leaves(12, 32)
    fitted = equivae.fit_latent_op(vae, family, images, 3, progress=False)
    assert [one.base.factor for one in fitted.members] == [0.25, 0.5, 0.75]
    assert sum(shape[0] for shape in seen if shape[-1] == 32) <= 12 + 1  # and the probe's


def test_every_scaling_of_eqvae_is_there():
    from equivae.transforms.members import members_of

    names = [t.name for t in members_of(get("eqvae"))]
    assert len(names) == 24 + 3
    assert all(get(name).name == name for name in names)


def test_rows_of_their_own_draw_keep_theirs():
    fitted = equivae.fit_latent_op(ConvAE(), "random_flip", noise(4, 3, 16, 16), 1, progress=False)
    drawn = fitted.draw(6, generator(1))
    plain = fitted.base.draw(6, generator(1))
    ops = {"identity": get("identity"), **{one.base.name: one for one in fitted.members}}
    z = noise(6, 4, 8, 8)
    for part, rows in plain.parts:
        torch.testing.assert_close(drawn.latent(z)[rows], ops[part.name].latent(z[rows]))


def test_saved_and_loaded_it_is_the_same(tmp_path, eqvae):
    fitted = equivae.fit_latent_op(ConvAE(), "random_flip", noise(4, 3, 16, 16), 1, progress=False)
    fitted.named("mine").save(tmp_path)
    again = FittedFamily.load(tmp_path)
    assert (again.name, again.reports) == ("mine", fitted.reports)
    z = noise(3, 4, 8, 8)
    assert again.draw(3, generator()).latent(z).equal(fitted.draw(3, generator()).latent(z))
    with pytest.raises(equivae.InputError, match="no fitted family"):
        FittedFamily.load(tmp_path / "00_hflip_fitted")
    # Whoever moves or saves the operators of a run finds those of a family.
    assert len(operators_of([eqvae])) == len({id(one.operator) for one in eqvae.members})


def test_losses_and_measures_take_it():
    vae = ConvAE()
    x = noise(4, 3, 16, 16)
    fitted = equivae.fit_latent_op(vae, "random_flip", x, 1, progress=False)
    terms = equivae.EquivarianceLoss([fitted])(vae, x).terms
    assert "equivariance/random_flip_fitted" in terms


def test_a_sign_is_part_of_a_default_name():
    names = [default_name(get("shift", y=y, x=0)) for y in (1, -1)]
    assert names == ["shift_y_1_x_0_fitted", "shift_y_minus1_x_0_fitted"]
    assert default_name(get("rot180")) == "rot180_fitted"


def test_what_the_letters_of_a_name_do_not_tell_apart_is_kept_apart(tmp_path):
    family = get("choice", of="shift(y=1,x=0),shift(y=-1,x=0)")
    fitted = equivae.fit_latent_op(ConvAE(), family, noise(4, 3, 16, 16), 1, progress=False)
    fitted.save(tmp_path)
    z = noise(1, 4, 8, 8)
    for ours, theirs in zip(fitted.members, FittedFamily.load(tmp_path).members, strict=True):
        assert ours.base.name == theirs.base.name
        assert ours.latent(z).equal(theirs.latent(z))


def test_endless_draws_are_refused():
    with pytest.raises(equivae.InputError, match="divide by 32"):
        equivae.fit_latent_op(ConvAE(), "eqvae", noise(4, 3, 32, 32), progress=False)
    with pytest.raises(equivae.InputError, match="choice"):
        equivae.fit_latent_op(ConvAE(), "random_rotate", noise(4, 3, 16, 16), progress=False)


def test_the_command_writes_a_family(monkeypatch, tmp_path, capsys):
    from PIL import Image

    from equivae.cli import main

    photos = tmp_path / "photos"
    photos.mkdir()
    for i, one in enumerate(noise(3, 3, 32, 32).add(1).mul(127).byte()):
        Image.fromarray(one.permute(1, 2, 0).numpy()).save(photos / f"{i}.png")
    words = ["fit", "--pretrained_model_name_or_path", "embedded", "--train_data_dir", photos]
    words += ["--transforms", "random_flip", "--resolution", 32, "--kernel_size", 1]
    words += ["--no_border", "--output_dir", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["equivae", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "rot180" in capsys.readouterr().out
    assert len(FittedFamily.load(tmp_path / "out").members) == 3
