"""Folders of pictures: what is read, what is left out and named, and what is checked at the start."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import equivae
from equivae import InputError
from equivae.data import folder as folders
from equivae.data import formats, load_images
from equivae.data.scan import scan_folder


def put(root: Path, *names: str) -> None:
    """Small pictures, each with a colour of its own."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (i * 20 % 256, 100, 200)
        Image.new("RGB", (8, 8), colour).save(path, "PNG" if "." not in path.name else None)


# What is read -------------------------------------------------------------------------------------


def test_hidden_files_and_folders_are_left_out_and_named(tmp_path, caplog):
    put(
        tmp_path, "a.png", ".b.png", ".cache/c.png", "sub/.d/e.png", "__MACOSX/f.png", "sub/__g.png"
    )
    images = load_images(tmp_path)
    assert images.names == ["a.png", "sub/__g.png"]
    assert set(images.left_out["hidden"]) == {".b.png", ".cache/", "sub/.d/", "__MACOSX/"}
    assert "left out 4 hidden (" in caplog.text


def test_a_hidden_root_is_read(tmp_path):
    put(tmp_path / ".data", "a.png")
    assert load_images(tmp_path / ".data").names == ["a.png"]


def test_what_equivae_wrote_is_left_out(tmp_path):
    put(tmp_path, "a.png", "loss.png", "run/checkpoint-5/x.png")
    for folder in (tmp_path / "out", tmp_path / "photos"):
        put(folder, "panels_rot180.png", "sweep_rotate.png", "spectrum.png")
        for name in ("report.json", "report.md", "report.html"):
            (folder / name).write_text("{}")
    put(tmp_path / "photos", "b.png")
    (tmp_path / "run" / "checkpoint-5" / "run.json").write_text("{}")
    images = load_images(tmp_path)
    assert images.names == ["a.png", "loss.png"]
    assert sorted(images.left_out["written by equivae"]) == ["out/", "photos/", "run/"]
    beside = load_images(tmp_path / "photos")
    assert beside.names == ["b.png"]
    ours = ["panels_rot180.png", "spectrum.png", "sweep_rotate.png"]
    assert beside.left_out["written by equivae"] == ours


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    put(tmp_path / "far", "x.png", "y.png")
    put(tmp_path / "data", "a.png", "sub/b.png")
    data = tmp_path / "data"
    (data / "linked").symlink_to(tmp_path / "far")
    (data / "again").symlink_to(data / "sub")
    (data / "sub" / "loop").symlink_to(data)
    (data / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (data / "c.png").symlink_to(tmp_path / "far" / "x.png")
    images = load_images(data)
    assert images.names == ["a.png", "c.png", "linked/x.png", "linked/y.png", "sub/b.png"]
    assert images.left_out["links to nothing"] == ["gone.png"]
    again = images.left_out["links to a folder that is read already"]
    assert again == ["again/", "sub/loop/"]


def test_pictures_without_suffix_are_read_and_other_files_counted(tmp_path, caplog):
    put(tmp_path, "a.png", "0a1b2c")
    (tmp_path / "LICENSE").write_text("words")
    (tmp_path / "a.txt").write_text("a caption")
    with caplog.at_level(logging.INFO):
        images = load_images(tmp_path)
    assert images.names == ["0a1b2c", "a.png"]
    assert "2 other files (1 without suffix, 1 .txt)" in caplog.text


def test_names_that_no_output_takes(tmp_path):
    root = os.fsencode(tmp_path)
    good = tmp_path / "a.png"
    put(tmp_path, "a.png")
    for name in (b"\xff\xfe.png", b"line\nbreak.png", "grün.png".encode()):
        os.link(good, root + b"/" + name)
    images = load_images(tmp_path)
    assert images.names == ["a.png", "grün.png", r"line\nbreak.png", r"\xff\xfe.png"]
    assert all(images[i].equal(images[0]) for i in range(4))
    for name in images.names:
        assert name.encode("utf-8").decode() == name
    assert len(images.fingerprint()) == 16


def test_a_folder_whose_name_is_not_utf8_reaches_the_report(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    put(folder, "a.png", "b.png")
    found = equivae.evaluate(equivae.zoo.load(), folder, sweep_samples=0, progress=False)
    assert found.settings["images"].endswith(r"\xff")


# Splits, masks and lists --------------------------------------------------------------------------


def test_split_folders(tmp_path, caplog):
    put(tmp_path, "train/a.png", "train/cats/b.png", "val/c.png", "Test-1/d.png", "loose.png")
    assert load_images(tmp_path).names == ["train/a.png", "train/cats/b.png"]
    assert "1 in folders for test (read with split='test') (Test-1/d.png)" in caplog.text
    assert load_images(tmp_path, split="validation").names == ["val/c.png"]
    assert load_images(tmp_path, split="val").names == ["val/c.png"]
    assert load_images(tmp_path, split="test").names == ["Test-1/d.png"]
    assert len(load_images(tmp_path, split="all")) == 5


def test_without_a_training_folder_the_rest_is_for_training(tmp_path):
    put(tmp_path, "a.png", "photos/b.png", "test/c.png")
    assert load_images(tmp_path).names == ["a.png", "photos/b.png"]
    put(tmp_path / "other", "test/c.png")
    with pytest.raises(InputError, match=r"no picture for split 'train', only for 'test'"):
        load_images(tmp_path / "other")


@pytest.mark.parametrize("name", ["latest", "contest", "trained", "values", "devices", "retrain"])
def test_words_that_only_contain_the_name_of_a_split(tmp_path, name):
    put(tmp_path, f"{name}/a.png", "b.png")
    assert len(load_images(tmp_path)) == 2


def test_a_split_that_a_folder_has_not(tmp_path):
    put(tmp_path, "a.png")
    for split in ("test", "foo"):
        with pytest.raises(InputError, match=f"no folder for the split '{split}'"):
            load_images(tmp_path, split=split)


def test_masks_are_left_out_and_a_class_of_that_name_is_not(tmp_path):
    put(tmp_path / "one", "images/a.png", "images/b.png", "masks/a.png", "masks/b_mask.png")
    images = load_images(tmp_path / "one")
    assert images.names == ["images/a.png", "images/b.png"]
    assert images.left_out == {"in folders of masks": ["masks/a.png", "masks/b_mask.png"]}
    put(tmp_path / "two", "mask/a.png", "no_mask/b.png")
    assert len(load_images(tmp_path / "two")) == 2


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_metadata_file_says_what_the_images_are(tmp_path, kind):
    put(tmp_path, "a.png", "sub/b.png", "edges/a.png")
    rows = [{"file_name": name, "text": "words"} for name in ("a.png", "sub/b.png", "c.png")]
    path = tmp_path / f"metadata.{kind}"
    if kind == "csv":
        path.write_text("file_name,text\n" + "".join(f"{r['file_name']},words\n" for r in rows))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    images = load_images(tmp_path)
    assert images.names == ["a.png", "sub/b.png"]
    assert images.skipped == [("c.png", "listed in the metadata, not there")]
    assert images.left_out == {f"not listed in metadata.{kind}": ["edges/a.png"]}


def test_metadata_that_cannot_be_read_is_named(tmp_path):
    put(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_text("{'file_name'")
    with pytest.raises(InputError, match=r"metadata\.jsonl cannot be read as a list of pictures"):
        load_images(tmp_path)


# Formats of plugins -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "module", "package"),
    [(".heic", "pillow_heif", "pillow-heif"), (".jxl", "pillow_jxl", "pillow-jxl-plugin")],
)
class TestPlugins:
    def test_with_it(self, tmp_path, suffix, module, package):
        pytest.importorskip(module, reason=f"needs {package}")
        formats.find_plugins()
        rows = np.linspace(0, 255, 64, dtype=np.uint8)
        Image.fromarray(np.tile(rows, (64, 1))).convert("RGB").save(tmp_path / f"a{suffix.upper()}")
        images = load_images(tmp_path)
        assert images.names == [f"a{suffix.upper()}"]
        assert abs(float(images[0][0, 0, 0]) + 1) < 0.1
        assert abs(float(images[0][0, 0, -1]) - 1) < 0.1

    def test_without_it(self, tmp_path, monkeypatch, suffix, module, package):
        monkeypatch.setitem(sys.modules, module, None)
        for known in [s for s in Image.EXTENSION if s in formats._PLUGINS]:
            monkeypatch.delitem(Image.EXTENSION, known)
        monkeypatch.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k != "JXL"})
        formats.find_plugins.cache_clear()
        put(tmp_path, "b.png")
        (tmp_path / f"a{suffix}").write_bytes(b"\0\0\0\0ftypnone")
        images = load_images(tmp_path)
        formats.find_plugins.cache_clear()
        kind = suffix[1:].upper()
        expected = f"{kind} is read by {package}; install it with 'pip install {package}'"
        assert images.skipped == [(f"a{suffix}", expected)]


# The check at the start ---------------------------------------------------------------------------


@pytest.fixture
def half_broken(tmp_path: Path) -> Path:
    put(tmp_path, *(f"{i}.png" for i in range(6)))
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) - 30])
    (tmp_path / "4.png").write_bytes(b"")
    return tmp_path


def test_small_folders_are_decoded_and_large_ones_looked_at(half_broken, monkeypatch):
    assert [name for name, _ in load_images(half_broken).skipped] == ["3.png", "4.png"]
    monkeypatch.setattr(folders, "SMALL", 3)
    images = load_images(half_broken)
    assert [name for name, _ in images.skipped] == ["4.png"]
    assert images.names == ["0.png", "1.png", "2.png", "3.png", "5.png"]
    assert images[3].equal(images[4])  # what the header hid is replaced when it is read
    assert [name for name, _ in images.replaced] == ["3.png"]
    whole = load_images(half_broken, verify=True)
    assert [name for name, _ in whole.skipped] == ["3.png", "4.png"]
    assert load_images(half_broken, verify=False).skipped == []


def test_a_verdict_is_found_once(half_broken, monkeypatch):
    first = load_images(half_broken)
    decoded = []
    monkeypatch.setattr(folders.FolderSource, "read", lambda self, i: decoded.append(i))
    assert load_images(half_broken).skipped == first.skipped
    assert decoded == []
    os.utime(half_broken / "0.png", (1, 1))
    load_images(half_broken)
    assert decoded == [0]


def test_only_what_is_needed_is_checked(half_broken):
    images = load_images(half_broken, max_samples=2)
    assert images.names == ["0.png", "1.png"]
    assert images.skipped == []
    images = load_images(half_broken, max_samples=4)
    assert images.names == ["0.png", "1.png", "2.png", "5.png"]
    assert len(images.skipped) == 2


def test_what_is_read_decides_what_is_readable(tmp_path):
    put(tmp_path, "a.png")
    Image.new("LAB", (8, 8)).save(tmp_path / "b.tiff")
    assert load_images(tmp_path).skipped == [
        ("b.tiff", "it is in CIELAB (mode LAB); convert it to RGB")
    ]


def test_pictures_that_pillow_only_writes_are_none(tmp_path):
    put(tmp_path, "a.png", "b.pdf")
    assert [found.path for found in scan_folder(tmp_path, "train").pictures] == ["a.png"]
