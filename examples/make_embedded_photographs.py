"""Cut the six photographs in the wheel (`equivae.zoo.photographs`) from those of scikit-image.

    python examples/make_embedded_photographs.py OUTPUT_DIR

Each is shown whole (short side resized to 256) and as a detail at full resolution. The sources are in
the public domain or CC0: astronaut (NASA), chelsea (Stefan van der Walt), coffee (Rachel Michetti).
"""

from __future__ import annotations

import sys
from pathlib import Path

import skimage.data
from PIL import Image, ImageOps

DETAILS = {"astronaut": (96, 0), "chelsea": (90, 20), "coffee": (180, 40)}  # left, top


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (left, top) in DETAILS.items():
        image = Image.fromarray(getattr(skimage.data, name)())
        ImageOps.fit(image, (256, 256), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
        detail = image.crop((left, top, left + 256, top + 256))
        detail.save(folder / f"{name}_detail.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
