"""Fine-tuning that starts from fitted latent ops, and on random crops."""

from __future__ import annotations

import pytest
import torch

import equivae
from equivae import InputError, Report
from equivae.training.crops import random_crop
from models import tiny_kl

SHORT = {"train_batch_size": 2, "max_train_steps": 3, "progress": False}
IMAGES = equivae.data.dead_leaves(10, size=32, seed=3)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(Report, "figures", lambda self: {})


def finetune(output_dir, transforms="rot180", vae=None, **options):
    vae = tiny_kl() if vae is None else vae
    options = {"kernel_size": 3, **SHORT, **options}
    return equivae.finetune(vae, IMAGES, transforms, output_dir, **options)


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_the_recipe_fits_trains_and_saves_its_operator(tmp_path):
    vae = tiny_kl()
    before = weights(vae)
    result = finetune(tmp_path, vae=vae, recipe="fitted", learning_rate=1e-2)
    after = weights(result.vae)
    moved = {name.split(".")[0] for name in before if not before[name].equal(after[name])}
    assert moved <= {"decoder", "post_quant_conv"}  # existing latents stay valid
    assert "decoder" in moved
    (trained,) = result.transforms
    assert trained.name == "rot180_fitted"
    start = equivae.fit_latent_op(
        tiny_kl(), "rot180", equivae.data.load_images(IMAGES).split(0.1, 0)[0], 3, progress=False
    )
    assert not trained.operator.weight.equal(start.operator.weight)
    saved = equivae.load_latent_op(tmp_path / "operators" / "rot180_fitted")
    assert saved.operator.weight.equal(trained.operator.weight)
    assert not trained.operator.weight.requires_grad
    assert set(result.report.before.transforms) == {"rot180", "rot180_fitted"}
    assert set(result.report.metrics.transforms) == {"rot180_fitted"}


def test_fitted_transforms_choose_the_recipe_and_stay_as_they_are(tmp_path):
    vae = tiny_kl()
    fitted = equivae.fit_latent_op(vae, "vflip", IMAGES, 3, progress=False)
    before = weights(fitted.module)
    result = equivae.finetune(vae, IMAGES, fitted, tmp_path, **SHORT)
    assert result.report.settings["recipe"] == "fitted"
    assert all(before[name].equal(value) for name, value in weights(fitted.module).items())
    assert not result.transforms[0].operator.weight.equal(fitted.operator.weight)


def test_only_transforms_without_an_operator_are_fitted(tmp_path):
    vae = tiny_kl()
    fitted = equivae.fit_latent_op(vae, "hflip", IMAGES, 1, progress=False)
    result = finetune(tmp_path, [fitted, "vflip"], vae, recipe="fitted")
    assert [t.operator.kernel_size for t in result.transforms] == [1, 3]


def test_resumed_from_a_checkpoint_it_ends_where_an_unbroken_run_does(tmp_path, monkeypatch):
    options = {"recipe": "fitted", "max_train_steps": 4, "checkpointing_steps": 2}
    whole = finetune(tmp_path / "whole", **options)
    finetune(tmp_path / "parts", **options)
    last = tmp_path / "parts" / "checkpoint-4"
    assert last.is_dir()
    monkeypatch.setattr(
        "equivae.training.operators.fit_operators", lambda *a, **k: pytest.fail("fitted again")
    )
    resumed = finetune(tmp_path / "parts", resume_from_checkpoint="checkpoint-2", **options)
    expected, found = weights(whole.vae), weights(resumed.vae)
    assert all(expected[name].equal(found[name]) for name in expected)
    assert whole.transforms[0].operator.weight.equal(resumed.transforms[0].operator.weight)


def test_operators_have_a_learning_rate_of_their_own(tmp_path):
    before = weights(tiny_kl().decoder)
    result = finetune(
        tmp_path, recipe="fitted", operator_learning_rate=1e-12, use_ema=False, learning_rate=1e-3
    )
    fitted = equivae.fit_latent_op(
        tiny_kl(), "rot180", equivae.data.load_images(IMAGES).split(0.1, 0)[0], 3, progress=False
    )
    kept = result.transforms[0].operator.weight
    torch.testing.assert_close(kept, fitted.operator.weight, atol=1e-9, rtol=0)
    after = weights(result.vae.decoder)
    assert any(not before[name].allclose(after[name], atol=1e-5) for name in before)


@pytest.mark.parametrize("train", ["all", "encoder"])
def test_a_moving_encoder_is_refused(tmp_path, train):
    with pytest.raises(InputError, match="fitted to a fixed encoder"):
        finetune(tmp_path, fit_operator=True, train=train)


def test_training_an_operator_needs_one(tmp_path):
    with pytest.raises(InputError, match="needs fitted transforms"):
        finetune(tmp_path / "out", train="decoder", train_operator=True)
    assert not (tmp_path / "out").exists()


def test_distillation_holds_the_decoder_to_what_it_was(tmp_path):
    """With all of it the untouched decoder is the target, so its plain reconstruction has no loss."""
    options = {"train": "decoder", "weight": 0.0, "max_train_steps": 1, "logging_steps": 1}
    free = finetune(tmp_path / "free", **options)
    held = finetune(tmp_path / "held", distillation=1.0, **options)
    half = finetune(tmp_path / "half", distillation=0.5, crop_size=16, **options)
    assert free.history[0]["reconstruction"] > 1e-3
    assert held.history[0]["reconstruction"] < 1e-9
    assert 0 < half.history[0]["reconstruction"] < free.history[0]["reconstruction"]


@pytest.mark.parametrize(
    "options", [{"train": "all"}, {"sample_posterior": True}, {"encoder_weight": 1.0}]
)
def test_distillation_needs_a_fixed_encoder(tmp_path, options):
    with pytest.raises(InputError, match="distillation compares"):
        finetune(tmp_path, **{"train": "decoder", "distillation": 1.0, **options})


def test_a_symmetrized_vae_loses_its_seam_and_keeps_its_law(tmp_path):
    vae = equivae.symmetrize(tiny_kl(), "c2", images=IMAGES, kernel_size=1, progress=False)
    encoder, context = weights(vae.vae.encoder), weights(vae.operators)
    options = {**SHORT, "max_train_steps": 2, "crop_size": 16}
    result = equivae.finetune(vae, IMAGES, "rot180", tmp_path, **options)
    assert result.report.settings["recipe"] == "symmetrized"
    assert abs(result.report.metrics.transforms["rot180"].equivariance_gap_db) < 1e-3
    loaded = equivae.load_vae(tmp_path)
    assert all(encoder[n].equal(v) for n, v in loaded.vae.encoder.state_dict().items())
    assert any(not context[n].equal(v) for n, v in loaded.operators.state_dict().items())
    card = (tmp_path / "README.md").read_text()
    assert "stay valid: no" in card
    assert "equivae.load_vae" in card
    again = equivae.finetune(
        vae, IMAGES, "rot180", tmp_path, resume_from_checkpoint="latest", **options
    )
    found = weights(again.vae)
    assert all(found[name].equal(value) for name, value in weights(loaded).items())


# Crops ------------------------------------------------------------------------------------------


def test_crops_are_windows_of_the_images_and_repeatable():
    places = torch.arange(64.0).view(1, 1, 8, 8).expand(2, 1, 8, 8)
    seen = set()
    for seed in range(40):
        crop = random_crop(places, 5, torch.Generator().manual_seed(seed))
        assert crop.equal(random_crop(places, 5, torch.Generator().manual_seed(seed)))
        top, left = divmod(int(crop[0, 0, 0, 0]), 8)
        assert crop.equal(places[..., top : top + 5, left : left + 5])
        seen.add((top, left))
    assert {top for top, _ in seen} == {left for _, left in seen} == {0, 1, 2, 3}
    assert random_crop(places, None, torch.Generator()) is places


def test_a_run_on_crops(tmp_path):
    result = finetune(tmp_path, train="decoder", crop_size=16)
    assert result.report.metrics.images == 1
    assert all("reconstruction" in r for r in result.history if "loss" in r)


@pytest.mark.parametrize(
    ("crop_size", "message"), [(15, "does not divide"), (64, "larger than the images")]
)
def test_crops_that_cannot_be_taken(tmp_path, crop_size, message):
    with pytest.raises(InputError, match=message):
        finetune(tmp_path / "out", crop_size=crop_size)
    assert not (tmp_path / "out").exists()
