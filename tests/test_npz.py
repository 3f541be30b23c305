"""`.npz` files by their own offsets, and the convolution that moves several rows at once."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivae.caches.npz import Npz
from equivae.errors import InputError
from equivae.operators import ConvOperator
from equivae.operators.tiling import TiledConv

ARRAYS = {
    "latents": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.ones((3, 1), np.float16),
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "sizes": np.array([1024, 768]),
    "nothing": np.zeros((0, 4), np.float32),
}


def save(path: Path, compress: bool = False) -> Path:
    (np.savez_compressed if compress else np.savez)(path, **ARRAYS)
    return path


def write(file: Npz, added: dict[str, np.ndarray], comment: bytes = b"") -> None:
    with file.path.open("wb") as opened:
        opened.writelines(file.adding(added, comment))


@pytest.mark.parametrize("compress", [False, True])
def test_it_reads_what_numpy_saves(compress: bool, tmp_path: Path) -> None:
    file = Npz.read(save(tmp_path / "a.npz", compress))
    assert set(file.members) == {f"{name}.npy" for name in ARRAYS}
    for name, array in ARRAYS.items():
        found = file.array(f"{name}.npy")
        assert found.dtype == array.dtype
        assert (found == array).all()


@pytest.mark.parametrize("compress", [False, True])
def test_numpy_and_zipfile_read_what_it_adds(compress: bool, tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", compress)
    before = path.read_bytes()
    more = {"more.npy": np.arange(5, dtype=np.float16), "more_2.npy": np.ones((2, 2, 2))}
    write(Npz.read(path), more, b'{"equivae": {"more.npy": "x"}}')
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment == b'{"equivae": {"more.npy": "x"}}'
        # Every byte in front of the directory is where it was.
        end = archive.infolist()[len(ARRAYS)].header_offset
    assert path.read_bytes()[:end] == before[:end]
    with np.load(path) as found:
        for name, array in (ARRAYS | {n.removesuffix(".npy"): a for n, a in more.items()}).items():
            assert (found[name] == array).all()
    again = Npz.look(path)
    assert again.note("equivae") == {"more.npy": "x"}
    assert again.note("else") == {}
    fewer = Npz.read(path).without(["more.npy"])
    assert set(fewer.members) == set(again.members) - {"more.npy"}
    assert (fewer.array("latents.npy") == ARRAYS["latents"]).all()


def test_zipfile_can_add_to_it_too(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz")
    write(Npz.read(path), {"more.npy": np.arange(5)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("note.txt", "hello")
    assert (Npz.read(path).array("more.npy") == np.arange(5)).all()


def test_a_directory_longer_than_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "many.npz"
    np.savez(path, **{f"a_long_name_of_an_array_{i}": np.array([i]) for i in range(100)})
    file = Npz.look(path)
    assert len(file.members) == 100


def read_or_refused(content: bytearray) -> dict[str, np.ndarray]:
    try:
        file = Npz(Path("a.npz"), content)
        return {n: file.array(f"{n}.npy") for n in ARRAYS if f"{n}.npy" in file.members}
    except InputError:
        return {}


@given(st.data())
def test_damage_is_said_and_never_read(data: st.DataObject) -> None:
    """One byte changed, or the end cut off: what is read is what was saved, or nothing is."""
    stream = io.BytesIO()
    np.savez(stream, **ARRAYS)
    content = bytearray(stream.getvalue())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        content = content[:at]
    for name, array in read_or_refused(content).items():
        assert (array == ARRAYS[name]).all()


def test_objects_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, latents=np.array([{}, []], dtype=object))
    with pytest.raises(InputError, match="would run code"):
        Npz.read(path).array("latents.npy")


@given(
    channels=st.sampled_from([1, 3, 4, 16]),
    size=st.tuples(st.integers(4, 11), st.integers(4, 9)),
    kernel=st.sampled_from([1, 3, 5, (5, 3)]),
    padding=st.sampled_from(["zeros", "replicate", "reflect"]),
    border=st.booleans(),
    magnitude=st.sampled_from([0, 3]),
)
def test_several_rows_at_once_are_the_same_convolution(
    channels, size, kernel, padding, border, magnitude
) -> None:
    generator = torch.Generator().manual_seed(0)
    border = border and padding == "zeros"
    operator = ConvOperator(channels, kernel, padding, border=border, magnitude=magnitude)
    for parameter in operator.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    tiled = TiledConv(operator)
    for _ in range(2):  # what is kept of a size is used again
        cells = torch.randn(2, channels, *size, generator=generator)
        with torch.no_grad():
            assert torch.allclose(tiled(cells), operator(cells), atol=2e-4)
