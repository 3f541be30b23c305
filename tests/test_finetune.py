"""Fine-tuning from the outside: what it changes, what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import equivae
from equivae import FinetuneConfig, InputError, NonFiniteLossError, Report
from equivae.autoencoder import Autoencoder
from equivae.training import RECIPES
from equivae.training.config import make_config
from equivae.training.latents import cache_latents
from forked import run_code
from models import ConvAE, noise, tiny_kl

SHORT = {"train_batch_size": 2, "max_train_steps": 3, "learning_rate": 1e-3, "progress": False}
IMAGES = equivae.data.dead_leaves(8, size=16, seed=3)


def finetune(output_dir, vae=None, images=IMAGES, transforms="rot180", **options):
    vae = tiny_kl() if vae is None else vae
    return equivae.finetune(vae, images, transforms, output_dir, **{**SHORT, **options})


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not before[name].equal(after[name])}


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes most of a short run, and most tests look at no picture."""
    monkeypatch.setattr(Report, "figures", lambda self: {})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run with everything on, its VAE before, and the folder."""
    vae = tiny_kl().train()
    before = weights(vae)
    next(vae.encoder.parameters()).requires_grad_(False)
    folder = tmp_path_factory.mktemp("run") / "out"
    result = finetune(
        folder,
        vae,
        transforms=["rot180", "hflip"],
        schedule="dual",
        logging_steps=1,
        num_train_epochs=9,
    )
    return vae, before, result


# What it gives ------------------------------------------------------------------------------------


def test_the_object_passed_in_is_unchanged(run):
    vae, before, result = run
    assert changed(before, vae.state_dict()) == set()
    assert vae.training
    assert [p.requires_grad for p in vae.parameters()].count(False) == 1
    assert all(p.grad is None for p in vae.parameters())
    assert result.vae is not vae


def test_the_result_is_of_the_same_kind(run):
    vae, before, result = run
    assert type(result.vae) is type(vae)
    assert not any(part.training for part in result.vae.modules())
    assert [p.requires_grad for p in result.vae.parameters()] == [
        p.requires_grad for p in vae.parameters()
    ]
    assert all(tensor.isfinite().all() for tensor in result.vae.state_dict().values())
    moved = changed(before, result.vae.state_dict())
    assert any(name.startswith("encoder") for name in moved)
    assert any(name.startswith("decoder") for name in moved)


def test_the_folder_holds_the_vae_the_report_and_the_pictures(run):
    result = run[2]
    names = {p.name for p in result.output_dir.iterdir()}
    assert names - {"logs"} == {
        *("config.json", "diffusion_pytorch_model.safetensors", "report.json", "report.md"),
        "README.md",
        *("panels_rot180.png", "panels_hflip.png", "latents_rot180.png", "latents_hflip.png"),
        *("report.html", "report.csv", "report.tex", "recipe.yaml"),
        *("overview.png", "spectrum.png", "profile.png", "loss.png", "checkpoint-3"),
    }
    assert json.loads((result.output_dir / "report.json").read_text()) == result.report.to_dict()
    saved = load_file(result.output_dir / "diffusion_pytorch_model.safetensors")
    assert changed(weights(result.vae), saved) == set()


def test_nothing_in_the_folder_is_a_pickle_of_the_model(run):
    top = [p.suffix for p in run[2].output_dir.iterdir() if p.is_file()]
    assert set(top) <= {".json", ".safetensors", ".md", ".html", ".png", ".csv", ".tex", ".yaml"}


PLAIN_DIFFUSERS = """
import sys
sys.modules["equivae"] = None
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
folder, tensors = sys.argv[1:]
vae = AutoencoderKL.from_pretrained(folder, use_safetensors=True).eval()
given = load_file(tensors)
with torch.no_grad():
    latent = vae.encode(given["images"]).latent_dist.mode().contiguous()
    save_file({"latent": latent, "decoded": vae.decode(given["latents"]).sample}, tensors)
"""


def test_loads_in_plain_diffusers_without_this_library(run, tmp_path):
    result = run[2]
    images, latents = noise(2, 3, 16, 16), noise(2, 4, 8, 8, seed=1)
    save_file({"images": images, "latents": latents}, tmp_path / "t.safetensors")
    done = run_code(PLAIN_DIFFUSERS, result.output_dir, tmp_path / "t.safetensors")
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "t.safetensors")
    vae = Autoencoder(result.vae)
    with torch.no_grad():
        assert found["latent"].equal(vae.encode(images))
        assert found["decoded"].equal(vae.decode(latents))
    config = json.loads((result.output_dir / "config.json").read_text())
    assert config["_class_name"] == "AutoencoderKL"
    assert "equivae" not in json.dumps({k: v for k, v in config.items() if k != "_name_or_path"})


def test_history(run):
    result = run[2]
    losses = [record for record in result.history if "loss" in record]
    assert [record["step"] for record in losses] == [1, 2, 3]
    terms = {"reconstruction", "equivariance/rot180", "equivariance/hflip"}
    for record in losses:
        assert set(record) == {"step", "epoch", "loss", "learning_rate", *terms}
        mean = (record["equivariance/rot180"] + record["equivariance/hflip"]) / 2
        assert record["loss"] == pytest.approx(record["reconstruction"] + mean, rel=1e-5)
    validated = [record for record in result.history if "validation_loss" in record]
    assert validated
    assert validated[-1]["step"] == 3
    assert result.report.history == result.history


def assert_same_numbers(a, b):
    """What both measured: a fine-tune leaves out the ceiling and the sweeps."""
    shared = a.per_image.keys() & b.per_image.keys()
    assert {"reconstruction_mse", "round_trip_mse/rot180", "encoder_cosine/rot180"} <= shared
    assert {key: a.per_image[key] for key in shared} == {key: b.per_image[key] for key in shared}
    assert a.spreads == b.spreads
    assert a.reconstruction_psnr == b.reconstruction_psnr
    assert {n: t.equivariance_gap_db for n, t in a.transforms.items()} == {
        n: t.equivariance_gap_db for n, t in b.transforms.items()
    }


def test_report_compares_before_and_after(run):
    vae, _, result = run
    report = result.report
    assert set(report.metrics.transforms) == set(report.before.transforms) == {"rot180", "hflip"}
    assert report.before.reconstruction_mse != report.metrics.reconstruction_mse
    assert report.settings["max_train_steps"] == 3
    assert report.settings["transforms"] == "rot180,hflip"
    # One of eight is held out: measuring it says the same.
    (held_out,) = equivae.data.load_images(IMAGES).split(0.1, 0)[1:]
    again = equivae.evaluate(result.vae, held_out, ["rot180", "hflip"], progress=False, panels=0)
    assert_same_numbers(again.metrics, report.metrics)
    assert equivae.evaluate(vae, held_out, "rot180", progress=False).metrics.reconstruction_mse == (
        report.before.reconstruction_mse
    )


# What learns --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(("train", "frozen"), [("decoder", "encoder"), ("encoder", "decoder")])
def test_the_other_half_stays_bit_for_bit(tmp_path, train, frozen):
    vae = tiny_kl()
    moved = changed(weights(vae), finetune(tmp_path, vae, train=train).vae.state_dict())
    halves = {
        "encoder": ("encoder.", "quant_conv."),
        "decoder": ("decoder.", "post_quant_conv."),
    }
    assert moved
    assert not [name for name in moved if name.startswith(halves[frozen])]
    assert all(name.startswith(halves[train]) for name in moved)


@pytest.mark.usefixtures("no_figures")
def test_a_module_without_weights_has_nothing_to_learn(tmp_path):
    from models import PoolAE

    with pytest.raises(InputError, match="leaves nothing to learn: PoolAE"):
        finetune(tmp_path, PoolAE())


@pytest.mark.usefixtures("no_figures")
def test_any_module_with_the_same_calls(tmp_path):
    result = finetune(tmp_path, ConvAE())
    saved = load_file(tmp_path / "model.safetensors")
    assert changed(weights(result.vae), saved) == set()
    assert changed(weights(ConvAE()), saved)


@pytest.mark.usefixtures("no_figures")
def test_the_dtype_is_kept(tmp_path):
    result = finetune(tmp_path, tiny_kl().bfloat16())
    assert {p.dtype for p in result.vae.parameters()} == {torch.bfloat16}
    saved = AutoencoderKL.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert changed(weights(result.vae), weights(saved)) == set()


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("schedule", ["dual", "sampled"])
def test_the_loss_goes_down(tmp_path, schedule):
    result = finetune(
        tmp_path,
        ConvAE(),
        schedule=schedule,
        max_train_steps=40,
        train_batch_size=4,
        learning_rate=1e-2,
        validation_steps=10,
    )
    losses = [r["validation_loss"] for r in result.history if "validation_loss" in r]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
    before, after = result.report.before, result.report.metrics
    assert after.transforms["rot180"].round_trip_mse < before.transforms["rot180"].round_trip_mse


@pytest.mark.usefixtures("no_figures")
def test_ema_is_what_is_saved(tmp_path):
    raw = finetune(tmp_path / "raw", ConvAE()).vae
    ema = finetune(tmp_path / "ema", ConvAE(), use_ema=True, ema_decay=0.9).vae
    assert changed(weights(raw), weights(ema)) == set(raw.state_dict())
    assert changed(weights(ConvAE()), weights(ema)) == set(ema.state_dict())
    # An average over the run lies nearer to the start.
    start, end, mean = (nn.utils.parameters_to_vector(v.parameters()) for v in (ConvAE(), raw, ema))
    assert (mean - start).norm() < (end - start).norm()


@pytest.mark.usefixtures("no_figures")
def test_runs_are_repeatable_and_seeded(tmp_path):
    a, b, c = (
        weights(finetune(tmp_path / name, sample_posterior=True, seed=seed).vae)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert changed(a, b) == set()
    assert changed(a, c)


@pytest.mark.usefixtures("no_figures")
def test_every_batch_has_draws_of_its_own(tmp_path):
    drawn = []

    class Drawing(equivae.Transform):
        name = "drawing"

        def pixel(self, x):
            return x

        def latent(self, z):
            return z

        def draw(self, batch_size, generator=None):
            if torch.is_grad_enabled():
                drawn.append(float(torch.rand((), generator=generator)))
            return self

    # Four batches of an epoch, then those of the next.
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = {"schedule": "dual", "max_train_steps": 8, "seed": seed}
        finetune(tmp_path / name, ConvAE(), transforms=Drawing(), **options)
    first, again, other = drawn[:8], drawn[8:16], drawn[16:]
    assert len(set(first)) == 8
    assert again == first
    assert not set(other) & set(first)


@pytest.mark.usefixtures("no_figures")
def test_accumulated_batches_are_one_larger_batch(tmp_path):
    options = {"validation_split": 0.0, "schedule": "dual", "max_train_steps": 2}
    one = finetune(tmp_path / "one", ConvAE(), train_batch_size=4, **options).vae
    two = finetune(
        tmp_path / "two", ConvAE(), train_batch_size=2, gradient_accumulation_steps=2, **options
    ).vae
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("no_figures")
def test_precisions_follow_one_another_in_one_process(tmp_path):
    for precision in ("no", "bf16", "no"):
        result = finetune(tmp_path / f"{precision}{len(list(tmp_path.iterdir()))}",
                          mixed_precision=precision)  # fmt: skip
        assert result.report.settings["mixed_precision"] == precision
        assert {p.dtype for p in result.vae.parameters()} == {torch.float32}


@pytest.mark.usefixtures("no_figures")
def test_fp16_without_a_gpu(tmp_path):
    with pytest.raises(InputError, match="'fp16' needs a GPU"):
        finetune(tmp_path / "a", ConvAE(), mixed_precision="fp16")
    finetune(tmp_path / "b", ConvAE())


@pytest.mark.usefixtures("no_figures")
def test_unknown_trackers(tmp_path):
    with pytest.raises(InputError, match="wand"):
        finetune(tmp_path, ConvAE(), report_to="wandbb")


@pytest.mark.usefixtures("no_figures")
def test_epochs(tmp_path):
    result = finetune(tmp_path, ConvAE(), max_train_steps=None, num_train_epochs=2)
    # Seven images are four batches of two.
    assert result.report.settings["max_train_steps"] == 8
    assert [r["step"] for r in result.history if "validation_loss" in r] == [4, 8]


@pytest.mark.usefixtures("no_figures")
def test_validation_images_of_ones_own(tmp_path):
    validation = noise(3, 3, 16, 16)
    result = finetune(tmp_path, ConvAE(), validation_images=validation)
    assert result.report.settings["images"] == 8
    found = equivae.evaluate(result.vae, validation, progress=False).metrics
    assert_same_numbers(result.report.metrics, found)


@pytest.mark.usefixtures("no_figures")
def test_one_image_is_enough(tmp_path):
    assert finetune(tmp_path, ConvAE(), IMAGES[:1]).report.metrics.images == 1


# Latent cache -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figures")
def test_cached_latents_in_memory_and_on_disk_agree(tmp_path, monkeypatch):
    memory = finetune(tmp_path / "memory", train="decoder").vae
    disk = finetune(tmp_path / "disk", train="decoder", latent_cache_mb=0).vae
    assert changed(weights(memory), weights(disk)) == set()
    # Without a cache the same latents are encoded at every step.
    monkeypatch.setattr("equivae.training.stages.cache_latents", lambda *_, **__: None)
    fresh = finetune(tmp_path / "fresh", train="decoder").vae
    for name, tensor in fresh.state_dict().items():
        torch.testing.assert_close(tensor, memory.state_dict()[name])


def test_the_cache_is_memory_mapped_above_its_limit(tmp_path):
    vae, images = Autoencoder(tiny_kl()), equivae.data.load_images(IMAGES)
    options = {"batch_size": 3, "progress": False}
    disk = cache_latents(vae, images, tmp_path, limit_mb=0, **options)
    assert isinstance(disk, np.memmap)
    memory = cache_latents(vae, images, tmp_path / "unused", **options)
    assert not isinstance(memory, np.memmap)
    assert np.array_equal(disk, memory)
    with torch.no_grad():
        assert np.allclose(memory, vae.encode(IMAGES).numpy(), atol=1e-6)


# A loss that is no number -------------------------------------------------------------------------


class Exploding:
    """A reconstruction loss that becomes infinite in the training of step `step` of batch size 2."""

    def __init__(self, step: int) -> None:
        self.step, self.calls = step, 0

    def __call__(self, decoded, target):
        loss = (decoded - target).square().mean()
        if not loss.requires_grad:
            return loss
        self.calls += 1
        return loss * (float("nan") if self.calls >= 2 * self.step - 1 else 1.0)


@pytest.mark.usefixtures("no_figures")
def test_a_non_finite_loss_names_the_step_and_keeps_checkpoints(tmp_path):
    options = {"schedule": "dual", "max_train_steps": 20, "logging_steps": 3}
    with pytest.raises(NonFiniteLossError, match=r"at step 5; .*checkpoint-4") as error:
        finetune(tmp_path, ConvAE(), reconstruction=Exploding(5), checkpointing_steps=2, **options)
    assert error.value.step == 5
    names = {p.name for p in tmp_path.iterdir()}
    assert {"checkpoint-2", "checkpoint-4"} <= names
    assert not any(p.name.endswith(".safetensors") for p in tmp_path.iterdir())
    for path in (tmp_path / "checkpoint-4").glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


@pytest.mark.usefixtures("no_figures")
def test_a_non_finite_loss_before_any_checkpoint(tmp_path):
    with pytest.raises(NonFiniteLossError, match="at step 1; no checkpoint was due yet") as error:
        finetune(tmp_path, ConvAE(), schedule="dual", reconstruction=Exploding(1))
    assert error.value.step == 1
    # The next run of the process is none the worse for it.
    finetune(tmp_path / "next", ConvAE())


# Refusals -----------------------------------------------------------------------------------------


def test_foreign_files_are_refused_and_untouched(tmp_path):
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(InputError, match=r"holds files already \(config\.json\)"):
        finetune(tmp_path)
    with pytest.raises(InputError, match=r"holds files already"):
        finetune(tmp_path, resume_from_checkpoint="latest")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("config.json", "mine")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rat": 1}, r"unknown option 'learning_rat'\. Did you mean 'learning_rate'"),
        ({"recipe": "publishd"}, r"unknown recipe 'publishd'\. Did you mean 'published'"),
        ({"train": "decodr"}, r"train='decodr' is unknown\. Did you mean 'decoder'"),
        ({"schedule": "duel"}, r"schedule='duel' is unknown"),
        ({"mixed_precision": "fp8"}, r"mixed_precision='fp8' is unknown\. Did you mean 'fp16'"),
        ({"lr_scheduler": "cosin"}, r"lr_scheduler.*cosin.*Did you mean 'cosine'"),
        ({"reconstruction": "mae"}, r"unknown reconstruction loss 'mae'"),
        ({"transforms": "rot18"}, r"unknown transform 'rot18'"),
        ({"train_batch_size": 0}, "train_batch_size must be at least 1"),
        ({"max_train_steps": 0}, "max_train_steps must be at least 1"),
        ({"checkpointing_steps": 0}, "checkpointing_steps must be at least 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be at least 1"),
        ({"dataloader_num_workers": -1}, "dataloader_num_workers must not be negative"),
        ({"lr_warmup_steps": -1}, "lr_warmup_steps must not be negative"),
        ({"learning_rate": 0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"weight": -1}, "weight must not be negative"),
        ({"adam_weight_decay": -1}, "adam_weight_decay must not be negative"),
        ({"probability": 1.5}, r"probability must lie in \[0, 1\]"),
        ({"adam_beta1": 1.0}, r"adam_beta1 must lie in \[0, 1\)"),
        ({"validation_split": 1.0}, r"validation_split must lie in \[0, 1\)"),
        ({"resolution": 15}, "resolution 15 does not divide by the VAE's factor 2"),
        ({"images": IMAGES[..., :15]}, "16x15 pixels do not divide"),
        ({"images": "no-such-images"}, "neither a folder here"),
        ({"vae": nn.Identity()}, "Identity is not an autoencoder"),
        ({"resume_from_checkpoint": "checkpoint-7"}, "no checkpoint 'checkpoint-7' to resume from"),
        ({"transforms": "random_rot90", "images": IMAGES[..., :8]}, "samples of different sizes"),
    ],
)
def test_bad_options_are_refused_before_any_work(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        finetune(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_figures")
def test_images_of_different_sizes_need_a_resolution(tmp_path):
    images = [noise(3, 16, 16), noise(3, 16, 24), noise(3, 16, 16), noise(3, 24, 16)]
    with pytest.raises(InputError, match="different sizes"):
        finetune(tmp_path / "a", ConvAE(), images)
    assert finetune(tmp_path / "b", ConvAE(), images, resolution=8).report.metrics.images == 1


@pytest.mark.usefixtures("no_figures")
def test_skipped_images_are_in_the_report(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(2):
        array = ((IMAGES[i] + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images" / "bad.png").write_bytes(b"bad")
    result = finetune(tmp_path / "out", ConvAE(), tmp_path / "images")
    assert [name for name, _ in result.report.skipped] == ["bad.png"]


# Recipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_make_a_config_that_options_override(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe.summary
    assert recipe.source
    config = make_config(name, {})
    for option, expected in recipe.options.items():
        assert getattr(config, option) == expected
    assert make_config(name, {"learning_rate": 0.5}).learning_rate == 0.5
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()


def test_the_published_recipe_is_the_published_experiment():
    config = make_config("published", {})
    published = {
        "schedule": "dual",
        "weight": 1.0,
        "reconstruction": "mse",
        "reconstruction_weight": 1.0,
        "encoder_weight": 0.0,
        "train": "all",
        "num_train_epochs": 5,
        "train_batch_size": 3,
        "learning_rate": 5e-5,
        "resolution": 256,
    }
    assert {name: getattr(config, name) for name in published} == published


def test_defaults_are_the_default_recipe():
    assert make_config("equivae", {}) == FinetuneConfig()


def test_every_option_has_a_help_text():
    from dataclasses import fields

    assert all(field.metadata["help"] for field in fields(FinetuneConfig))


@pytest.mark.usefixtures("no_figures")
def test_a_recipe_runs(tmp_path):
    vae = tiny_kl()
    result = finetune(Path(tmp_path), vae, recipe="decoder")
    assert result.report.settings["recipe"] == "decoder"
    assert not [n for n in changed(weights(vae), weights(result.vae)) if n.startswith("encoder")]


@pytest.mark.usefixtures("no_figures")
def test_every_epoch_has_one_validation_record(tmp_path):
    result = finetune(tmp_path / "out", ConvAE(), num_train_epochs=3, max_train_steps=None)
    epochs = [record["epoch"] for record in result.history if "validation_loss" in record]
    assert epochs == [1, 2, 3]


@pytest.mark.usefixtures("no_figures")
def test_weights_spoiled_by_an_infinite_gradient_are_not_saved(tmp_path):
    def finite_with_infinite_gradient(decoded, target):
        return (decoded - target).square().mean() + (decoded * 0).sum().abs().sqrt()

    out = tmp_path / "out"
    with pytest.raises(equivae.NonFiniteLossError, match="the gradient became NaN") as error:
        finetune(
            out,
            ConvAE(),
            reconstruction=finite_with_infinite_gradient,
            max_train_steps=3,
            checkpointing_steps=1,
            logging_steps=100,
        )
    assert error.value.step == 1
    assert not list(out.glob("checkpoint-*"))


@pytest.mark.usefixtures("no_figures")
def test_latest_starts_afresh_beside_what_a_killed_write_left(tmp_path):
    out = tmp_path / "out"
    (out / ".checkpoint-2.partial").mkdir(parents=True)
    (out / ".checkpoint-2.partial" / "model.safetensors").write_bytes(b"half")
    result = finetune(out, ConvAE(), max_train_steps=2, resume_from_checkpoint="latest")
    assert [p.name for p in out.glob("checkpoint-*")] == ["checkpoint-2"]
    assert result.history
