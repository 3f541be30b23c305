"""`benchmarks/public_vaes.py`, on small pipelines in the layouts of those VAEs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

import equivae
import matrix_models
import public_vaes
import tables

CLASSES = {"SD 1.5": "AutoencoderKL", "FLUX.2": "AutoencoderKLFlux2", "Wan 2.1": "AutoencoderKLWan"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, count in (("kodak", 2), ("photos", 6)):
        (folder / name).mkdir()
        for i, image in enumerate(equivae.data.dead_leaves(count, size=32, seed=count)):
            pixels = image.add(1).mul(127.5).byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_it_measures_what_it_can_have_and_goes_on(data, tmp_path, capsys):
    listed = []
    for name, kind in CLASSES.items():
        vae = matrix_models.make(kind)
        vae.save_pretrained(tmp_path / name / "vae", safe_serialization=True)
        listed.append({"name": name, "model": str(tmp_path / name)})
    listed.append({"name": "SD3", "model": str(tmp_path / "nowhere"), "gated": True})
    (tmp_path / "list.yaml").write_text(yaml.safe_dump(listed))
    output = tmp_path / "results" / "public_vaes.json"
    arguments = [
        "--list",
        str(tmp_path / "list.yaml"),
        "--data",
        str(data),
        "--output",
        str(output),
    ]
    arguments += ["--resolution", "32", "--images", "2", "--photos", "6", "--kernel_size", "1"]
    arguments += ["--transforms", "rot180,hflip"]
    assert public_vaes.main([*arguments, "--only", "SD 1.5"]) == 0
    assert public_vaes.main(arguments) == 1  # one cannot be had
    said = capsys.readouterr().out
    assert "SD 1.5: measured already" in said
    assert "SD3: " in said
    assert "accept its terms" in said
    content = json.loads(output.read_text())
    assert list(content["vaes"]) == list(CLASSES)
    for one in content["vaes"].values():
        assert one["images"] == 2
        assert list(one["transforms"]) == ["rot180", "hflip"]
        for moved in one["transforms"].values():
            assert {"psnr", "imagenet_psnr"} == set(moved["plain"]) == set(moved["fitted"])
            assert moved["reencoded_psnr"] > 0
    assert any("SD 1.5" in line for line in tables.public_vaes(content))
    with pytest.raises(SystemExit):  # other settings do not mix
        public_vaes.main([*arguments, "--images", "1"])
    assert "name another --output" in capsys.readouterr().err


def test_every_family_of_the_list_is_there_and_data_that_is_missing_is_said(tmp_path, capsys):
    path = Path(public_vaes.__file__).with_name("public_vaes.yaml")
    names = [one["name"] for one in yaml.safe_load(path.read_text())]
    assert names == ["SD 1.5", "SDXL", "SD3", "FLUX.1", "FLUX.2", "Qwen-Image", "Wan 2.1"]
    with pytest.raises(SystemExit):
        public_vaes.main(["--data", str(tmp_path)])
    assert "run python benchmarks/fetch_data.py" in capsys.readouterr().err
