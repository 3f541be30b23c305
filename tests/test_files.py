"""Nothing that was there is lost, and nothing half written stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file

import equivae
from equivae import InputError
from equivae.errors import WriteError
from equivae.files import save_vae, writing
from equivae.files.writing import (
    claim_folder,
    write_beside,
    write_files_beside,
    write_folder_beside,
)
from models import ConvAE, tiny_kl


def test_claim_a_new_or_empty_folder(tmp_path):
    assert claim_folder(tmp_path / "a" / "b").is_dir()
    assert claim_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"


def test_claim_a_folder_of_ours(tmp_path):
    (tmp_path / "logs").mkdir()
    assert claim_folder(tmp_path, ours=("logs",)) == tmp_path
    with pytest.raises(InputError, match=r"holds files already \(logs\)"):
        claim_folder(tmp_path)


def test_a_folder_of_others_is_refused_and_untouched(tmp_path):
    for name in "abcd":
        (tmp_path / name).write_text(name)
    with pytest.raises(InputError, match=r"holds files already \(a, b, c, \.\.\.\)"):
        claim_folder(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {n: n for n in "abcd"}


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="is a file"):
        claim_folder(tmp_path / "file")


def test_write_beside_replaces_in_one_step(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary):
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert path.read_text() == "old"

    write_beside(path, write)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_write_folder_beside_replaces_in_one_step(tmp_path):
    folder = tmp_path / "folder"
    for text in ("first", "second"):
        write_folder_beside(folder, lambda f, t=text: (f / t).write_text(t))
        assert [p.name for p in folder.iterdir()] == [text]
        assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_is_there_at_every_moment_while_it_is_replaced(tmp_path, monkeypatch):
    folder, seen = tmp_path / "folder", []
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    if not writing._exchanged(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this system does not exchange two names in one step")
    write_folder_beside(folder, lambda f: (f / "old").touch())

    def watched(step):
        def run(*given, **options):
            found = step(*given, **options)
            seen.append(folder.is_dir())
            return found

        return run

    monkeypatch.setattr(Path, "replace", watched(Path.replace))
    monkeypatch.setattr(shutil, "rmtree", watched(shutil.rmtree))
    write_folder_beside(folder, lambda f: (f / "new").touch())
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert seen
    assert all(seen)


def test_an_interrupt_between_two_renames_puts_the_folder_back(tmp_path, monkeypatch):
    folder, rename = tmp_path / "folder", Path.replace
    write_folder_beside(folder, lambda f: (f / "old").touch())

    def interrupted(path, target):
        if path.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(writing, "_exchanged", lambda a, b: False)
    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder_beside(folder, lambda f: (f / "new").touch())
    assert [path.name for path in folder.iterdir()] == ["old"]


def _fail(path):
    (path / "half" if path.is_dir() else path).write_text("half")
    raise OSError("disk full")


@pytest.mark.parametrize("existing", [True, False])
def test_a_failing_write_leaves_the_file_as_it_was(tmp_path, existing):
    path = tmp_path / "a.txt"
    if existing:
        path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_beside(path, _fail)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"] * existing


@pytest.mark.parametrize("existing", [True, False])
def test_a_failing_write_leaves_the_folder_as_it_was(tmp_path, existing):
    folder = tmp_path / "folder"
    if existing:
        write_folder_beside(folder, lambda f: (f / "old").write_text("old"))
    with pytest.raises(OSError, match="disk full"):
        write_folder_beside(folder, _fail)
    assert list(tmp_path.iterdir()) == [folder] * existing
    if existing:
        assert [p.name for p in folder.iterdir()] == ["old"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")]
)
def test_a_full_disk_is_one_sentence(tmp_path, error):
    def full(path):
        raise error

    save_vae(tiny_kl(), tmp_path / "vae")
    before = {p: p.read_bytes() for p in (tmp_path / "vae").iterdir()}
    for write, path in (
        (write_beside, tmp_path / "vae" / "config.json"),
        (write_folder_beside, tmp_path / "vae"),
        (write_files_beside, tmp_path / "vae"),
    ):
        with pytest.raises(
            WriteError, match=r"could not be written: .*No space left.* untouched\.$"
        ):
            write(path, full)
    assert {p: p.read_bytes() for p in (tmp_path / "vae").iterdir()} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "vae"]


def test_no_folder_can_be_made_below_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WriteError, match="could not be written: Not a directory"):
        save_vae(tiny_kl(), tmp_path / "file" / "vae")
    with pytest.raises(InputError, match="is a file; choose another name"):
        equivae.export_single_file(tiny_kl(), tmp_path / "file" / "a.safetensors")
    with pytest.raises(InputError, match="cannot be made"):
        claim_folder(tmp_path / "file" / "out")


def test_a_folder_that_cannot_be_written_into_is_refused_before_any_work(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(InputError, match="cannot be written into: Read-only file system; choose"):
        claim_folder(tmp_path)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_of_the_umask(tmp_path, mask):
    previous = os.umask(mask)
    try:
        save_vae(tiny_kl(), tmp_path / "vae")
        save_vae(ConvAE(), tmp_path / "conv")
        equivae.export_single_file(tiny_kl(), tmp_path / "vae.safetensors")
    finally:
        os.umask(previous)
    modes = {p.stat().st_mode & 0o777 for p in tmp_path.rglob("*") if p.is_file()}
    assert modes == {0o666 & ~mask}


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    path = equivae.export_single_file(tiny_kl(), tmp_path / "vae.safetensors")
    path.chmod(0o640)
    equivae.export_single_file(tiny_kl(1), path, overwrite=True)
    assert path.stat().st_mode & 0o777 == 0o640


def test_content_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, Path.replace

    def recorded_sync(descriptor):
        done.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        sync(descriptor)

    def recorded_replace(self, target):
        done.append(("rename", Path(target).name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    write_beside(tmp_path / "a.txt", lambda path: path.write_text("a"))
    assert done == [("sync", ".a.partial.txt"), ("rename", "a.txt"), ("sync", tmp_path.name)]
    done.clear()
    write_folder_beside(tmp_path / "b", lambda path: (path / "c").write_text("c"))
    names = [("sync", "c"), ("sync", ".b.partial"), ("rename", "b"), ("sync", tmp_path.name)]
    assert done == names
    done.clear()
    write_files_beside(tmp_path / "b", lambda path: (path / "d").write_text("d"))
    assert done == [("sync", "d"), ("sync", ".files.partial"), ("rename", "d"), ("sync", "b")]
    assert {p.name for p in (tmp_path / "b").iterdir()} == {"c", "d"}


def test_save_vae_keeps_what_else_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for seed in (0, 1):
        save_vae(tiny_kl(seed), tmp_path)
    weights = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert weights["encoder.conv_in.weight"].equal(tiny_kl(1).encoder.conv_in.weight)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"notes.txt", "config.json", "diffusion_pytorch_model.safetensors"}
