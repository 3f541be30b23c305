"""`.npz` files by their own offsets: numpy's go through `zipfile`, which costs several times the copy.

Members are found in the zip's directory, read where they lie, and added behind the last one, so that every
byte of those that are there stays. Layout: PKWARE's APPNOTE, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from equivae.errors import InputError, first_line

__all__ = ["Npz"]

_END, _ENTRY, _LOCAL = "<4s4H2LH", "<4s6H3L5H2L", "<4s5H3L2H"
_END_MARK, _ENTRY_MARK, _LOCAL_MARK = b"PK\5\6", b"PK\1\2", b"PK\3\4"
_END_SIZE, _ENTRY_SIZE, _LOCAL_SIZE = map(struct.calcsize, (_END, _ENTRY, _LOCAL))
_TAIL = 4096  # bytes in which the directory of such a file lies; else all of it is read
_STORED, _DEFLATED = 0, 8
_ZIP64 = 0xFFFFFFFF
_VERSION, _UNIX, _OWNER_ONLY = 20, 3 << 8, 0o600 << 16
_NO_DATE = (0, 0x21)  # 1980-01-01, as numpy has it
_NO_LIST: Mapping[str, str] = {}


@dataclass(frozen=True)
class _Member:
    method: int
    crc: int
    size: int
    offset: int


class Npz:
    """An `.npz` file in memory, or the directory of one.

    Attributes:
        path: of the file.
        members: their names, `"latents.npy"` and others.
        comment: of the zip.
    """

    def __init__(self, path: Path, content: bytearray, start: int = 0) -> None:
        self.path, self._content, self._start = path, content, start
        self.comment = b""
        self._directory = memoryview(b"")
        self._end = 0
        self.members: dict[str, _Member] = {}
        try:
            self._parse()
        except (struct.error, ValueError, UnicodeDecodeError) as error:
            raise _not_whole(path, error) from error

    @classmethod
    def read(cls, path: Path) -> Npz:
        """All of a file. `InputError` for what is none, or is not whole."""
        return cls(path, _read(path, 0)[0])

    @classmethod
    def look(cls, path: Path) -> Npz:
        """The directory alone: names and comment, not the arrays."""
        content, start = _read(path, _TAIL)
        try:
            return cls(path, content, start)
        except InputError:
            return cls.read(path)

    def _parse(self) -> None:
        content = self._content
        at = content.rfind(_END_MARK)
        if at < 0:
            raise ValueError("its end is missing")
        *_, count, size, offset, length = struct.unpack_from(_END, content, at)
        if at + _END_SIZE + length != len(content) or offset == _ZIP64:
            raise ValueError("its end is damaged")
        self.comment = bytes(content[at + _END_SIZE :])
        self._end, place = offset, offset - self._start
        if place < 0 or place + size > at:
            raise ValueError("its directory is missing")
        self._directory = memoryview(content)[place : place + size]
        for _ in range(count):
            mark, *_, method, _, _, crc, packed, _, name, extra, note, _, _, _, where = (
                struct.unpack_from(_ENTRY, content, place)
            )
            if mark != _ENTRY_MARK or _ZIP64 in (packed, where):
                raise ValueError("its directory is damaged")
            begin = place + _ENTRY_SIZE
            known = content[begin : begin + name].decode("utf-8")
            self.members[known] = _Member(method, crc, packed, where)
            place = begin + name + extra + note

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """One of its arrays; it shares the file's memory. `InputError` where the file is damaged."""
        data = self._data(name)
        try:
            start, shape, fortran, dtype = _header(bytes(data[: _header_size(data)]))
            array = np.frombuffer(data, dtype, int(np.prod(shape, dtype=np.int64)), start)
        except (ValueError, struct.error, SyntaxError) as error:
            raise self._damaged(error) from error
        return array.reshape(shape, order="F" if fortran else "C")

    def _data(self, name: str) -> memoryview:
        member = self.members[name]
        try:
            mark, *_, named, extra = struct.unpack_from(_LOCAL, self._content, member.offset)
            begin = member.offset + _LOCAL_SIZE + named + extra
            data = memoryview(self._content)[begin : begin + member.size]
            if mark != _LOCAL_MARK or member.method not in (_STORED, _DEFLATED):
                raise ValueError(f"{name} is not stored as numpy does")
            if member.method == _DEFLATED:
                data = memoryview(bytearray(zlib.decompress(data, -zlib.MAX_WBITS)))
            if zlib.crc32(data) != member.crc:
                raise ValueError(f"the checksum of {name} is another")
        except (struct.error, ValueError, zlib.error) as error:
            raise self._damaged(error) from error
        return data

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"{self.path} is damaged ({first_line(error)}); let sd-scripts cache it again."
        )

    def without(self, names: Iterable[str]) -> Npz:
        """The file without some of its members."""
        gone, file = set(names), io.BytesIO()
        try:
            with (
                zipfile.ZipFile(io.BytesIO(self._content)) as archive,
                zipfile.ZipFile(file, "w") as copy,
            ):
                for item in archive.infolist():
                    if item.filename not in gone:
                        copy.writestr(item, archive.read(item))
                copy.comment = archive.comment
        except zipfile.BadZipFile as error:
            raise self._damaged(error) from error
        return Npz(self.path, bytearray(file.getbuffer()))

    def adding(self, arrays: Mapping[str, np.ndarray[Any, Any]], comment: bytes) -> list[Any]:
        """The bytes, in parts, of this file with more members (contiguous arrays) and another comment."""
        parts: list[Any] = [memoryview(self._content)[: self._end]]
        entries = [self._directory]
        place = self._end
        for name, array in arrays.items():
            header, named = _npy_header(array.shape, array.dtype.str), name.encode()
            crc = zlib.crc32(array.data, zlib.crc32(header))
            size = len(header) + array.nbytes
            common = (0, _STORED, *_NO_DATE, crc, size, size, len(named), 0)
            local = struct.pack(_LOCAL, _LOCAL_MARK, _VERSION, *common) + named + header
            parts += [local, array.data]
            versions = (_ENTRY_MARK, _VERSION | _UNIX, _VERSION)
            entry = struct.pack(_ENTRY, *versions, *common, 0, 0, 0, _OWNER_ONLY, place)
            entries.append(memoryview(entry + named))
            place += len(local) + array.nbytes
        size, count = sum(map(len, entries)), len(self.members) + len(arrays)
        end = struct.pack(_END, _END_MARK, 0, 0, count, count, size, place, len(comment))
        return [*parts, *entries, end, comment]

    def note(self, mark: str) -> Mapping[str, str]:
        """What `adding` was given as the comment `{mark: {...}}`; empty for another comment."""
        if not self.comment:
            return _NO_LIST
        try:
            noted = json.loads(self.comment).get(mark, {})
            return {str(name): str(by) for name, by in noted.items()}
        except (ValueError, AttributeError):
            return _NO_LIST


def _read(path: Path, most: int) -> tuple[bytearray, int]:
    """The last `most` bytes of a file, or all of it for 0; and where they start."""
    try:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            start = max(0, size - most) if most else 0
            file.seek(start)
            content = bytearray(size - start)
            got = file.readinto(content)
            while got < len(content):
                more = file.readinto(memoryview(content)[got:])
                if not more:
                    raise OSError("it became shorter while it was read")
                got += more
    except OSError as error:
        raise _not_whole(path, error) from error
    return content, start


def _not_whole(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is not a whole .npz file ({first_line(error)}): it is damaged, or being written; remove it "
        "or wait for the tool that writes it."
    )


def _header_size(data: memoryview) -> int:
    """Of an `.npy` file: the magic, a version, and how long the text is."""
    if bytes(data[:6]) != b"\x93NUMPY":
        raise ValueError("an array is not numpy's")
    kind = "<H" if data[6] == 1 else "<I"
    return 8 + struct.calcsize(kind) + int(struct.unpack_from(kind, data, 8)[0])


@lru_cache(maxsize=256)
def _header(content: bytes) -> tuple[int, tuple[int, ...], bool, np.dtype[Any]]:
    """Where the values start, the shape, whether the first axis runs fastest, and the type."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in reader:
        raise ValueError(f"version {version} of numpy's format is not known")
    shape, fortran, dtype = reader[version](file)  # type: ignore[no-untyped-call]
    if dtype.hasobject:
        raise ValueError("it holds objects, which are not read because that would run code")
    return file.tell(), shape, fortran, dtype


@lru_cache(maxsize=256)
def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    file = io.BytesIO()
    described = {"shape": shape, "fortran_order": False, "descr": dtype}
    np.lib.format.write_array_header_1_0(file, described)  # type: ignore[no-untyped-call]
    return file.getvalue()
