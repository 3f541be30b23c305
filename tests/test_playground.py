"""The playground: what its page holds, its numbers by hand, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import equivae
from equivae.cli import program
from equivae.data import dead_leaves
from equivae.reporting.frames import WAYS
from equivae.reporting.playground import PlaygroundOptions
from models import tiny_kl

SETTINGS: dict[str, Any] = {
    "angles": (0, 30, 90),
    "scales": (0.5, 1, 2),
    "exposures": (0.5,),
    "saturations": (),
    "kernel_size": 3,
    "resolution": 32,
    "max_samples": 6,
    "progress": False,
}


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return dead_leaves(1, 32, seed=5)[0]


@pytest.fixture(scope="module")
def made(picture: torch.Tensor) -> equivae.Playground:
    with warnings.catch_warnings():  # a random VAE's plain latent op may win
        warnings.simplefilter("ignore")
        return equivae.playground(tiny_kl(), picture, **SETTINGS)


@pytest.fixture(scope="module")
def page(made: equivae.Playground, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = made.save(tmp_path_factory.mktemp("playground"))
    assert sorted(one.name for one in path.parent.iterdir()) == [
        "playground.html",
        "playground.json",
    ]
    return path.read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_the_page_has_a_frame_for_every_way_at_every_position(page: str) -> None:
    sliders = {one["name"]: one for one in data_of(page)["sliders"]}
    assert {name: one["at"] for name, one in sliders.items()} == {
        "angle": [0, 30, 90],
        "scale": [0.5, 1, 2],
        "exposure": [0.5, 1],
    }
    sides = {("scale", 0.5): 16}  # what is larger is cut to its middle
    for name, slider in sliders.items():
        assert len(slider["positions"]) == len(slider["at"])
        for value, position in zip(slider["at"], slider["positions"], strict=True):
            assert list(position["frames"]) == ["reference", *WAYS]
            for way, frame in position["frames"].items():
                if frame["why"]:
                    continue
                kind, coded = frame["source"].split(";base64,")
                assert kind == "data:image/png"
                size = Image.open(io.BytesIO(base64.b64decode(coded))).size
                assert size == (sides.get((name, value), 32),) * 2
                assert bool(frame["psnr"]) == (way != "reference")


def test_an_empty_panel_says_why(page: str) -> None:
    empty = {
        (slider["name"], value): frame["why"]
        for slider in data_of(page)["sliders"]
        for value, position in zip(slider["at"], slider["positions"], strict=True)
        for frame in position["frames"].values()
        if not frame["source"]
    }
    assert set(empty) == {("angle", 30), ("scale", 0.5), ("scale", 2), ("exposure", 0.5)}
    assert empty["angle", 30] == (
        "Empty: the group c4 has rot90, rot180, rot270, and no angle of 30°."
    )


def test_the_page_needs_nothing_beside_it(page: str) -> None:
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert not re.search(r"https?://|@import|url\(", page)
    for name in ("angle", "scale", "exposure"):
        assert f'<label for="slider-{name}">' in page
        assert f'<input type="range" id="slider-{name}"' in page
    assert page.count("<figure data-way=") == 5
    assert all(alt for alt in re.findall(r'<figure data-way=.*?alt="([^"]*)"', page, re.S))


def psnr(decoded: torch.Tensor, target: torch.Tensor) -> float:
    units = [one.clamp(-1, 1).add(1).div(2) for one in (decoded, target)]
    return float(-10 * torch.log10((units[0] - units[1]).square().mean()))


@torch.no_grad()
def test_the_numbers_are_those_of_the_vae_itself(
    made: equivae.Playground, picture: torch.Tensor
) -> None:
    vae, x = tiny_kl(), picture[None]

    def encode(images: torch.Tensor) -> torch.Tensor:
        return vae.encode(images).latent_dist.mode()

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return vae.decode(latents).sample

    found = {(one.slider, one.value): one for one in made.positions}
    turned, z = x.rot90(1, (-2, -1)), encode(x)
    again = decode(encode(decode(z).clamp(-1, 1).rot90(1, (-2, -1))))
    by_hand = {
        ("angle", 90): {"plain": decode(z.rot90(1, (-2, -1))), "re-encoded": again},
        ("angle", 0): {"plain": decode(z), "fitted": decode(z)},
    }
    for place, ways in by_hand.items():
        target = turned if place[1] else x
        for way, decoded in ways.items():
            assert found[place].frames[way].psnr == pytest.approx(psnr(decoded, target), abs=1e-4)
    darker = equivae.get_transform("exposure", factor=0.5)
    assert found["exposure", 0.5].frames["plain"].psnr == pytest.approx(
        psnr(decode(z), darker.pixel(x)), abs=1e-4
    )
    exact = [found["angle", value].frames["symmetrized"].psnr for value in (0, 90)]
    assert exact[0] == pytest.approx(exact[1], abs=1e-3)


def test_a_fitted_frame_is_what_a_fit_alone_decodes_to(
    made: equivae.Playground, picture: torch.Tensor
) -> None:
    images, x = dead_leaves(6, 64, seed=1_000), picture[None]
    options: dict[str, Any] = {"kernel_size": 3, "border": False, "inverse": False}
    op = equivae.fit_latent_op(tiny_kl(), "scale(factor=0.5)", images, progress=False, **options)
    vae = equivae.Autoencoder(tiny_kl())
    with torch.no_grad():
        decoded = vae.decode(op.latent(vae.encode(x)))
    mask = op.at_factor(2).mask(x)
    assert mask is not None
    (shown,) = [one for one in made.positions if (one.slider, one.value) == ("scale", 0.5)]
    assert shown.frames["fitted"].psnr == pytest.approx(
        psnr(decoded[..., mask], op.pixel(x)[..., mask]), abs=1e-3
    )


def test_numbers_as_json_and_no_page_is_overwritten(
    made: equivae.Playground, tmp_path: Path
) -> None:
    page = made.save(tmp_path)
    rows = json.loads((tmp_path / "playground.json").read_text())["positions"]
    assert len(rows) == len(made.positions) == 8
    assert rows[0] == {
        "slider": "angle",
        "value": 0,
        "transform": "identity",
        "psnr": {way: frame.psnr for way, frame in made.positions[0].frames.items()},
    }
    before = page.read_bytes()
    with pytest.raises(equivae.InputError, match="holds a report already"):
        made.save(tmp_path)
    assert page.read_bytes() == before


REFUSED = {
    "--angles 0,x": "--angles must be numbers with commas between them, or 'none', got '0,x'.",
    "--angles 720": "--angles must be numbers from -359 to 359, got 720.0.",
    "--scales 0": "--scales must be numbers from 0.25 to 4, got 0.0.",
    "--exposures nan": "--exposures must be numbers from 0.1 to 4, got nan.",
    "--saturations 2,2": "--saturations names a number twice; name each once.",
    "--angles none --scales none --exposures 1 --saturations none": "no slider has a setting that",
    "--image nowhere.png": "--image nowhere.png does not exist; pass the file of a picture.",
    "--image .": "--image . is no file; pass the file of a picture.",
    "--image FILE": "",
    "--resolution 250": "--resolution 250 does not divide by the VAE's factor 4; use 248",
    "--group c3": "unknown group 'c3'.",
    "--kernel_size 4": "--kernel_size must be an odd number",
    "--train_data_dir nowhere": "--train_data_dir nowhere does not exist",
    "--output_dir full": "output folder full holds files already",
}


@pytest.mark.parametrize("words", REFUSED)
def test_bad_input_is_one_sentence_and_exit_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    Path("FILE").write_text("no picture")
    Path("full").mkdir()
    Path("full", "mine").touch()
    given = words.split() if "output_dir" in words else ["--output_dir", "out", *words.split()]
    monkeypatch.setattr("sys.argv", ["equivae", "playground", *given])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: {REFUSED[words]}")
    assert len(said.splitlines()) == 1
    assert not Path("out").exists()


def test_a_vae_of_another_kind_is_refused() -> None:
    with pytest.raises(equivae.InputError, match="the playground shows colour photographs"):
        equivae.playground(tiny_kl(in_channels=1, out_channels=1), resolution=32)


def test_the_command_line_has_the_defaults_of_python() -> None:
    import inspect

    from equivae.cli.inputs import numbers_of
    from equivae.cli.playground import playground

    typed, python = (inspect.signature(one).parameters for one in (playground, equivae.playground))
    for name in ("angles", "scales", "exposures", "saturations"):
        assert numbers_of(name, typed[name].default) == python[name].default
    for name in ("group", "kernel_size", "resolution", "max_samples", "eval_batch_size", "seed"):
        assert str(typed[name].default) == str(python[name].default)
    assert PlaygroundOptions().settings["angle"] == list(range(0, 360, 15))


def test_the_command_says_where_the_page_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    words = "--angles none --scales none --saturations none --exposures 0.5 --group hflip"
    sizes = "--resolution 16 --max_samples 4 --kernel_size 1"
    monkeypatch.setattr("sys.argv", ["equivae", "playground", *words.split(), *sizes.split()])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert not ended.value.code
    assert "Open equivae-playground/playground.html in a browser" in capsys.readouterr().out
    assert "VAE embedded" in Path("equivae-playground", "playground.html").read_text()
