"""Nothing that was there is lost, and nothing half written stays."""

from __future__ import annotations

import pytest

from equivae import InputError
from equivae.files.writing import claim_folder, write_beside, write_folder_beside


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
