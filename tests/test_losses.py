"""The objective, against formulas computed by hand and against the published loop."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import equivae
from equivae import EquivarianceLoss, InputError
from equivae.errors import EmptyMaskError
from equivae.losses.reconstruction import masked, mse
from models import ConvAE, PoolAE, cells, noise, tiny_kl
from test_registry import ShiftRight


def value(loss_fn, vae, images, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return loss_fn(vae, images, generator=generator, **options)


# Dual ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "function"), [("mse", F.mse_loss), ("l1", F.l1_loss)])
def test_dual_is_the_formula(name, function):
    vae, x = ConvAE(), noise(3, 3, 8, 12)
    loss_fn = EquivarianceLoss(
        ["rot180", "rot90"],
        weight=0.7,
        reconstruction=name,
        reconstruction_weight=0.3,
        encoder_weight=0.2,
    )
    out = value(loss_fn, vae, x)

    z = vae.encode(x)
    terms = {"reconstruction": function(vae.decode(z), x)}
    for turns, transform in ((2, "rot180"), (1, "rot90")):
        turned = x.rot90(turns, (-2, -1))
        moved = z.rot90(turns, (-2, -1))
        terms[f"equivariance/{transform}"] = function(vae.decode(moved), turned)
        error = (vae.encode(turned) - moved).square().sum() / z.square().sum()
        terms[f"encoder/{transform}"] = error
    assert out.terms.keys() == terms.keys()
    for term, expected in terms.items():
        torch.testing.assert_close(out.terms[term], expected.detach())
        assert not out.terms[term].requires_grad
    by_hand = (
        0.3 * terms["reconstruction"]
        + 0.7 / 2 * (terms["equivariance/rot180"] + terms["equivariance/rot90"])
        + 0.2 / 2 * (terms["encoder/rot180"] + terms["encoder/rot90"])
    )
    torch.testing.assert_close(out.loss, by_hand.detach())


def test_the_gradient_is_that_of_the_published_loop():
    ours, theirs, x = tiny_kl(), tiny_kl(), noise(2, 3, 16, 16)
    EquivarianceLoss("rot180")(ours, x).loss.backward()

    z = theirs.encode(x).latent_dist.mode()
    reconstruction = theirs.decode(z).sample
    rotated = theirs.decode(torch.rot90(z, 2, [2, 3])).sample
    loss = F.mse_loss(reconstruction, x) + F.mse_loss(rotated, torch.rot90(x, 2, [2, 3]))
    loss.backward()
    gradients = dict(theirs.named_parameters())
    # The log-variance that the mode ignores has no gradient of its own, but every weight takes part.
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad, gradients[name].grad, msg=lambda m, n=name: n + m
        )


def test_given_latents_are_used():
    vae, x = ConvAE(), noise(2, 3, 8, 8)
    z = vae.encode(x).detach()
    loss_fn = EquivarianceLoss("rot180")
    assert value(loss_fn, vae, x, latents=z).loss == value(loss_fn, vae, x).loss
    assert value(loss_fn, vae, x, latents=z + 0.1).loss != value(loss_fn, vae, x).loss
    loss_fn(vae, x, latents=z).loss.backward()
    assert vae.encoder.weight.grad is None
    assert vae.decoder.weight.grad is not None


def test_an_autoencoder_does_as_well_as_its_module():
    vae, x = ConvAE(), noise(2, 3, 8, 8)
    loss_fn = EquivarianceLoss("d4")
    assert value(loss_fn, equivae.Autoencoder(vae), x).loss == value(loss_fn, vae, x).loss


@given(chunk_size=st.integers(1, 12), schedule=st.sampled_from(["dual", "sampled"]))
@settings(max_examples=20)
def test_chunks_change_nothing(chunk_size, schedule):
    vae, x = ConvAE(), noise(3, 3, 8, 8)
    whole = value(EquivarianceLoss("d4", schedule=schedule), vae, x)
    parts = value(EquivarianceLoss("d4", schedule=schedule, chunk_size=chunk_size), vae, x)
    torch.testing.assert_close(parts.loss, whole.loss)
    assert parts.terms.keys() == whole.terms.keys()


def test_a_group_is_the_mean_of_its_members():
    vae, x = ConvAE(), noise(2, 3, 8, 12)
    out = value(EquivarianceLoss("d4"), vae, x)
    members = [t.name for t in equivae.get_group("d4") if t.name != "identity"]
    assert list(out.terms) == ["reconstruction", *(f"equivariance/{name}" for name in members)]
    singles = [value(EquivarianceLoss(name), vae, x) for name in members]
    mean = torch.stack(
        [s.terms[f"equivariance/{n}"] for s, n in zip(singles, members, strict=True)]
    )
    torch.testing.assert_close(out.loss, out.terms["reconstruction"] + mean.mean())


@pytest.mark.parametrize("schedule", ["dual", "sampled"])
@pytest.mark.parametrize("transforms", [[], ["identity"]])
def test_without_transforms_it_is_the_reconstruction_loss(schedule, transforms):
    vae, x = ConvAE(), noise(2, 3, 8, 8)
    out = value(EquivarianceLoss(transforms, schedule=schedule, weight=5.0), vae, x)
    assert list(out.terms) == ["reconstruction"]
    torch.testing.assert_close(out.loss, F.mse_loss(vae.decode(vae.encode(x)), x).detach())


def test_any_callable_compares():
    seen = []

    def huber_per_pixel(decoded, target):
        seen.append((decoded.shape, target.shape))
        return F.huber_loss(decoded, target, reduction="none")

    vae, x = ConvAE(), noise(2, 3, 8, 8)
    out = value(EquivarianceLoss([], reconstruction=huber_per_pixel), vae, x)
    torch.testing.assert_close(out.loss, F.huber_loss(vae.decode(vae.encode(x)), x).detach())
    assert seen == [(x.shape, x.shape)]


def test_posterior_draws_are_seeded_and_only_when_asked():
    vae, x = tiny_kl(), noise(2, 3, 16, 16)
    drawn = EquivarianceLoss("rot180", sample_posterior=True)
    assert value(drawn, vae, x, seed=1).loss == value(drawn, vae, x, seed=1).loss
    assert value(drawn, vae, x, seed=1).loss != value(drawn, vae, x, seed=2).loss
    plain = EquivarianceLoss("rot180")
    assert value(plain, vae, x, seed=1).loss == value(plain, vae, x, seed=2).loss


# Exact equivariance -------------------------------------------------------------------------------


def test_an_equivariant_vae_has_equal_terms():
    out = value(EquivarianceLoss("d4", encoder_weight=1.0), PoolAE(), noise(2, 3, 8, 12))
    reconstruction = out.terms["reconstruction"]
    assert reconstruction > 0.01
    for name, term in out.terms.items():
        if name.startswith("encoder/"):
            assert term < 1e-12
        else:
            torch.testing.assert_close(term, reconstruction)
    torch.testing.assert_close(out.loss, 2 * reconstruction)


def test_the_encoder_side_is_positive_otherwise():
    out = value(EquivarianceLoss("hflip", encoder_weight=1.0), ConvAE(), noise(2, 3, 8, 8))
    assert out.terms["encoder/hflip"] > 0.01


# Sampled ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transforms", "probability", "batch"),
    [(["rot180"], 0.5, 4), (["rot180", "hflip"], 0.4, 5), ("d4", 0.75, 3)],
)
def test_the_expectation_is_that_of_dual(transforms, probability, batch):
    vae, x = ConvAE(), noise(batch, 3, 4, 4)
    weights = {"weight": 0.8, "reconstruction_weight": 1.3}
    dual = float(value(EquivarianceLoss(transforms, **weights), vae, x).loss)
    sampled = EquivarianceLoss(transforms, schedule="sampled", probability=probability, **weights)
    draws = torch.tensor([float(value(sampled, vae, x, seed).loss) for seed in range(600)])
    error = float(draws.std() / math.sqrt(len(draws)))
    assert error > 0
    assert abs(float(draws.mean()) - dual) < 4.5 * error


@given(
    batch=st.integers(1, 9),
    probability=st.floats(0, 1),
    transforms=st.lists(st.sampled_from([t.name for t in equivae.get_group("d4")]), max_size=4),
    seed=st.integers(0, 10**6),
)
def test_each_image_is_decoded_once(batch, probability, transforms, seed):
    decoded = []

    class Watched(PoolAE):
        def decode(self, latents):
            decoded.append(len(latents))
            return super().decode(latents)

    loss_fn = EquivarianceLoss(transforms, schedule="sampled", probability=probability)
    value(loss_fn, Watched(), noise(batch, 3, 4, 4), seed)
    assert sum(decoded) == batch


@pytest.mark.parametrize(
    ("batch", "probability", "count"),
    [(8, 0.5, 4), (4, 0.25, 1), (10, 0.3, 3), (6, 1.0, 6), (5, 0, 0)],
)
def test_draws_are_systematic(batch, probability, count):
    x = noise(batch, 3, 4, 4)
    z = PoolAE().encode(x)
    for seed in range(20):
        moved = []
        equivae.register_transform(
            "spy",
            pixel=lambda x: -x,
            latent=lambda z, moved=moved: moved.append(z) or -z,
            override=True,
        )
        loss_fn = EquivarianceLoss("spy", schedule="sampled", probability=probability)
        value(loss_fn, PoolAE(), x, seed)
        assert sum(len(part) for part in moved) == count
        rows = [row for part in moved for row in part]
        assert all(any(row.equal(one) for one in z) for row in rows)


def test_every_image_and_transform_has_its_turn():
    x, names = noise(4, 3, 4, 4), ("first", "second")
    seen = {name: set() for name in names}
    for name in names:
        equivae.register_transform(
            name,
            pixel=lambda x: x,
            latent=lambda z, n=name: [seen[n].add(float(row.sum())) for row in z] and z,
        )
    loss_fn = EquivarianceLoss(names, schedule="sampled", probability=0.5)
    for seed in range(60):
        value(loss_fn, PoolAE(), x, seed)
    assert len(seen["first"]) == len(seen["second"]) == 4


def test_the_sampled_schedule_is_seeded():
    vae, x = ConvAE(), noise(5, 3, 8, 8)
    loss_fn = EquivarianceLoss("d4", schedule="sampled")
    assert value(loss_fn, vae, x, 3).terms == value(loss_fn, vae, x, 3).terms
    assert len({float(value(loss_fn, vae, x, seed).loss) for seed in range(10)}) > 5


def test_terms_of_the_sampled_schedule_are_means_over_the_drawn():
    vae, x = ConvAE(), noise(1, 3, 8, 8)
    loss_fn = EquivarianceLoss("rot180", weight=3.0, schedule="sampled", probability=0.25)
    dual = value(EquivarianceLoss("rot180"), vae, x).terms
    seen = set()
    for seed in range(20):
        out = value(loss_fn, vae, x, seed)
        ((name, term),) = out.terms.items()
        seen.add(name)
        torch.testing.assert_close(term, dual[name])
        weight = 1 / 0.75 if name == "reconstruction" else 3 / 0.25
        torch.testing.assert_close(out.loss, weight * term)
    assert len(seen) == 2


# Masks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["dual", "sampled"])
def test_what_lies_outside_the_mask_is_ignored(schedule):
    class Spoilt(PoolAE):
        def decode(self, latents):
            images = super().decode(latents).clone()
            images[..., 0] = 1e3
            return images

    equivae.register_transform("shift", override=True)(_PixelShift)
    x = cells(4, 8, 8)
    loss_fn = EquivarianceLoss(
        "shift", schedule=schedule, probability=1.0, reconstruction_weight=0.0
    )
    clean, spoilt = value(loss_fn, PoolAE(), x), value(loss_fn, Spoilt(), x)
    term = "equivariance/shift"
    assert clean.terms[term] > 0.01
    torch.testing.assert_close(spoilt.terms[term], clean.terms[term])
    target, decoded = _PixelShift().pixel(x), PoolAE().decode(PoolAE().encode(x))
    by_hand = (decoded - target)[..., 1:].square().mean()
    torch.testing.assert_close(clean.terms[term], by_hand)


class _PixelShift(ShiftRight):
    """One pixel to the right, and nothing in the latent."""

    name = "shift"

    def latent(self, z):
        return z


@given(st.integers(1, 2**16 - 1))
def test_masked_means_are_means_over_the_mask(bits):
    mask = torch.tensor([bool(bits >> i & 1) for i in range(16)]).view(4, 4)
    a, b = noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=1)
    found = masked(mse, a, b, mask)
    torch.testing.assert_close(found, (a - b)[..., mask].square().mean())


# Errors -------------------------------------------------------------------------------------------


def test_quarter_turns_of_non_square_images_can_be_sampled_but_not_mixed_in_one_draw():
    x = noise(8, 3, 8, 12)
    for transforms in ("rot90", ["hflip", "transpose"], "d4", "d2"):
        assert value(EquivarianceLoss(transforms, schedule="sampled"), ConvAE(), x).loss > 0
    with pytest.raises(InputError, match="samples of different sizes"):
        EquivarianceLoss("random_rot90", schedule="dual")(ConvAE(), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "duel"}, "unknown schedule 'duel'. Did you mean 'dual'"),
        ({"reconstruction": "mze"}, "unknown reconstruction loss 'mze'. Did you mean 'mse'"),
        ({"probability": 1.1}, r"probability must lie in \[0, 1\], got 1.1"),
        ({"probability": -0.1}, r"probability must lie in \[0, 1\]"),
        ({"probability": float("nan")}, r"probability must lie in \[0, 1\]"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
        ({"weight": -1.0}, "weight must not be negative"),
        ({"reconstruction_weight": -1.0}, "reconstruction_weight must not be negative"),
        ({"encoder_weight": float("nan")}, "encoder_weight must not be negative"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        EquivarianceLoss("rot180", **options)


def test_unknown_transforms():
    with pytest.raises(InputError, match="unknown transform 'rot18'"):
        EquivarianceLoss("rot18")


# Empty masks ----------------------------------------------------------------------------------------


def test_an_empty_mask_is_no_perfect_match() -> None:
    a, b = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    nowhere = torch.zeros(8, 8, dtype=torch.bool)
    with pytest.raises(EmptyMaskError, match="the mask holds nowhere"):
        masked(mse, a, b, nowhere)
    nowhere[0, 0] = True
    expected = (a - b)[..., 0, 0].square().mean()
    torch.testing.assert_close(masked(mse, a, b, nowhere), expected)


class Nowhere(equivae.Transform):
    """Nothing is left inside its mask."""

    name = "nowhere"

    def pixel(self, x):
        return x

    def latent(self, z):
        return z

    def mask(self, x):
        return torch.zeros(x.shape[-2:], dtype=torch.bool)


class NowhereAtRandom(Nowhere):
    name = "nowhere_at_random"

    def draw(self, batch, generator=None):
        return Nowhere()


@pytest.mark.parametrize("options", [{}, {"encoder_weight": 1.0, "weight": 0.0}])
def test_a_fixed_transform_that_leaves_nothing_is_refused(options) -> None:
    with pytest.raises(InputError, match=r"(equivariance|encoder)/nowhere: the mask holds nowhere"):
        equivae.EquivarianceLoss(Nowhere(), **options)(ConvAE(), noise(2, 3, 8, 8))


@pytest.mark.parametrize("schedule", ["dual", "sampled"])
def test_a_draw_that_leaves_nothing_has_no_term(schedule) -> None:
    vae, x = ConvAE(), noise(2, 3, 8, 8)
    loss_fn = equivae.EquivarianceLoss(
        NowhereAtRandom(), schedule=schedule, probability=1.0, encoder_weight=0.5
    )
    out = loss_fn(vae, x, generator=torch.Generator().manual_seed(0))
    plain = equivae.EquivarianceLoss([])(vae, x)
    assert list(out.terms) == (["reconstruction"] if schedule == "dual" else [])
    torch.testing.assert_close(out.loss, plain.loss if schedule == "dual" else torch.zeros(()))
    out.loss.backward()
    assert all(p.grad is not None for p in vae.parameters())
