"""The file of a latent op: written whole, read back, refused in one sentence, applied without the library."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import equivae
from equivae.latent_scaling import LatentScaling
from equivae.operators import ConvOperator, FittedTransform, load_latent_op
from equivae.operators.runtime import load
from models import ConvAE, noise


def fit(transform: str = "rot90", kernel_size: int = 3, **options) -> FittedTransform:
    # A rotation needs cells for every one of its phases.
    images = noise(24, 3, 32, 32) if transform.startswith("rotate") else noise(4, 3, 16, 16)
    return equivae.fit_latent_op(
        ConvAE(), transform, images, kernel_size, progress=False, **options
    )


@pytest.fixture(scope="module")
def turned() -> FittedTransform:
    return fit()


KINDS = [
    ("rot90", {}),
    ("hflip", {"magnitude": 3}),
    ("rot90", {"method": "network", "max_train_steps": 2, "width": 8}),
    ("scale(factor=0.5)", {}),
    ("rotate(angle=15)", {"method": "network", "max_train_steps": 2, "width": 8}),
    ("fractional_shift", {}),
]


@pytest.mark.parametrize(("transform", "options"), KINDS)
def test_saved_and_loaded_it_is_the_same(tmp_path, transform, options):
    made = fit(transform, **options)
    assert made.operator.moves_grid == ("(" in transform or transform == "fractional_shift")
    made.save(tmp_path / "op")
    assert [p.name for p in (tmp_path / "op").iterdir()] == ["latent_op.safetensors"]
    z = noise(2, 4, 8, 8)
    loaded = load_latent_op(tmp_path / "op")
    assert loaded.latent(z).equal(made.latent(z))
    assert (loaded.name, loaded.report, loaded.vae) == (made.name, made.report, made.vae)
    alone = load(tmp_path / "op" / "latent_op.safetensors")
    assert alone(z).equal(made.latent(z))
    assert (alone.name, alone.channels) == (made.name, 4)
    if made.inverse_operator is None:
        assert alone.inverse is None
    else:
        assert loaded.inverse.latent(z).equal(made.inverse.latent(z))
        assert alone.inverse(z).equal(made.inverse.latent(z))


def test_the_header_says_what_it_is_for(tmp_path, turned):
    from safetensors import safe_open

    turned.save(tmp_path)
    with safe_open(tmp_path / "latent_op.safetensors", "pt") as opened:
        header = json.loads(opened.metadata()["equivae"])
    assert header["version"] == 2
    assert header["transform"] == "rot90"
    assert (header["kind"], header["channels"], header["kernel"]) == ("conv", 4, [3, 3])
    assert (header["padding"], header["factor"]) == ("zeros", 2)
    assert "before any scaling factor" in header["scaling"]
    assert header["vae"]["kind"] == "ConvAE"
    assert header["report"]["images"] == 4


def test_applying_one_imports_torch_and_safetensors_alone(tmp_path, turned):
    turned.save(tmp_path)
    code = (
        "import sys, torch, safetensors.torch\n"
        "before = {name.partition('.')[0] for name in sys.modules}\n"
        "from equivae.operators.runtime import load\n"
        f"op = load({str(tmp_path)!r})\n"
        "assert op(torch.zeros(1, 4, 6, 8)).shape == (1, 4, 8, 6)\n"
        "new = {name.partition('.')[0] for name in sys.modules} - before - sys.stdlib_module_names\n"
        "print(*sorted(new))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    # lazy_loader, of a hundred lines, is what `import equivae` itself needs.
    assert set(done.stdout.split()) <= {"equivae", "lazy_loader"}


def test_applying_one_works_where_nothing_else_is_installed(tmp_path, turned):
    """As after `pip install --no-deps equivae` beside torch and safetensors."""
    turned.save(tmp_path)
    code = (
        "import sys, torch, safetensors.torch\n"
        "there = {name.partition('.')[0] for name in sys.modules} | set(sys.stdlib_module_names)\n"
        "class Bare:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] not in there | {'equivae'}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Bare())\n"
        "import equivae\n"
        "from equivae.operators.runtime import load\n"
        f"op = load({str(tmp_path)!r})\n"
        "assert op(torch.zeros(4, 6, 8)).shape == (4, 8, 6)\n"
        "assert op(torch.ones(1, 4, 6, 8), scaled=0.5).shape == (1, 4, 8, 6)\n"
        "try:\n"
        "    equivae.finetune\n"
        "except AttributeError as error:\n"
        "    assert 'without it; equivae.operators.runtime' in str(error), error\n"
        "print('applied')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "applied", done.stderr


# How latents are scaled -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scaling", [LatentScaling(0.5), LatentScaling(2.0, (1.0, 0, -1, 3), (1.0, 2, 3, 4))]
)
def test_scaled_latents_by_numbers(tmp_path, turned, scaling):
    turned.save(tmp_path)
    z = noise(2, 4, 6, 8)
    expected = scaling.scale(turned.latent(scaling.unscale(z)))
    back = scaling.scale(turned.inverse.latent(scaling.unscale(z)))
    alone = load(tmp_path)
    for op in (turned, load_latent_op(tmp_path)):
        assert torch.allclose(op.latent(z, scaled=scaling), expected, atol=1e-5)
        assert torch.allclose(op.latent(z[0], scaled=scaling), expected[0], atol=1e-5)
        assert torch.allclose(op.inverse.latent(z, scaled=scaling), back, atol=1e-5)
    assert torch.allclose(alone(z, scaled=scaling), expected, atol=1e-5)
    assert torch.allclose(alone(z[0], scaled=scaling), expected[0], atol=1e-5)
    if scaling == LatentScaling(0.5):
        assert turned.latent(z, scaled=0.5).equal(turned.latent(z, scaled=scaling))
    for call in (turned.latent, alone):
        with pytest.raises(equivae.InputError, match="its file does not say how"):
            call(z, scaled=True)
        with pytest.raises(equivae.InputError, match="scaled is"):
            call(z, scaled="sdxl")


def test_the_file_says_how_its_vae_scales_and_what_it_is_called(tmp_path):
    vae = equivae.zoo.load()
    vae.config._name_or_path = "user/my-vae"
    made = equivae.fit_latent_op(vae, "hflip", noise(4, 3, 16, 16), 1, progress=False)
    made.save(tmp_path)
    alone, z = load(tmp_path), noise(1, 4, 4, 4)
    factor = vae.config.scaling_factor
    assert alone.header["vae"]["name"] == "user/my-vae"
    assert made.vae.scaling.factor == pytest.approx(1.0)
    assert load_latent_op(tmp_path).vae == made.vae
    expected = made.latent(z, scaled=factor)
    for found in (made.latent(z, scaled=True), alone(z, scaled=True)):
        assert torch.allclose(found, expected, atol=1e-5)


def as_version_1(made: FittedTransform, folder: Path, **changes) -> None:
    """A folder as version 0.1 wrote it."""
    folder.mkdir(exist_ok=True)
    weights = {key: value.contiguous() for key, value in made.module.state_dict().items()}
    save_file(weights, folder / "latent_op.safetensors")
    part = made.operator.config()
    config = {key: part[key] for key in ("kind", "channels", "kernel_size", "padding")}
    content = {
        "schema": 1,
        "name": made.name,
        "transform": made.base.name,
        "operators": dict.fromkeys(made.module, config),
        "inverse": "own",
        "report": None,
        **changes,
    }
    (folder / "latent_op.json").write_text(json.dumps(content))


def test_folders_of_version_1_still_load(tmp_path):
    made = fit(border=False)
    as_version_1(made, tmp_path)
    z = noise(1, 4, 8, 8)
    loaded = load_latent_op(tmp_path)
    assert loaded.latent(z).equal(made.latent(z))
    assert loaded.inverse.latent(z).equal(made.inverse.latent(z))
    with pytest.raises(equivae.InputError, match="save it again"):
        load(tmp_path)
    loaded.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["latent_op.safetensors"]
    assert load(tmp_path)(z).equal(made.latent(z))


def test_an_operator_in_channels_last_is_saved(tmp_path):
    made = fit()
    made.module.to(memory_format=torch.channels_last)
    made.save(tmp_path)
    assert load_latent_op(tmp_path).operator.weight.equal(made.operator.weight)


def test_what_is_no_latent_op_is_refused_in_one_sentence(tmp_path, turned):
    with pytest.raises(equivae.InputError, match=r"latent_op\.safetensors is missing"):
        load_latent_op(tmp_path)
    file = turned.save(tmp_path) / "latent_op.safetensors"
    whole = file.read_bytes()
    for cut in (b"", whole[:7], whole[: len(whole) // 2], b"hello " * 10):
        file.write_bytes(cut)
        with pytest.raises(equivae.InputError, match="is cut") as caught:
            load_latent_op(tmp_path)
        assert "\n" not in str(caught.value)
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(equivae.InputError, match="no header"):
        load_latent_op(tmp_path)
    for text, word in (
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"version": 99}', "99"),
        ('{"version": 2}', "incomplete"),
        (json.dumps(turned.header() | {"operators": {"forward_operator": {}}}), "unknown kind"),
        (json.dumps(turned.header() | {"transform": 3}), "incomplete"),
        (json.dumps(turned.header() | {"inverse": "perhaps"}), "incomplete"),
    ):
        save_file({"a": torch.zeros(1)}, file, {"equivae": text})
        with pytest.raises(equivae.InputError, match=word) as caught:
            load_latent_op(tmp_path)
        assert "\n" not in str(caught.value)
    save_file({"a": torch.zeros(1)}, file, {"equivae": json.dumps(turned.header())})
    with pytest.raises(equivae.InputError, match="do not fit"):
        load_latent_op(tmp_path)


def test_an_old_folder_with_foreign_json_is_refused(tmp_path):
    made = fit(border=False)
    as_version_1(made, tmp_path, transform="elsewhere")
    with pytest.raises(equivae.InputError, match="not registered"):
        load_latent_op(tmp_path)
    rot90 = equivae.get_transform("rot90")
    assert load_latent_op(tmp_path, transform=rot90).base == rot90
    as_version_1(made, tmp_path, schema=99)
    with pytest.raises(equivae.InputError, match="schema"):
        load_latent_op(tmp_path)
    for text in ('{"schema": 1, "na', '{"schema": 1}', "\xff"):
        (tmp_path / "latent_op.json").write_text(text, encoding="latin-1")
        with pytest.raises(equivae.InputError):
            load_latent_op(tmp_path)


def test_a_move_that_the_file_cannot_describe_needs_the_library(tmp_path):
    made = FittedTransform(equivae.get_transform("shift", y=1, x=0), ConvOperator(4))
    made.save(tmp_path)
    with pytest.raises(equivae.InputError, match="load_latent_op"):
        load(tmp_path)
    assert load_latent_op(tmp_path).base.name == equivae.get_transform("shift", y=1, x=0).name


# Which VAE it was fitted to ---------------------------------------------------------------------


def test_another_vae_is_refused_when_strict_and_warned_of_otherwise(tmp_path, turned):
    turned.save(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_latent_op(tmp_path, vae=ConvAE(), strict=True)
        load_latent_op(tmp_path, vae=ConvAE().bfloat16(), strict=True)
    with pytest.raises(equivae.InputError, match="another ConvAE"):
        load_latent_op(tmp_path, vae=ConvAE(seed=1), strict=True)
    with pytest.warns(UserWarning, match="apart"):
        load_latent_op(tmp_path, vae=ConvAE(seed=1))
    with pytest.raises(equivae.InputError, match="pass it as `vae`"):
        load_latent_op(tmp_path, strict=True)


def test_the_decoder_has_no_say_in_which_vae_it_is(turned):
    vae = ConvAE()
    with torch.no_grad():
        vae.decoder.weight.mul_(2)
    turned.check_vae(vae, strict=True)


def test_weights_are_whole_when_writing_fails(tmp_path, turned, monkeypatch):
    turned.save(tmp_path)
    before = load_file(tmp_path / "latent_op.safetensors")

    def fail(*args: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("equivae.operators.writing.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        fit(kernel_size=1).save(tmp_path)
    after = load_file(tmp_path / "latent_op.safetensors")
    assert all(value.equal(before[key]) for key, value in after.items())
    assert [p.name for p in tmp_path.iterdir()] == ["latent_op.safetensors"]
