"""Random families and combinators: seeded, per call or per sample, and safe inside the loss."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import equivae
from equivae.evaluation.quality import mean_inside
from equivae.losses.reconstruction import masked, mse
from equivae.transforms import Choice, LatticeTransform, choice, compose, maybe

get = equivae.get_transform
RANDOM = [name for name in equivae.list_transforms() if name.startswith("random_")]
PRESETS = ["eqvae", "hakulatent", "scale_equivariance", "choice", "maybe"]


def at8(name, **parameters):
    """The transform for a VAE whose latent cells span 8 pixels."""
    return get(name, **parameters).at_factor(8)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def images(batch=4, side=64, seed=0):
    return torch.rand(batch, 3, side, side, generator=seeded(seed)) * 2 - 1


@pytest.mark.parametrize("name", RANDOM + PRESETS)
def test_one_seed_one_draw_and_other_seeds_other_draws(name):
    t, x = at8(name), images()
    results = [t.draw(4, seeded(seed)).pixel(x) for seed in (1, 1, *range(2, 12))]
    assert torch.equal(results[0], results[1])
    assert any(r.shape != results[0].shape or not torch.equal(r, results[0]) for r in results[2:])


@pytest.mark.parametrize("name", [n for n in RANDOM if n != "random_scale"])
def test_samples_differ_unless_same_on_batch(name):
    one = images(1)
    x = one.repeat(6, 1, 1, 1)
    if name == "random_blend":
        x = images(6)

    def alike(t):
        drawn = t.draw(6, seeded(3))
        moved = drawn.pixel(x)
        if name == "random_blend":
            return drawn.weight.numel() == 1
        return all(torch.equal(moved[i], moved[0]) for i in range(6))

    assert alike(at8(name, same_on_batch=True))
    assert not alike(at8(name, same_on_batch=False))


@pytest.mark.parametrize("name", [*RANDOM, "eqvae"])
def test_undrawn_ops_are_refused(name):
    with pytest.raises(equivae.InputError, match="draw"):
        get(name).pixel(images())


@pytest.mark.parametrize("name", ["random_affine", "random_shift", "random_blend"])
def test_a_draw_belongs_to_its_batch(name):
    with pytest.raises(equivae.InputError, match="drawn for 4 samples"):
        at8(name).draw(4, seeded(0)).latent(torch.zeros(3, 4, 8, 8))


def test_eqvae_draws_from_its_grid_and_turns():
    sizes, x, z = set(), torch.empty(2, 3, 256, 256, device="meta"), torch.zeros(2, 4, 32, 32)
    t = at8("eqvae")
    for seed in range(200):
        drawn = t.draw(2, seeded(seed))
        latent, image = drawn.latent(z), drawn.pixel(x)
        assert image.shape[-1] == 8 * latent.shape[-1]
        assert isinstance(drawn.outer, LatticeTransform)
        assert drawn.outer.name in ("rot90", "rot180", "rot270")
        sizes.add(latent.shape[-1])
    assert sizes == set(range(8, 32))
    ratios = {
        t.latent(z).shape[-2:]
        for t in (get("eqvae", anisotropic=True).draw(1, seeded(s)) for s in range(9))
    }
    assert any(h != w for h, w in ratios)


def test_eqvae_interpolates_as_the_published_code():
    x = images(2, 256)
    drawn = at8("eqvae").draw(2, seeded(4))
    factor = drawn.inner.factor
    k = {"rot90": 1, "rot180": 2, "rot270": 3}[drawn.outer.name]
    scaled = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    assert torch.allclose(drawn.pixel(x), torch.rot90(scaled, k, (-2, -1)), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 0.95), st.integers(0, 10**6))
def test_maybe_has_its_probability(p, seed):
    t = maybe("rot180", p=p, same_on_batch=False)
    x = torch.arange(2.0).reshape(1, 1, 1, 2).repeat(600, 1, 1, 1)
    turned = (t.draw(600, seeded(seed)).pixel(x)[:, 0, 0, 0] == 1).float().mean()
    assert abs(float(turned) - p) < 5 * (p * (1 - p) / 600) ** 0.5


def test_choice_follows_its_weights_and_names_itself():
    t = choice("hflip,rotate(angle=10)", weights=(0.0, 1.0))
    assert t.name == "choice(of='hflip,rotate(angle=10)',weights=(0,1))"
    assert all(t.draw(2, seeded(s)).name == "rotate(angle=10)" for s in range(5))
    assert get(t.name).weights == [0, 1]
    with pytest.raises(equivae.InputError, match="weight"):
        choice("hflip,vflip", weights=(1.0,))
    with pytest.raises(equivae.InputError, match="p must"):
        maybe("hflip", p=2)


def test_choice_per_sample_refuses_members_of_other_sizes():
    t = choice("identity,scale(factor=0.5)", same_on_batch=False).at_factor(8)
    with pytest.raises(equivae.InputError, match="same_on_batch"):
        t.draw(16, seeded(0)).pixel(images(16))


def test_compose_applies_the_first_one_first():
    x = images(1)
    t = compose("crop(size=0.5,y=0,x=0),hflip").at_factor(8)
    assert torch.equal(t.pixel(x), x[..., :32, :32].flip(-1))
    assert compose(["rot90", "rot90"]) == get("rot180")
    assert (
        get("compose", of="scale(factor=0.5),rot90").name == "compose(of='scale(factor=0.5),rot90')"
    )


def test_per_sample_transforms_keep_rows_masks_and_inverses():
    x = images(5)
    t = choice("hflip,translate(y=0.25,x=0)", same_on_batch=False).at_factor(8).draw(5, seeded(2))
    moved, mask, back = t.pixel(x), t.mask(x), t.inverse.pixel(t.pixel(x))
    flipped = [i for i in range(5) if torch.equal(moved[i], x[i].flip(-1))]
    assert 0 < len(flipped) < 5
    assert mask.shape == (5, 1, 64, 64)
    for i in range(5):
        assert mask[i].all() == (i in flipped)
    valid = (t.inverse @ t).mask(x).expand_as(x)
    assert torch.allclose(back[valid], x[valid], atol=1e-4)


def test_blending_mixes_both_spaces_alike():
    drawn = get("random_blend").draw(4, seeded(0))
    x = images(4)
    weight = drawn.weight.float().view(4, 1, 1, 1)
    assert torch.allclose(drawn.pixel(x), weight * x + (1 - weight) * x[drawn.partner])
    assert torch.allclose(
        F.avg_pool2d(drawn.pixel(x), 8), drawn.latent(F.avg_pool2d(x, 8)), atol=1e-6
    )
    fixed = get("blend", weight=0.25)
    assert torch.allclose(fixed.pixel(x), 0.25 * x + 0.75 * x.roll(1, 0))


# Inside loss and metrics --------------------------------------------------------------------------


class Pooling(torch.nn.Module):
    """An exactly equivariant autoencoder of factor 4."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def encode(self, x):
        return F.avg_pool2d(x, 4) * self.gain

    def decode(self, z):
        return F.interpolate(z, scale_factor=4, mode="nearest") * self.gain


def blocks(batch=4):
    """Images that pooling by 4 encodes without loss."""
    return F.interpolate(torch.rand(batch, 3, 16, 16) * 2 - 1, scale_factor=4, mode="nearest")


@pytest.mark.parametrize("schedule", ["dual", "sampled"])
def test_exact_families_cost_an_equivariant_vae_nothing(schedule):
    names = ["random_rot90", "random_shift", "random_crop", "random_blend", "random_flip", "choice"]
    loss_fn = equivae.EquivarianceLoss(
        names, schedule=schedule, probability=0.8, encoder_weight=1.0
    )
    for seed in range(3):
        out = loss_fn(Pooling(), blocks(), generator=seeded(seed))
        assert float(out.loss.detach()) < 1e-9
        known = {
            "reconstruction",
            *(
                f"{part}/{name}"
                for part in ("equivariance", "encoder")
                for name in [t.name for t in loss_fn.transforms]
            ),
        }
        assert set(out.terms) <= known


@pytest.mark.parametrize("name", ["random_affine", "random_rotate", "hakulatent", "eqvae", "scale"])
@pytest.mark.parametrize("schedule", ["dual", "sampled"])
def test_resampled_families_run_in_the_loss(schedule, name):
    loss_fn = equivae.EquivarianceLoss(name, schedule=schedule, probability=1.0, encoder_weight=0.1)
    vae = Pooling()
    out = loss_fn(vae, images(5), generator=seeded(0))
    out.loss.backward()
    assert out.loss.isfinite()
    assert vae.gain.grad.isfinite()
    again = loss_fn(vae, images(5), generator=seeded(0))
    assert torch.equal(out.loss, again.loss)


def test_the_loss_uses_the_factor_of_the_vae():
    """A shift by one cell is 4 pixels for a VAE of factor 4."""
    out = equivae.EquivarianceLoss(["shift(y=1,x=0)", "crop", "scale"])(Pooling(), blocks())
    assert float(out.terms["equivariance/shift(y=1,x=0)"]) < 1e-12
    assert float(out.terms["equivariance/crop(size=0.5,y=0.5,x=0.5)"]) < 1e-12


def test_evaluate_takes_random_and_masked_transforms():
    names = ["random_affine", "rotate(angle=30)", "hakulatent", "blend", "random_rot90"]
    report = equivae.evaluate(Pooling(), blocks(3), names, progress=False)
    found = report.metrics.transforms
    assert set(found) == {get(n).name for n in names}
    assert found["random_rot90"].round_trip_mse < 1e-12
    assert found["rotate(angle=30)"].equivariance_gap_db != float("inf")


@pytest.mark.parametrize("shape", [(8, 8), (3, 1, 8, 8)])
def test_masks_of_both_forms_restrict_losses_and_metrics(shape):
    generator = seeded(0)
    mask = torch.rand(*shape, generator=generator) > 0.4
    a, b = images(3, 8), images(3, 8, seed=1)
    full = mask.expand(3, 1, 8, 8).expand(3, 3, 8, 8)
    assert torch.allclose(masked(mse, a, b, mask), (a - b)[full].square().mean())
    per_image = mean_inside((a - b).square(), mask)
    expected = torch.stack([(a - b)[i][full[i]].square().mean() for i in range(3)])
    assert torch.allclose(per_image, expected)


def test_draws_of_the_sampled_schedule_match_their_rows():
    """Per-sample parameters reach the rows that they were drawn for, in pixels and in latents."""
    loss_fn = equivae.EquivarianceLoss("random_shift", schedule="sampled", probability=0.5)
    for seed in range(5):
        assert float(loss_fn(Pooling(), blocks(7), generator=seeded(seed)).loss.detach()) < 1e-9


def test_choice_keeps_its_attributes():
    t = Choice([get("hflip"), get("rotate")], "either")
    assert not t.exact
    assert t.layouts == ("image", "video")
