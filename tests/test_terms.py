"""Every term of the loss against a value worked out by hand, under masks, and with gradients that flow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor, nn

import equivae
from equivae import Autoencoder, InputError
from equivae.losses import TERMS, Objective, TermContext, make_terms, read_terms
from equivae.losses.decoding import Decoded, Decoding, Part
from models import ConvAE, MarkedAE, PoolAE, noise, tiny_kl

NETWORK = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False))
with torch.no_grad():
    NETWORK[0].weight.copy_(torch.eye(3)[..., None, None])


def term(name: str, **options: Any) -> Any:
    [(_, made)] = make_terms({name: {"weight": 1.0, **options}})
    return made


def decoding(
    vae: nn.Module, images: Tensor, *, transform: str = "identity", sampled: bool = False
) -> Decoding:
    """One part of a step, decoded."""
    autoencoder = Autoencoder(vae)
    placed = autoencoder.place(equivae.get_transform(transform))
    latents = autoencoder.encode(images, sample=sampled, generator=torch.manual_seed(0))
    step = Decoding(autoencoder, images, latents, sampled, [placed], [placed], None)
    step.decode([Part("part", placed, None, 1.0)], autoencoder.decode)
    return step


def compared(decoded: Tensor, target: Tensor, mask: Tensor | None = None) -> Decoding:
    """A step whose one decode is given."""
    vae = Autoencoder(PoolAE())
    step = Decoding(vae, target, target[..., ::2, ::2], False, [], [], None)
    part = Part("part", equivae.get_transform("identity"), None, 1.0)
    step.parts.append(Decoded(part, decoded, target, mask))
    return step


def value(made: Any, step: Decoding) -> float:
    (one,) = made(step)
    return float(one.value.detach())


A, B = 0.2, -0.4  # of constant images, 0.6 and 0.3 in [0, 1]
SIMILAR = (2 * 0.6 * 0.3 + 1e-4) / (0.6**2 + 0.3**2 + 1e-4)
BY_HAND = {
    "mse": ({}, 0.36),
    "l1": ({}, 0.6),
    "charbonnier": ({"epsilon": 0.8}, 0.2),
    "low_pass_mse": ({"sigma": 1.0}, 0.36),
    "multi_scale_mse": ({"scales": 3}, 0.36),
    "ssim": ({}, 1 - SIMILAR),
    "ms_ssim": ({}, 1 - SIMILAR**0.1333),
    # Grey of either sign points the other way: |1 - (-1)|² = 4.
    "perceptual": ({"backbone": NETWORK, "layers": ("0",)}, None),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_terms_of_images_by_hand(name: str) -> None:
    options, expected = BY_HAND[name]
    side = 176 if name == "ms_ssim" else 32
    decoded = torch.full((2, 3, side, side), A, requires_grad=True)
    target = torch.full((2, 3, side, side), B)
    made = term(name, **options)
    if expected is None:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        first, second = ((v / 2 + 0.5 - mean) / std for v in (A, B))
        apart = first / first.norm() - second / second.norm()
        expected = float(apart.square().sum())
    (one,) = made(compared(decoded, target))
    assert one.name == f"{name}/part"
    assert one.value.item() == pytest.approx(expected, rel=1e-3)
    one.value.backward()
    assert decoded.grad is not None
    assert decoded.grad.abs().sum() > 0
    assert value(made, compared(target, target)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in BY_HAND if name != "ms_ssim"])
def test_what_lies_outside_the_mask_changes_nothing(name: str) -> None:
    made = term(name, **BY_HAND[name][0])
    target = noise(1, 3, 32, 32)
    decoded = noise(1, 3, 32, 32, seed=1).requires_grad_(True)
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 4:28, 4:20] = True
    inside = value(made, compared(decoded, target, mask))
    other = torch.where(mask, decoded, 7.0)
    assert value(made, compared(other, target, mask)) == pytest.approx(inside, rel=1e-6)
    (one,) = made(compared(decoded, target, mask))
    one.value.backward()
    assert decoded.grad is not None
    assert not decoded.grad[~mask.expand_as(decoded)].any()
    assert decoded.grad[mask.expand_as(decoded)].any()


@pytest.mark.parametrize("name", ["ssim", "low_pass_mse", "lcr", "esm", "latent_spectrum"])
def test_mixed_precision_takes_no_digits(name: str) -> None:
    target = noise(2, 3, 32, 32) / 50 + 0.9  # a mean far above the deviation
    step = compared(target + noise(2, 3, 32, 32, seed=1) / 50, target)
    exact = value(term(name), step)
    with torch.autocast("cpu", torch.bfloat16):
        assert value(term(name), step) == pytest.approx(exact, rel=1e-5)


def test_detail_and_shape_are_told_apart() -> None:
    checkers = torch.ones(1, 3, 32, 32)
    checkers[..., ::2, ::2] = checkers[..., 1::2, 1::2] = -1
    step = compared(checkers, torch.zeros(1, 3, 32, 32))
    # The blur's transfer at the highest frequency of both axes, squared.
    taps = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    transfer = (taps * (-1.0) ** np.arange(-3, 4)).sum() / taps.sum()
    inner = float(term("low_pass_mse", sigma=1.0)(step)[0].value)
    assert inner == pytest.approx(transfer**4, abs=0.02)
    assert value(term("multi_scale_mse", scales=4), step) == pytest.approx(1 / 4)


def test_kl_by_hand() -> None:
    vae = tiny_kl()
    step = decoding(vae, noise(2, 3, 16, 16))
    posterior = vae.encode(step.images).latent_dist
    assert value(term("kl"), step) == pytest.approx(float(posterior.kl().mean()), rel=1e-5)
    mean, logvar = torch.full((1, 2, 3, 3), 0.5), torch.full((1, 2, 3, 3), math.log(4.0))
    step.posterior = (mean, logvar)
    expected = 18 * (0.25 + 4 - 1 - math.log(4.0)) / 2
    assert value(term("kl"), step) == pytest.approx(expected, rel=1e-6)


def test_the_posterior_of_a_step_costs_no_other_encode_and_draws_the_same() -> None:
    vae, images, calls = tiny_kl(), noise(2, 3, 16, 16), []
    plain = equivae.EquivarianceLoss("hflip", sample_posterior=True)
    usual = plain.decode(vae, images, generator=torch.Generator().manual_seed(3))
    hook = vae.encoder.register_forward_hook(lambda *_: calls.append(1))
    with_posterior = plain.decode(
        vae, images, generator=torch.Generator().manual_seed(3), posterior=True
    )
    with_posterior.modes(), with_posterior.gaussian()
    hook.remove()
    assert len(calls) == 1
    assert torch.equal(with_posterior.latents, usual.latents)
    assert torch.equal(with_posterior.modes(), vae.encode(images).latent_dist.mode())


def test_the_spread_of_the_latents_by_hand() -> None:
    made, images = term("latent_std"), noise(2, 3, 16, 16)
    step = decoding(PoolAE(), images)
    made.start(step.vae, [step.latents[:1], step.latents[1:]])
    assert value(made, step) == pytest.approx(0, abs=1e-6)
    step.latents = 3 * step.latents
    assert value(made, step) == pytest.approx(4)
    saved = made.state_dict()
    assert saved["reference"].shape == (3,)
    twin = term("latent_std")
    twin.load_state_dict(saved)
    assert value(twin, step) == pytest.approx(4)


def test_local_correlation_by_hand() -> None:
    latents = noise(2, 5, 4, 6)
    step = decoding(PoolAE(), noise(2, 3, 8, 8))
    step.latents = latents
    cells = latents.numpy().astype(np.float64)
    cells = cells - cells.mean((0, 2, 3), keepdims=True)
    cells = cells / cells.std((0, 2, 3), ddof=1, keepdims=True)
    found = []
    for image in cells:
        for y in range(0, 4, 2):
            for x in range(0, 6, 2):
                four = image[:, y : y + 2, x : x + 2].reshape(5, 4)
                found += [np.corrcoef(four.T)[i, j] for i in range(4) for j in range(i)]
    made = term("lcr", threshold=0.75)
    assert value(made, step) == pytest.approx(0.75 - np.mean(found), abs=1e-4)
    assert value(term("lcr", threshold=-1.0), step) == 0


def test_spectrum_matching_by_hand() -> None:
    images, latents = noise(2, 3, 32, 32), noise(2, 4, 32, 32, seed=1)
    step = decoding(PoolAE(), images)
    step.latents = latents

    def rings(grid: Tensor) -> np.ndarray:
        power = (scipy.fft.dctn(grid.double().numpy(), axes=(2, 3), norm="ortho") ** 2).mean(1)
        power[:, 0, 0] = 0
        radius = np.hypot(*np.mgrid[:32, :32])
        place = np.minimum((radius / radius.max() * 16).astype(int), 15)
        return np.stack([[one[place == k].mean() for k in range(16)] for one in power])

    def shares(profile: np.ndarray) -> np.ndarray:
        logs = np.log1p(profile)
        return logs / logs.sum(1, keepdims=True)

    for delta in (0.0, 1.0):
        wanted = shares(rings(images) * np.arange(1, 17) ** delta)
        given = shares(rings(latents))
        expected = (wanted * np.log(wanted / given)).sum(1).mean()
        assert value(term("esm", delta=delta), step) == pytest.approx(expected, rel=1e-3)


def test_variation_and_spectrum_of_latents_by_hand() -> None:
    step = decoding(PoolAE(), noise(1, 3, 32, 32))
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 3, 16, 16)
    step.latents = 5 * stripes
    assert value(term("total_variation"), step) == pytest.approx(2)
    assert value(term("total_variation", relative=False), step) == pytest.approx(10)
    wave = torch.cos(math.pi / 16 * (torch.arange(16) + 0.5) * 2).expand(1, 3, 16, 16)
    step.latents = wave
    assert value(term("latent_spectrum", cutoff=0.5), step) == pytest.approx(0, abs=1e-6)
    steep = torch.cos(math.pi / 16 * (torch.arange(16) + 0.5) * 15).expand(1, 3, 16, 16)
    step.latents = 3 * steep + 4 * wave
    assert value(term("latent_spectrum", cutoff=0.5), step) == pytest.approx(9 / 25, rel=1e-4)


@pytest.mark.parametrize("name", ["latent_consistency", "total_variation", "latent_spectrum"])
def test_smaller_latents_are_no_better_ones(name: str) -> None:
    step = decoding(ConvAE(), noise(2, 3, 16, 16), transform="rot180")
    step.latents = step.latents.detach().requires_grad_(True)
    step.vae = Autoencoder(PoolAE()) if name != "latent_consistency" else step.vae
    (one,) = term(name)(step)
    if name == "latent_consistency":  # both sides scale together
        seen = step.vae.encode(step.parts[0].decoded).detach().requires_grad_(True)
        step.vae = _Encodes(seen)
        (one,) = term(name)(step)
        one.value.backward()
        along = (seen.grad * seen).sum() + (step.latents.grad * step.latents).sum()
    else:
        one.value.backward()
        along = (step.latents.grad * step.latents).sum()
    assert along.abs() < 1e-5 * step.latents.grad.norm() * step.latents.norm()
    assert step.latents.grad.norm() > 0


class _Encodes:
    def __init__(self, latents: Tensor) -> None:
        self.latents = latents

    def encode(self, images: Tensor) -> Tensor:
        return self.latents


def test_latent_consistency_by_hand() -> None:
    up, down = 0.3, 0.1
    step = decoding(MarkedAE(up, down), noise(2, 3, 16, 16))
    made = term("latent_consistency")
    made.start(step.vae, [step.latents])
    power = float(step.latents.square().mean())
    assert value(made, step) == pytest.approx((up - down) ** 2 / power, rel=1e-4)


@pytest.mark.parametrize("name", sorted(set(TERMS) - {"lpips", "ms_ssim"}))
def test_gradients_reach_what_learns(name: str) -> None:
    options = {
        "perceptual": {"backbone": NETWORK, "layers": ("0",)},
        "style": {"backbone": NETWORK, "layers": ("0",)},
        "alignment": {"backbone": NETWORK, "layers": ("0",), "cosine_margin": 0.0},
        "adversarial": {"channels": 4, "depth": 1, "adaptive": False},
        "latent_std": {},
    }
    vae = tiny_kl()
    made = term(name, **options.get(name, {}))
    step = decoding(vae, noise(2, 3, 32, 32), transform="hflip")
    made.start(step.vae, [2 * step.latents.detach()])
    sum(one.weight * one.value for one in made(step)).backward()
    halves = {"encoder": vae.encoder.conv_in, "decoder": vae.decoder.conv_out}
    got = {half for half, layer in halves.items() if layer.weight.grad is not None}
    assert got == ({"encoder"} if made.only_latents else {"encoder", "decoder"})
    assert all(halves[half].weight.grad.abs().sum() > 0 for half in got)


def test_terms_are_written_as_people_write_them() -> None:
    whole = {"kl": {"weight": 1e-6}, "adversarial": {"weight": 0.5, "start_step": 100}}
    assert read_terms({"kl": 1e-6, "adversarial": {"weight": 0.5, "start_step": 100}}) == whole
    assert read_terms("kl=1e-6, adversarial(weight=0.5,start_step=100)") == whole
    assert read_terms(["kl(weight=1e-6)", "adversarial(weight=0.5,start_step=100)"]) == whole
    assert read_terms("ssim") == {"ssim": {"weight": 1.0}}
    assert read_terms(None) == read_terms([]) == {}
    assert make_terms({"ssim": 0}) == []


WRONG = [
    ({"lpip": 1}, "unknown term 'lpip'. Did you mean 'lpips'"),
    ({"kl": "x"}, "weight of the term 'kl' must be a number, got 'x'"),
    ("kl=x", "weight of the term 'kl' must be a number, got 'x'"),
    ({"kl": -1}, "weight of the term 'kl' must not be negative"),
    ({"kl": {"wait": 1}}, "the term 'kl' has no option 'wait'. Did you mean 'weight'"),
    ({"charbonnier": {"eps": 1}}, "no option 'eps'. Did you mean 'epsilon'"),
    ({"charbonnier": {"epsilon": 0}}, "epsilon of the term 'charbonnier' must be above 0, got 0"),
    ({"adversarial": {"loss": "hing"}}, "'hing' is unknown. Did you mean 'hinge'"),
    ({"adversarial": {"r1": 1.0}}, "which norm='batch' mixes"),
    ({"perceptual": 1}, "the term 'perceptual' needs backbone"),
    ({"mse": 1}, "reconstruction='mse' gives it already"),
    ("kl=1,kl=2", "terms has 'kl' twice"),
    ("kl(1)", "term 'kl(1)' cannot be read; write 'kl=1e-6'"),
    (7, "terms must be a mapping"),
]


@pytest.mark.parametrize(("terms", "said"), WRONG)
def test_what_cannot_be_is_refused_in_one_sentence(terms: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        equivae.FinetuneConfig(terms=terms)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_reconstruction_none_needs_terms() -> None:
    with pytest.raises(InputError, match="leaves nothing to learn without terms"):
        equivae.FinetuneConfig(reconstruction="none")
    config = equivae.FinetuneConfig(reconstruction="none", terms={"mse": 0.25, "ssim": 0.1})
    assert config.to_dict()["terms"] == {"mse": {"weight": 0.25}, "ssim": {"weight": 0.1}}


def test_terms_of_an_objective_add_up_by_their_weights() -> None:
    vae, images = tiny_kl(), noise(2, 3, 16, 16)
    loss_fn = equivae.EquivarianceLoss("hflip", reconstruction="none", schedule="dual")
    objective = Objective(vae, loss_fn, terms=make_terms({"mse": 0.25, "kl": 1e-3}))
    loss, values = objective(images)
    expected = 0.25 * (values["mse/reconstruction"] + values["mse/equivariance/hflip"])
    assert float(loss) == pytest.approx(float(expected + 1e-3 * values["kl"]), rel=1e-6)
    plain, terms = Objective(vae, equivae.EquivarianceLoss("hflip"))(images)
    assert float(plain) == pytest.approx(4 * float(expected), rel=1e-6)
    assert list(terms) == ["reconstruction", "equivariance/hflip"]


def test_shares_are_those_of_the_gradients_at_the_decoders_last_layer() -> None:
    vae, images = tiny_kl(), noise(2, 3, 16, 16)
    terms = make_terms({"l1": 0.5, "ssim": 0.1, "kl": 1e-3})
    objective = Objective(vae, equivae.EquivarianceLoss("hflip"), terms=terms)
    _, usual = objective(images)
    assert not any(name.startswith("share/") for name in usual)
    objective.at_step(9, weighs=True)
    _, values = objective(images)
    norms = {}
    for name, weights in {"mse": (1, 0, 0), "l1": (0, 0.5, 0), "ssim": (0, 0, 0.1)}.items():
        base = weights[0] or None
        alone = Objective(
            vae,
            equivae.EquivarianceLoss("hflip", reconstruction="mse" if base else "none"),
            terms=[(w, made) for w, (_, made) in zip(weights[1:], terms, strict=False) if w],
        )
        (slope,) = torch.autograd.grad(alone(images)[0], vae.decoder.conv_out.weight)
        norms[name] = float(slope.norm())
    for name, norm in norms.items():
        share = float(values[f"share/{name}"])
        assert share == pytest.approx(norm / sum(norms.values()), rel=1e-4), name
    assert values["share/kl"] == 0
    # Where the last layer is frozen, the last one that learns.
    vae.decoder.conv_out.requires_grad_(False)
    _, values = objective(images)
    assert sum(float(v) for k, v in values.items() if "share/" in k) == pytest.approx(1)


@pytest.fixture
def context() -> Any:
    def make(**options: Any) -> TermContext:
        settings = {"train": "all", "example": noise(1, 3, 32, 32), "batch": 4, **options}
        return TermContext(settings.pop("vae", Autoencoder(tiny_kl())), **settings)

    return make


UNSUITABLE = [
    ("kl", {"train": "decoder"}, "looks at latents alone"),
    ("kl", {"vae": Autoencoder(PoolAE())}, "has no posterior with a mean and a variance"),
    ("adversarial", {"train": "encoder"}, "teaches a decoder, which does not learn"),
    ("adversarial", {"batch": 1}, "needs two images in a batch, got one"),
    ("adversarial", {"example": noise(1, 3, 16, 16)}, "needs images of 24 pixels"),
    ("adversarial", {"sizes": [(16, 16)]}, "needs images of 24 pixels under every transform"),
    ("adversarial", {"example": noise(1, 1, 32, 32)}, "judges images of 3 channels"),
    ("adversarial", {"max_steps": 0}, "starts at step 0, and the run has 0"),
    ("ms_ssim", {}, "at least 176 pixels"),
    ("multi_scale_mse", {"example": noise(1, 3, 4, 4)}, "needs images of 8 pixels"),
    ("ssim", {"example": noise(1, 2, 64)}, "is for images and videos, and these are sounds"),
    ("lcr", {"example": noise(1, 3, 2, 2)}, "windows of 2x2"),
]


@pytest.mark.parametrize(("name", "options", "said"), UNSUITABLE)
def test_what_does_not_suit_a_run_is_refused(
    name: str, options: dict[str, Any], said: str, context: Any
) -> None:
    with pytest.raises(InputError) as error:
        term(name).check_run(context(**options))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
