"""Fetch what the benchmarks measure on: 24 Kodak images, 300 photographs, and the small autoencoder TAEF2.

    python benchmarks/fetch_data.py                     # into benchmarks/data, 100 MB of downloads
    python benchmarks/fetch_data.py --only kodak,taef2

- kodak: the Kodak PhotoCD images, released for unrestricted use, from r0k.us;
- photos: train and val of BSDS500 (Berkeley), for research; nothing that ships is trained on them;
- taef2: madebyollin/taef2 on the Hugging Face hub (MIT licence), written as the two halves that
  `taef2.py` reads.

What is there already is kept, and what is no image is left out. `data_files.json` has sizes and checksums of
the files that the published numbers were measured on; files that differ are named.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

HERE = Path(__file__).parent
DATA = HERE / "data"
KNOWN: dict[str, dict[str, Any]] = json.loads((HERE / "data_files.json").read_text())
ADDRESSES = {
    "kodak": "https://r0k.us/graphics/kodak/kodak/",
    "photos": (
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz"
    ),
    "taef2": "https://huggingface.co/madebyollin/taef2/resolve/main/taef2.safetensors",
}
SPLITS = ("train", "val")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Of names, shapes and values, so that a file's header and precision do not matter."""
    found = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].half().contiguous()
        found.update(f"{name} {tuple(values.shape)} ".encode())
        found.update(values.numpy().tobytes())
    return found.hexdigest()


def right(content: bytes, known: Mapping[str, Any]) -> bool:
    return len(content) == known["size"] and digest(content) == known["sha256"]


def read(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"User-Agent": "equivae benchmarks"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def kodak(address: str) -> Iterator[tuple[str, bytes]]:
    for name in KNOWN["kodak"]:
        yield name, read(address + name)


def photos(address: str) -> Iterator[tuple[str, bytes]]:
    """The images of the archive's train and val folders, read one by one without unpacking it."""
    with tempfile.TemporaryFile() as kept:
        with urllib.request.urlopen(address, timeout=60) as answer:
            shutil.copyfileobj(answer, kept)
        kept.seek(0)
        with tarfile.open(fileobj=kept, mode="r:gz") as archive:
            for member in archive:
                path = Path(member.name)
                if member.isfile() and path.suffix == ".jpg" and path.parent.name in SPLITS:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield path.name, file.read()


def images(name: str, folder: Path, address: str) -> tuple[bool, str]:
    """Fetch what a set lacks; whether it is whole, and a sentence. `OSError` where nothing answers."""
    known, source = KNOWN[name], {"kodak": kodak, "photos": photos}[name]
    folder.mkdir(parents=True, exist_ok=True)
    lacking = {one for one in known if not (folder / one).is_file()}
    for file, content in source(address) if lacking else ():
        if file in lacking and readable(content):
            part = folder / f"{file}.part"
            part.write_bytes(content)
            part.replace(folder / file)
            lacking.remove(file)
    if lacking:
        shown = ", ".join(sorted(lacking)[:3]) + (", ..." if len(lacking) > 3 else "")
        there = f"{len(known) - len(lacking)} of {len(known)} images are in {folder}"
        return False, f"{name}: {there}; run this again for {shown}."
    others = [one for one in known if not right((folder / one).read_bytes(), known[one])]
    said = f"{name}: all {len(known)} images are in {folder}"
    if others:
        said += f"; {len(others)} differ from those measured on, {others[0]} first"
    return True, said + "."


def readable(content: bytes) -> bool:
    """Whether these bytes are a whole image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except OSError:
        return False
    return True


def taef2(folder: Path, address: str) -> tuple[bool, str]:
    """Fetch the weights and split them into the halves that `taef2.py` reads."""
    files = [folder / f"{half}.safetensors" for half in ("encoder", "decoder")]
    if not all(file.is_file() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as kept:
            path = Path(kept) / "taef2.safetensors"
            path.write_bytes(read(address))
            both = load_file(path)
        for half, first in (("encoder", 0), ("decoder", 1)):  # the decoder's clamp has no weights
            save_file(_half(both, half, first), folder / f"{half}.safetensors")
    same = all(
        weights_digest(load_file(file)) == KNOWN["taef2"][file.name]["weights"] for file in files
    )
    said = "the weights measured" if same else "other weights than those measured"
    return True, f"taef2: {folder} holds {said}."


def _half(weights: Mapping[str, Tensor], half: str, first: int) -> dict[str, Tensor]:
    start = f"{half}.layers."
    found = {}
    for name, values in weights.items():
        if name.startswith(start):
            index, rest = name.removeprefix(start).split(".", 1)
            found[f"{int(index) + first}.{rest}"] = values.contiguous()
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="the folder to fetch into")
    parser.add_argument("--only", default=",".join(ADDRESSES), help="comma-separated")
    for name, usual in ADDRESSES.items():
        parser.add_argument(f"--{name}_address", default=usual, help="where another copy lies")
    options = parser.parse_args(arguments)
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(ADDRESSES):
        parser.error(f"--only takes {', '.join(ADDRESSES)}, got {', '.join(sorted(unknown))}")
    failed = False
    for name in wanted:
        address, folder = getattr(options, f"{name}_address"), options.data / name
        try:
            whole, said = (
                taef2(folder, address) if name == "taef2" else images(name, folder, address)
            )
        except (OSError, tarfile.TarError) as error:
            whole, said = (
                False,
                f"{name}: {address} could not be read ({error}); put the files into {folder} yourself, or "
                f"name another copy by --{name}_address.",
            )
        failed |= not whole
        print(said)
    if not failed:
        print("Now every script in benchmarks/ runs without --data.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
