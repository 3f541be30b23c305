"""The layers at latent resolution: found in any image autoencoder, run by themselves, trained first."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import equivae
import matrix_models
from equivae.autoencoder import Autoencoder, NoBottleneckError, find_bottleneck
from equivae.autoencoder.bottleneck import Bottleneck
from equivae.training import BottleneckOptions, train_bottleneck
from equivae.training import pace as pace_module
from equivae.training.bottleneck import _look
from equivae.training.checkpoints import check_settings, read_state
from equivae.training.pace import Pace, decline
from models import tiny_kl

ROT180 = equivae.get_transform("rot180")
WITH = [
    "AsymmetricAutoencoderKL",
    "AutoencoderDC",
    "AutoencoderKL",
    "AutoencoderKLFlux2",
    "AutoencoderKLHunyuanImage",
    "AutoencoderKLKVAE",
    "AutoencoderTiny",
    "VQModel",
]
WITHOUT = ["AutoencoderKLQwenImage21", "AutoencoderRAE", "ConsistencyDecoderVAE"]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("name", WITH)
def test_front_and_tail_are_the_encoder(name: str) -> None:
    module = matrix_models.make(name).eval()
    vae, x = Autoencoder(module), matrix_models.inputs(name)
    found = find_bottleneck(vae, x)
    with torch.no_grad():
        z, h = vae.encode(x), found.front(x)
        assert torch.allclose(found.tail(h), z, atol=1e-5)
        assert found.head(z).shape[2:] == z.shape[2:]
        # Half of what is written as `D = back ∘ head`: the head depends on the latent.
        assert not torch.allclose(found.head(z), found.head(z + 1))
    assert all("forward" not in part.__dict__ for part in module.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize("name", WITHOUT)
def test_those_that_have_none_say_so(name: str) -> None:
    x = matrix_models.inputs(name)
    with pytest.raises(NoBottleneckError, match=r"latent resolution"):
        find_bottleneck(Autoencoder(matrix_models.make(name).eval()), x)


def test_audio_has_none() -> None:
    wave = matrix_models.inputs("AutoencoderOobleck")
    with pytest.raises(NoBottleneckError, match="audio"):
        find_bottleneck(Autoencoder(matrix_models.make("AutoencoderOobleck")), wave)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_reach_the_layers_at_latent_resolution_alone(layout: torch.memory_format) -> None:
    vae = Autoencoder(tiny_kl().to(memory_format=layout))
    x = noise(2, 3, 32, 32).contiguous(memory_format=layout)
    found = find_bottleneck(vae, x)
    with torch.no_grad():
        features = found.front(x)
    found.head(found.tail(features)).square().mean().backward()
    reached = {n for n, p in vae.module.named_parameters() if p.grad is not None}
    entry = found.entry.rsplit(".", 1)[0]
    assert reached
    assert not any(
        name.startswith((entry, "encoder.conv_in", "decoder.conv_out")) for name in reached
    )
    assert any(name.startswith("encoder.mid_block") for name in reached)
    assert any(name.startswith("decoder.mid_block") for name in reached)


def test_an_own_forward_comes_back_after_an_error() -> None:
    vae = Autoencoder(tiny_kl())
    found = find_bottleneck(vae, noise(1, 3, 32, 32))
    entry = vae.module.get_submodule(found.entry)
    own = entry.forward
    entry.forward = own  # as accelerate's hooks do it
    with pytest.raises(RuntimeError):
        found.tail(torch.zeros(1, 3, 5, 5))
    assert entry.__dict__["forward"] is own


def test_it_teaches_the_round_trip_and_leaves_the_rest() -> None:
    images = equivae.data.load_images(equivae.data.dead_leaves(48, size=64, seed=3))
    tested = equivae.zoo.photographs(64)
    module = equivae.zoo.load()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    untouched = equivae.evaluate(module, tested, "rot180", progress=False).metrics
    state = torch.get_rng_state()
    options = BottleneckOptions(steps=60, progress=False)
    result = train_bottleneck(Autoencoder(module), [ROT180], images, options)
    assert torch.get_rng_state().equal(state)
    trained = equivae.evaluate(module, tested, "rot180", progress=False).metrics
    gained = (
        trained.transforms["rot180"].round_trip_psnr
        - untouched.transforms["rot180"].round_trip_psnr
    )
    assert gained > 1.0
    assert sum(result.losses[-10:]) < 0.7 * sum(result.losses[:10])
    after = module.state_dict()
    changed = sum(value.numel() for name, value in after.items() if not value.equal(before[name]))
    assert 0 < changed <= result.parameters < sum(v.numel() for v in after.values())
    assert after["encoder.conv_in.weight"].equal(before["encoder.conv_in.weight"])
    assert after["decoder.conv_out.weight"].equal(before["decoder.conv_out.weight"])


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_equal_seeds_give_equal_weights(precision: str) -> None:
    images = equivae.data.load_images(noise(9, 3, 48, 48))

    def trained(seed: int) -> nn.Module:
        module = tiny_kl()
        options = BottleneckOptions(
            steps=3, crop_size=32, mixed_precision=precision, seed=seed, progress=False
        )
        result = train_bottleneck(Autoencoder(module), [ROT180], images, options)
        assert result.images == 9
        return module

    one, again, other = (list(trained(seed).parameters()) for seed in (0, 0, 1))
    assert all(a.equal(b) for a, b in zip(one, again, strict=True))
    assert not all(a.equal(b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("memory_mb", "untouched"), [(64, 6), (0, 16)])
def test_the_untouched_head_runs_once_for_each_batch(
    monkeypatch: pytest.MonkeyPatch, memory_mb: int, untouched: int
) -> None:
    calls: list[bool] = []
    head = Bottleneck.head
    monkeypatch.setattr(
        Bottleneck,
        "head",
        lambda self, z: (calls.append(torch.is_grad_enabled()), head(self, z))[1],
    )
    images = equivae.data.load_images(noise(6 if memory_mb else 2, 3, 32, 32))
    options = BottleneckOptions(
        steps=8, train_batch_size=2, memory_mb=memory_mb, seed=1, progress=False
    )
    train_bottleneck(Autoencoder(tiny_kl()), [ROT180], images, options)
    assert calls.count(False) == untouched  # of three batches, or at each of eight steps
    assert calls.count(True) == 1 + 2 * 8  # one to see what learns


def test_targets_that_are_kept_change_nothing() -> None:
    images = equivae.data.load_images(noise(8, 3, 32, 32))

    def trained(memory_mb: int) -> nn.Module:
        module = tiny_kl()
        options = BottleneckOptions(steps=4, memory_mb=memory_mb, progress=False)
        train_bottleneck(Autoencoder(module), [ROT180], images, options)
        return module

    kept, anew = (list(trained(memory).parameters()) for memory in (64, 0))
    assert all(a.equal(b) for a, b in zip(kept, anew, strict=True))


def test_no_gradient_is_left_behind() -> None:
    module = tiny_kl()
    options = BottleneckOptions(steps=2, progress=False)
    images = equivae.data.load_images(noise(4, 3, 32, 32))
    train_bottleneck(Autoencoder(module), [ROT180], images, options)
    assert all(p.grad is None for p in module.parameters())


def test_slices_are_no_bottleneck_and_are_left_out() -> None:
    module = tiny_kl()
    module.enable_slicing()
    with pytest.raises(NoBottleneckError):
        find_bottleneck(Autoencoder(module), noise(1, 3, 32, 32))
    images = equivae.data.load_images(noise(4, 3, 32, 32))
    result = train_bottleneck(module, "rot180", images, BottleneckOptions(steps=2, progress=False))
    assert result.images == 4
    assert module.use_slicing


class Custom(nn.Module):
    """A small autoencoder whose encoder works in place, or checkpoints as a whole."""

    def __init__(self, checkpointing: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.LeakyReLU(0.1, inplace=True), nn.Conv2d(8, 4, 3, 1, 1)
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(4, 8, 3, 1, 1), nn.Upsample(scale_factor=2), nn.Conv2d(8, 3, 3, 1, 1)
        )
        self.checkpointing = checkpointing

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(self.encoder, images, use_reentrant=False)
        return self.encoder(images)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(latents)


def test_an_activation_in_place_leaves_the_features_alone() -> None:
    vae, x = Autoencoder(Custom()), noise(2, 3, 16, 16)
    found = find_bottleneck(vae, x)
    with torch.no_grad():
        features, z = found.front(x).clone(), vae.encode(x)
        for _ in range(3):
            assert torch.allclose(found.tail(features), z, atol=1e-6)


def test_an_encoder_that_is_computed_again_trains_as_a_whole(tmp_path) -> None:
    result = equivae.finetune(
        Custom(checkpointing=True),
        noise(6, 3, 16, 16),
        "rot180",
        tmp_path / "out",
        max_train_steps=1,
        progress=False,
    )
    assert result.report.settings["bottleneck_steps"] == 0


def test_every_transform_has_its_batch() -> None:
    images = equivae.data.load_images(noise(16, 3, 32, 32))
    vae = Autoencoder(tiny_kl())
    d4 = [t for t in equivae.get_group("d4") if t.name != "identity"]
    batches = _look(
        find_bottleneck(vae, images[0][None]),
        d4,
        images,
        BottleneckOptions(progress=False),
        torch.Generator().manual_seed(0),
    )
    assert {b.transform.name for b in batches} == {t.name for t in d4}
    assert sum(len(b.latents) for b in batches) == 16


@pytest.mark.parametrize("frozen", [True, False])
def test_weights_have_to_learn_in_float32(frozen: bool) -> None:
    module = tiny_kl().requires_grad_(not frozen)
    if not frozen:
        module.half()
    images = equivae.data.load_images(noise(4, 3, 32, 32))
    options = BottleneckOptions(steps=1, progress=False)
    with pytest.raises(equivae.InputError, match="learn"):
        train_bottleneck(Autoencoder(module), [ROT180], images, options)


def test_weights_come_back_when_the_loss_is_lost() -> None:
    module = tiny_kl()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    images = equivae.data.load_images(noise(4, 3, 32, 32))
    options = BottleneckOptions(steps=30, learning_rate=1e18, progress=False)
    with pytest.raises(equivae.NonFiniteLossError, match="bottleneck_learning_rate"):
        train_bottleneck(Autoencoder(module), [ROT180], images, options)
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())


def test_features_stay_within_the_memory_given() -> None:
    images = equivae.data.load_images(noise(12, 3, 32, 32))
    options = BottleneckOptions(steps=1, train_batch_size=2, memory_mb=0, progress=False)
    assert train_bottleneck(Autoencoder(tiny_kl()), [ROT180], images, options).images == 2


@pytest.mark.parametrize(
    "transforms", [["rotate(angle=30)"], ["rot90", "hflip"], ["random_affine"], []]
)
def test_any_transform_can_be_taught(transforms: list[str]) -> None:
    images = equivae.data.load_images(noise(8, 3, 32, 32))
    wanted = [equivae.get_transform(name) for name in transforms]
    options = BottleneckOptions(steps=2, train_batch_size=4, progress=False)
    result = train_bottleneck(Autoencoder(tiny_kl()), wanted, images, options)
    assert len(result.losses) == 2
    assert all(loss >= 0 for loss in result.losses)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_train_steps": 2}, 1),  # each costs 1.01 times a whole step of this VAE
        ({"max_train_steps": 2, "bottleneck_share": 2.2}, 4),
        ({"max_train_steps": 2, "bottleneck_share": 9.0, "bottleneck_steps": 3}, 3),
        ({"max_train_steps": 2, "bottleneck_steps": 0}, 0),
        ({"max_train_steps": 2, "train": "decoder"}, 0),
        ({"max_train_steps": 2, "recipe": "published", "resolution": None}, 0),
    ],
)
def test_a_fine_tune_begins_with_it(tmp_path, options, steps) -> None:
    result = equivae.finetune(
        tiny_kl(), noise(6, 3, 32, 32), "rot180", tmp_path / "out", progress=False, **options
    )
    assert result.report.settings["bottleneck_steps"] == steps


def test_a_fine_tune_without_such_layers_trains_as_a_whole(tmp_path) -> None:
    vae = matrix_models.make("AutoencoderKLQwenImage21")
    result = equivae.finetune(
        vae,
        matrix_models.inputs("AutoencoderKLQwenImage21"),
        "hflip",
        tmp_path / "out",
        max_train_steps=1,
        progress=False,
        validation_split=0.0,
    )
    assert result.report.settings["bottleneck_steps"] == 0


def test_a_resumed_run_does_not_begin_again(tmp_path) -> None:
    options = {"max_train_steps": 3, "checkpointing_steps": 2, "progress": False, "seed": 3}
    options["bottleneck_share"] = 3.0
    images, out = noise(6, 3, 32, 32), tmp_path / "out"
    whole = equivae.finetune(tiny_kl(), images, "rot180", out, **options)
    again = tmp_path / "again"
    resumed = equivae.finetune(
        tiny_kl(),
        images,
        "rot180",
        again,
        resume_from_checkpoint=str(out / "checkpoint-2"),
        **options,
    )
    for a, b in zip(whole.vae.parameters(), resumed.vae.parameters(), strict=True):
        assert a.equal(b)
    assert resumed.report.settings["bottleneck_steps"] == 8


def test_a_loss_that_rests_ends_it_and_one_that_falls_does_not() -> None:
    levels = [1.0, 3.0, 0.4]  # batches differ by far more than their losses change
    generator = torch.Generator().manual_seed(0)
    batches = torch.randint(3, (400,), generator=generator).tolist()

    def losses(change: float, steps: int) -> list[float]:
        return [levels[b] * (1 - change) ** (i / 100) for i, b in enumerate(batches[:steps])]

    assert decline(losses(0.05, 199), batches) is None
    for change in (0.05, 0.02, 0.0, -0.03):
        assert decline(losses(change, 400), batches) == pytest.approx(change, abs=1e-6)


def test_an_early_end_takes_the_rate_to_zero() -> None:
    pace = Pace(1000, 20)
    assert (pace(0), pace(20), pace(1000)) == (0.0, 1.0, 0.0)
    usual = [pace(step) for step in range(1001)]
    pace.end(950)
    assert (pace.last, pace(999)) == (1000, usual[999])  # no sooner than planned
    pace.end(300)
    assert [pace(step) for step in range(301)] == usual[:301]
    assert pace.last == 330
    assert usual[300] > pace(301) > pace(329) > pace(330) == 0.0
    pace.end(310)
    assert pace.last == 330


def test_the_steps_end_with_their_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "_WINDOW", 10)
    images = equivae.data.load_images(noise(4, 3, 16, 16))

    def trained(tolerance: float) -> tuple[int, list[torch.Tensor]]:
        module = tiny_kl()
        options = BottleneckOptions(
            steps=120, tolerance=tolerance, learning_rate=1e-9, progress=False
        )
        result = train_bottleneck(module, "rot180", images, options)
        return len(result.losses), list(module.parameters())

    assert trained(0.0)[0] == 120
    (steps, one), (again, other) = trained(0.01), trained(0.01)
    assert steps == again == 22  # looked at every ten steps; a tenth more for the rate to fall
    assert all(a.equal(b) for a, b in zip(one, other, strict=True))


def test_a_run_that_is_lengthened_is_told_of_other_steps_before_it(tmp_path, caplog) -> None:
    images, out = noise(6, 3, 16, 16), tmp_path / "out"
    options = {"lr_scheduler": "constant", "lr_warmup_steps": 0, "progress": False}
    equivae.finetune(tiny_kl(), images, "rot180", out, max_train_steps=2, **options)
    state = read_state(out / "checkpoint-2")
    assert state.bottleneck_cost == pytest.approx(1.01, abs=0.05)
    assert state.bottleneck_planned == 1
    check_settings(out / "checkpoint-2", state, state.settings | {"max_train_steps": 8})
    assert "began with 1 steps" in caplog.text
    assert "begins with 7" in caplog.text
