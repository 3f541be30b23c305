"""Files of tensors: safetensors, and `.pt` files without code in them; every fault in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from equivae.errors import InputError, first_line

__all__ = ["SafeFile", "batch_of", "read_pt"]


class SafeFile:
    """A safetensors file: what it holds is read when it is asked for.

    Attributes:
        shapes: of its tensors, by name.
        metadata: as it is in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            self.metadata: dict[str, str] = dict(file.metadata() or {})

    def tensors(self) -> dict[str, Tensor]:
        """All of them."""
        with self._open() as file:
            return {name: file.get_tensor(name) for name in self.shapes}

    def part(self, name: str, start: int, stop: int) -> Tensor:
        """Some rows of one."""
        with self._open() as file:
            rows: Tensor = file.get_slice(name)[start:stop]
            return rows

    @staticmethod
    def save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None) -> None:
        """Write a file; `OSError` when the system refuses."""
        try:
            save_file({n: t.contiguous() for n, t in tensors.items()}, path, metadata)
        except SafetensorError as error:
            number = _errno(str(error))
            if number is None:
                raise
            raise OSError(number, str(error)) from error

    def _open(self) -> Any:
        try:
            return safe_open(self.path, "pt")
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{self.path} is not a whole safetensors file ({first_line(error)}): it is damaged, or being "
                "written; "
                "remove it or wait for the tool that writes it."
            ) from error


def _errno(message: str) -> int | None:
    """The number in `No space left on device (os error 28)`, as safetensors tells it."""
    _, found, rest = message.partition("os error ")
    digits = rest.split(")")[0]
    return int(digits) if found and digits.isdigit() else None


def read_pt(path: Path) -> Any:
    """What a `.pt` file holds, read without running code in it."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a file of tensors ({first_line(error)}): it is damaged, being "
            "written, or "
            "holds objects, which are not read because that would run code."
        ) from error


def batch_of(latents: Tensor, channels: int | None) -> tuple[Tensor, bool]:
    """Latents as a batch `(B, c, *grid)`, and whether they were one without a batch.

    Four axes are `(B, c, h, w)` or one video `(c, t, h, w)`: the op's channels tell; otherwise a batch.
    """
    single = latents.ndim == 3 or (
        latents.ndim == 4 and latents.shape[0] == channels and latents.shape[1] != channels
    )
    return (latents[None] if single else latents), single
