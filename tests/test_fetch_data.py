"""`benchmarks/fetch_data.py`, against file addresses: what is fetched, kept, refused, and said."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import fetch_data
import record
from taef2 import TAEF2, load_taef2


def known(files: dict[str, bytes]) -> dict[str, dict[str, object]]:
    return {
        name: {"size": len(content), "sha256": fetch_data.digest(content)}
        for name, content in files.items()
    }


def picture(value: int) -> bytes:
    kept = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(kept, "PNG")
    return kept.getvalue()


def test_images_are_fetched_once_and_half_a_file_is_left_out(tmp_path, monkeypatch):
    files = {"kodim01.png": picture(1), "kodim02.png": picture(2)}
    source = tmp_path / "source"
    source.mkdir()
    for name, content in files.items():
        (source / name).write_bytes(content)
    monkeypatch.setitem(fetch_data.KNOWN, "kodak", known(files))
    address, folder = source.as_uri() + "/", tmp_path / "data" / "kodak"
    (source / "kodim02.png").write_bytes(picture(2)[:-30])
    whole, said = fetch_data.images("kodak", folder, address)
    assert not whole
    assert "1 of 2 images" in said
    assert "kodim02.png" in said
    (source / "kodim02.png").write_bytes(picture(3))
    whole, said = fetch_data.images("kodak", folder, address)
    assert whole
    assert "1 differ from those measured on, kodim02.png first" in said
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    nowhere = (tmp_path / "nowhere").as_uri() + "/"
    assert fetch_data.images("kodak", folder, nowhere) == (True, said)  # nothing is asked for


def test_photographs_come_out_of_the_archive_without_its_test_split(tmp_path, monkeypatch):
    archive = tmp_path / "bsds.tgz"
    names = ("train/1.jpg", "val/2.jpg", "test/3.jpg", "train/Thumbs.db", "../train/4.jpg")
    with tarfile.open(archive, "w:gz") as written:
        for value, name in enumerate(names, 1):
            entry = tarfile.TarInfo(f"BSR/BSDS500/data/images/{name}")
            entry.size = len(picture(value))
            written.addfile(entry, io.BytesIO(picture(value)))
    files = {"1.jpg": picture(1), "2.jpg": picture(2)}
    monkeypatch.setitem(fetch_data.KNOWN, "photos", known(files))
    folder = tmp_path / "photos"
    whole, said = fetch_data.images("photos", folder, archive.as_uri())
    assert whole
    assert "all 2 images" in said
    assert "differ" not in said
    assert sorted(path.name for path in folder.iterdir()) == ["1.jpg", "2.jpg"]


def test_the_hubs_weights_become_the_two_halves(tmp_path):
    torch.manual_seed(0)
    model = TAEF2().eval()
    both = {}
    for half, first in (("encoder", 0), ("decoder", 1)):
        for name, values in getattr(model, half).state_dict().items():
            index, rest = name.split(".", 1)
            both[f"{half}.layers.{int(index) - first}.{rest}"] = values.contiguous()
    save_file(both, tmp_path / "taef2.safetensors")
    folder = tmp_path / "taef2"
    whole, said = fetch_data.taef2(folder, (tmp_path / "taef2.safetensors").as_uri())
    assert whole
    assert "other weights than those measured" in said
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(load_taef2(folder).encode(images), model.encode(images))


def test_the_checksums_are_those_of_the_data(shared_data: Path):
    for name in ("kodak", "photos"):
        paths = sorted((shared_data / name).glob("*.*g"))
        assert [path.name for path in paths] == sorted(fetch_data.KNOWN[name])
        assert fetch_data.right(paths[0].read_bytes(), fetch_data.KNOWN[name][paths[0].name])
    weights = load_file(shared_data / "taef2" / "encoder.safetensors")
    digest = fetch_data.weights_digest(weights)
    assert digest == fetch_data.KNOWN["taef2"]["encoder.safetensors"]["weights"]


def test_without_a_network_one_sentence_says_how_to_go_on(tmp_path, capsys):
    nowhere = (tmp_path / "nowhere").as_uri() + "/"
    arguments = ["--data", str(tmp_path), "--only", "kodak", "--kodak_address", nowhere]
    assert fetch_data.main(arguments) == 1
    said = capsys.readouterr().out
    assert "could not be read" in said
    assert "--kodak_address" in said
    with pytest.raises(SystemExit):
        fetch_data.main(["--only", "nonsense"])


def test_a_command_is_recorded_without_where_its_data_lay(monkeypatch):
    arguments = ["/x/benchmarks/seams.py", "--images", "6", "--data", "/a/b", "--photos", "4"]
    monkeypatch.setattr("sys.argv", arguments)
    assert record.command() == "python benchmarks/seams.py --images 6 --photos 4"
