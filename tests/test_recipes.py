"""Recipes: objective and draws against each published formula by hand; files, lines and repeating."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from scipy.fft import dctn, idctn
from torch import Tensor

import equivae
from equivae import InputError
from equivae.autoencoder import Autoencoder
from equivae.cli import main
from equivae.losses import Objective, make_terms
from equivae.losses.masking import LatentMasking
from equivae.training import RECIPES, find_recipe, read_recipe
from equivae.training.config import make_config
from equivae.training.plan import loss_of
from equivae.training.recipes import recipe_text
from equivae.transforms import resolve_transforms, split_transforms
from models import noise, tiny_kl

HEAVY = ("lpips", "perceptual", "adversarial", "kl")  # tested by themselves
VAE = tiny_kl()
VIEW = Autoencoder(VAE)
SQUARES = noise(4, 3, 64, 64)


def objective(name: str, transforms: str | None = None, **own: object) -> Objective:
    recipe = RECIPES[name]
    terms = dict(recipe.options.get("terms") or {})
    light = {term: options for term, options in terms.items() if term not in HEAVY}
    config = make_config(name, {"terms": light, "sample_posterior": False, **own})
    wanted = resolve_transforms(split_transforms(transforms or recipe.transforms or "rot180"))
    masking = LatentMasking(4) if config.latent_masking else None
    terms_made = make_terms(config.terms)
    return Objective(VIEW, loss_of(wanted, config), terms=terms_made, masking=masking)


@torch.no_grad()
def value(one: Objective, x: Tensor, seed: int) -> float:
    return float(one(x, generator=torch.Generator().manual_seed(seed))[0])


@torch.no_grad()
def errors(x: Tensor, z: Tensor, loss: str = "mse") -> Tensor:
    """Of every sample."""
    difference = VIEW.decode(z) - x
    return (difference.square() if loss == "mse" else difference.abs()).flatten(1).mean(1)


@torch.no_grad()
def encoded(x: Tensor) -> Tensor:
    return VIEW.encode(x)


def near(found: float, candidates: list[float]) -> int:
    """Which of the candidates it is."""
    gaps = [abs(found - one) for one in candidates]
    place = min(range(len(gaps)), key=gaps.__getitem__)
    assert gaps[place] < 1e-5 * max(1.0, abs(found)), (found, candidates[place])
    return place


def shrunk(tensor: Tensor, factor: float, **options: bool) -> Tensor:
    return F.interpolate(tensor, scale_factor=factor, mode="bilinear", **options)


@functools.cache
def eqvae_errors() -> dict[tuple[str, int, int], Tensor]:
    """Of every sample under every draw that EQ-VAE's code can make."""
    x = SQUARES
    z = encoded(x)
    found = {("full", 32, 0): errors(x, z, "l1")}
    for s in range(8, 32):
        small, low = shrunk(x, s / 32), shrunk(z, s / 32)
        found["image", s, 0] = errors(small, encoded(small), "l1")
        for k in (1, 2, 3):
            turned = torch.rot90(small, k, (-1, -2)), torch.rot90(low, k, (-1, -2))
            found["latent", s, k] = errors(*turned, "l1")
    return found


def test_eq_vae_draws_once_per_batch() -> None:
    x, table = SQUARES, eqvae_errors()
    keys, candidates = list(table), [float(one.mean()) for one in table.values()]
    made = objective("eq-vae")
    kinds = Counter(keys[near(value(made, x, seed), candidates)][0] for seed in range(20))
    # p = .5, .125 and .375
    assert kinds["latent"] in range(5, 16)
    assert 0 < kinds["image"] < kinds["full"]


def test_eq_vae_per_sample_moves_half_of_every_batch() -> None:
    x, table = SQUARES, eqvae_errors()
    full = table["full", 32, 0]
    pairs = list(itertools.combinations(range(4), 2))
    candidates = []
    for key, moved in table.items():
        for pair in pairs if key[0] == "latent" else ():
            rows = [moved[i] if i in pair else full[i] for i in range(4)]
            candidates.append(float(torch.stack(rows).mean()))
    made = objective("eq-vae-per-sample")
    assert len({near(value(made, x, seed), candidates) % len(pairs) for seed in range(6)}) > 1


def test_published_is_two_squared_errors() -> None:
    x = noise(3, 3, 16, 16)
    z = encoded(x)
    expected = errors(x, z).mean() + errors(x.flip(-2, -1), z.flip(-2, -1)).mean()
    for name in ("published-rot180", "published"):
        assert value(objective(name), x, 0) == pytest.approx(float(expected), rel=1e-5)
    assert RECIPES["published"].options == RECIPES["published-rot180"].options


def test_scale_equivariance() -> None:
    x = noise(2, 3, 64, 64)
    z = encoded(x)
    candidates = []
    for factor in (0.5, 0.25):
        low = [shrunk(t, factor, antialias=True) for t in (x, z)]
        inside = equivae.get_transform("scale", factor=factor).at_factor(2).mask(x)
        with torch.no_grad():
            moved = (VIEW.decode(low[1]) - low[0]).square()[..., inside].mean()
        candidates.append(float(errors(x, z).mean() + 0.25 * moved))
    made = objective("scale-equivariance")
    assert {near(value(made, x, seed), candidates) for seed in range(8)} == {0, 1}
    assert make_config("scale-equivariance", {}).freeze == [
        "decoder.conv_norm_out",
        "decoder.conv_out",
    ]


def cut(tensor: Tensor, k: int) -> Tensor:
    """DSM's filter, block by block, with scipy's transform."""
    found = tensor.double().numpy().copy()
    for b, c, y, x in itertools.product(
        *map(range, found.shape[:2]), range(0, found.shape[2], 8), range(0, found.shape[3], 8)
    ):
        block = dctn(found[b, c, y : y + 8, x : x + 8], norm="ortho")
        for u, v in itertools.product(range(8), repeat=2):
            block[u, v] *= u + v < 15 - k
        found[b, c, y : y + 8, x : x + 8] = idctn(block, norm="ortho")
    return torch.from_numpy(found).float()


def test_spectrum_matching_filters_image_and_latent() -> None:
    x = noise(1, 3, 16, 16)
    z = encoded(x)
    candidates = [float(errors(cut(x, k), cut(z, k), "l1").mean()) for k in (0, 8, 10, 12)]
    made = objective("spectrum-matching")
    assert {near(value(made, x, seed), candidates) for seed in range(16)} == {0, 1, 2, 3}
    with pytest.raises(InputError, match="blocks of 8x8, and 12x16"):
        equivae.get_transform("cosine_cut", k=8).pixel(torch.zeros(1, 3, 12, 16))


def test_local_correlation_regularises_and_moves_nothing() -> None:
    x = noise(2, 3, 16, 16)
    made = objective("local-correlation")
    loss, terms = made(x, generator=torch.Generator().manual_seed(0))
    plain = errors(x, encoded(x), "l1").mean()
    assert float(terms["reconstruction"]) == pytest.approx(float(plain), rel=1e-5)
    assert set(terms) == {"reconstruction", "lcr", "lcr/scale"}
    expected = plain + 0.002 * terms["lcr/scale"] * terms["lcr"]
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_latent_masking_hides_cells_behind_a_learned_token() -> None:
    x = noise(6, 3, 16, 16)
    made = objective("latent-masking")
    assert made.masking is not None
    z, shares = encoded(x), Counter()
    made.masking.token.data.fill_(0.7)
    for seed in range(30):
        masked = made.masking(z, torch.Generator().manual_seed(seed)).detach()
        hidden = (masked == 0.7).all(1)
        assert masked.where(~hidden[:, None], z).equal(z)
        shares.update(hidden.float().flatten(1).mean(1).tolist())
        if seed < 3:
            expected = float(errors(x, masked, "l1").mean())
            assert value(made, x, seed) == pytest.approx(expected, rel=1e-5)
    assert set(shares) == {0.0, 0.25, 0.5, 0.75}
    assert shares[0.0] / shares.total() == pytest.approx(0.7, abs=0.1)
    loss, _ = made(x, generator=torch.Generator().manual_seed(0))
    loss.backward()
    assert made.masking.token.grad is not None


def test_af_ldm_shifts_inside_a_mask_on_both_sides() -> None:
    x = noise(2, 3, 32, 32)
    z = encoded(x)
    name = "random_fractional_shift(cells=12)"
    placed = VIEW.place(equivae.get_transform(name))
    draws = torch.Generator().manual_seed(1)
    shift = placed.draw(2, draws)
    mask = shift.mask(x)
    assert mask is not None
    with torch.no_grad():
        moved = (VIEW.decode(shift.latent(z)) - shift.pixel(x)).square()
    inside = mask.expand(2, 1, 32, 32).float()
    decoder = (moved * inside).sum() / (3 * inside.sum())
    terms = objective("af-ldm-shift")(x, generator=torch.Generator().manual_seed(1))[1]
    assert float(terms[f"equivariance/{name}"]) == pytest.approx(float(decoder), rel=1e-4)
    assert float(terms["reconstruction"]) == pytest.approx(float(errors(x, z).mean()), rel=1e-5)
    assert float(terms[f"encoder/{name}"]) > 0
    config = make_config("af-ldm-shift", {})
    assert config.terms["kl"] == {
        "weight": 1e-6
    }  # its MSE is a mean over pixels, its KL a sum over cells
    assert "adversarial" not in config.terms
    draws = [placed.draw(1, torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert max(abs(one.y) for one in draws) > 0.9 * 12  # 0.375 of 256 pixels, in cells of 8


def haku(
    tensor: Tensor,
    angle: float,
    scale: float,
    shear: tuple[float, float],
    move: tuple[float, float],
) -> Tensor:
    turn, hx, hy = math.radians(angle), math.radians(shear[0]), math.radians(shear[1])
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    linear = rotation @ torch.tensor([[1.0, hx], [hy, 1.0]]) @ torch.diag(torch.full((2,), scale))
    matrix = torch.cat([linear, 2 * torch.tensor(move)[:, None]], 1).expand(len(tensor), -1, -1)
    grid = F.affine_grid(matrix, list(tensor.shape), align_corners=False)
    return F.grid_sample(tensor, grid, padding_mode="reflection", align_corners=False)


def test_haku_latent_moves_and_blends_whole_batches() -> None:
    x = noise(3, 3, 32, 24)
    z = encoded(x)
    made, kinds = objective("haku-latent"), Counter()
    for seed in range(8):
        draws = torch.Generator().manual_seed(seed)
        moves = float(torch.rand((), generator=draws)) < 0.5
        torch.randint(1, (), generator=draws)
        kinds[moves] += 1
        if not moves:
            expected = 0.25 * errors(x, z).mean()
        else:
            unit = [float(torch.rand(1, generator=draws, dtype=torch.float64)) for _ in range(6)]
            angle, scale = 360 * unit[0] - 180, 0.8 + 0.4 * unit[1]
            shear, move = (
                (20 * unit[2] - 10, 10 * unit[3] - 5),
                (0.2 * unit[4] - 0.1, 0.2 * unit[5] - 0.1),
            )
            ring = torch.randperm(3, generator=draws)
            partner = torch.empty_like(ring)
            partner[ring] = ring.roll(1)
            own = 0.6 + 0.3 * float(torch.rand(1, generator=draws, dtype=torch.float64))
            seen = [haku(t, angle, scale, shear, move) for t in (x, z)]
            expected = 0.25 * errors(*(own * t + (1 - own) * t[partner] for t in seen)).mean()
        assert value(made, x, seed) == pytest.approx(float(expected), rel=1e-4)
    assert len(kinds) == 2
    config = make_config("haku-latent", {})
    assert (config.train, config.adam_beta2, config.learning_rate) == ("decoder", 0.98, 1e-3)
    assert config.sample_posterior
    assert make_config("ai-toolkit", {}).sample_posterior


def test_aura_flips_with_signs() -> None:
    x = noise(2, 3, 16, 16)
    z = encoded(x)
    table = []
    for axes, channels in (((), ()), ((-1,), (0, 1)), ((-2,), (2, 3)), ((-2, -1), (0, 1, 2, 3))):
        signs = torch.tensor([-1.0 if c in channels else 1.0 for c in range(4)]).view(1, 4, 1, 1)
        table.append(errors(x.flip(axes), z.flip(axes) * signs))
    candidates = [float(one.mean()) for one in table]
    made = objective("aura")  # one draw for the batch, one decode per image
    assert {near(value(made, x, seed), candidates) for seed in range(12)} == {0, 1, 2, 3}


def test_ai_toolkit_turns_and_flips_every_sample() -> None:
    x = noise(2, 3, 16, 16)
    z = encoded(x)
    table = [
        errors(*(torch.rot90(t, k, (-2, -1)).flip(axes) for t in (x, z)))
        for k in range(4)
        for axes in ((), (-1,))
    ]
    combined = [float((a[0] + b[1]) / 2) for a in table for b in table]
    made = objective("ai-toolkit")
    assert len({near(value(made, x, seed), combined) for seed in range(8)}) > 3


@pytest.mark.parametrize(
    ("name", "weight", "moved"),
    [("equivae", 1.0, 2), ("decoder", 1.0, 2), ("symmetrized", 1.0, 2), ("fitted", 4.0, 4)],
)
def test_the_library_s_own_move_a_share_of_every_batch(
    name: str, weight: float, moved: int
) -> None:
    x = noise(5 if name == "fitted" else 4, 3, 16, 16)
    z = encoded(x)
    plain, turned = errors(x, z), errors(x.flip(-2, -1), z.flip(-2, -1))
    rows = range(len(x))
    candidates = [
        float(weight * turned[list(some)].mean() + plain[[i for i in rows if i not in some]].mean())
        for some in itertools.combinations(rows, moved)
    ]
    for seed in range(4):
        near(value(objective(name), x, seed), candidates)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_written_as_it_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(recipe_text(RECIPES[name]), encoding="utf-8")
    assert find_recipe(path) == RECIPES[name]
    if name in ("equivae", "decoder", "fitted", "symmetrized"):
        return
    assert RECIPES[name].differs


WRONG = {
    "an unknown field": (
        "name: x\noptoins: {}\n",
        2,
        "unknown field 'optoins'. Did you mean 'options'",
    ),
    "an unknown option": (
        "options:\n  seed: 1\n  learnig_rate: 1\n",
        3,
        "unknown option 'learnig_rate'",
    ),
    "a wrong value": ("options:\n  seed: 1\n  weight: -1\n", 3, "weight must not be negative"),
    "a contradiction": (
        "options:\n  train: decoder\n  encoder_weight: 1.0\n",
        3,
        "encoder_weight has no effect",
    ),
    "a field twice": (
        "options:\n  seed: 1\n  weight: 1\n  seed: 2\n",
        4,
        "'seed' is there already, in line 2",
    ),
    "a secret": ("options:\n  hub_token: hf_abcdefgh\n", 2, "hub_token is a secret"),
    "an unknown term": ("options:\n  terms:\n    l1: 1\n    mes: 1\n", 4, "unknown term 'mes'"),
    "no YAML": ("options:\n  - a\n b: [\n", 3, "this is not YAML"),
    "no mapping": ("- a\n", 1, "a recipe is a mapping"),
    "an object": ("options: !!python/object:os.system {}\n", 1, "a recipe holds plain values"),
    "an unknown word of the run": ("run:\n  vae: x\n", 2, "unknown field 'vae' of a run"),
    "options that are a list": ("name: x\noptions: [1]\n", 2, "options must be a mapping"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_recipe_is_refused_with_its_line(what: str, tmp_path: Path) -> None:
    text, line, message = WRONG[what]
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        find_recipe(path)
    assert f"{path}, line {line}: " in str(error.value)
    assert message in str(error.value)


def test_words_and_numbers_are_what_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "options: {mixed_precision: no, learning_rate: 1e-4, use_ema: true}\n", encoding="utf-8"
    )
    assert read_recipe(path).options == {
        "mixed_precision": "no",
        "learning_rate": 1e-4,
        "use_ema": True,
    }
    with pytest.raises(InputError, match="cannot be read"):
        find_recipe(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"unknown recipe 'eqvae'\. Did you mean"):
        find_recipe("eqvae")


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["equivae", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_a_run_is_repeated_from_its_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, one, two = tmp_path / "photos", tmp_path / "one", tmp_path / "two"
    photos.mkdir()
    for i, image in enumerate(equivae.data.dead_leaves(6, size=16)):
        pixels = ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        from PIL import Image

        Image.fromarray(pixels).save(photos / f"{i}.png")
    tiny_kl().save_pretrained(tmp_path / "vae")
    words = (
        "finetune",
        "--pretrained_model_name_or_path",
        tmp_path / "vae",
        "--train_data_dir",
        photos,
    )
    words += (
        "--recipe",
        "ai-toolkit",
        "--resolution",
        16,
        "--max_train_steps",
        3,
        "--train_batch_size",
        2,
    )
    words += (
        "--hub_token",
        "hf_abcdefghijkl",
        "--seed",
        3,
        "--freeze",
        "decoder.conv_out*",
        "--output_dir",
        one,
    )
    assert call(monkeypatch, *words) == 0
    assert "Trained " in capsys.readouterr().out
    text = (one / "recipe.yaml").read_text(encoding="utf-8")
    assert "abcdefghijkl" not in text
    assert yaml.safe_load(text)["transforms"] == RECIPES["ai-toolkit"].transforms
    assert call(monkeypatch, "finetune", "--recipe", one / "recipe.yaml", "--output_dir", two) == 0
    weights = "diffusion_pytorch_model.safetensors"
    assert (one / weights).read_bytes() == (two / weights).read_bytes()
    assert (one / weights).read_bytes() != (tmp_path / "vae" / weights).read_bytes()
    again = yaml.safe_load((two / "recipe.yaml").read_text(encoding="utf-8"))
    assert again == yaml.safe_load(text)


def test_what_no_file_can_hold_is_asked_for(tmp_path: Path) -> None:
    def squared(decoded: Tensor, target: Tensor) -> Tensor:
        return (decoded - target).square().mean()

    images, options = (
        noise(4, 3, 16, 16),
        {"max_train_steps": 1, "progress": False, "bottleneck_steps": 0},
    )
    run = {**options, "reconstruction": squared}
    equivae.finetune(VAE, images, "hflip", tmp_path / "one", **run)
    recipe = tmp_path / "one" / "recipe.yaml"
    assert read_recipe(recipe).incomplete == ("reconstruction",)
    with pytest.raises(InputError, match="pass reconstruction from Python"):
        equivae.finetune(VAE, images, output_dir=tmp_path / "two", recipe=recipe)
    result = equivae.finetune(
        VAE,
        images,
        output_dir=tmp_path / "two",
        recipe=recipe,
        reconstruction=squared,
        progress=False,
    )
    assert [t.name for t in result.transforms] == ["hflip"]


def test_one_recipe_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "recipes", "haku-latent") == 0
    assert yaml.safe_load(capsys.readouterr().out)["options"]["train"] == "decoder"
    assert call(monkeypatch, "recipes", "haku-latant") == 2
    assert "Did you mean 'haku-latent'?" in capsys.readouterr().err


def test_a_recipe_file_with_a_fault_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("options:\n  learnig_rate: 1e-4\n", encoding="utf-8")
    words = (
        "finetune",
        "--pretrained_model_name_or_path",
        "embedded",
        "--train_data_dir",
        tmp_path,
    )
    assert call(monkeypatch, *words, "--recipe", path) == 2
    assert "mine.yaml, line 2: unknown option" in " ".join(capsys.readouterr().err.split())
