# ---
# title: The SoteMix experiment
# ---
# One source for the notebook examples/sotemix_rot180.ipynb and for the page docs/sotemix.md:
# python examples/build_notebook.py

# %% [markdown]
# # The SoteMix experiment
#
# If you rotate the latent of an image by 180° and decode it with a Stable Diffusion VAE, you get a scrambled image. A
# published experiment ([Rotational-Equivariant-VAE](https://github.com/alfredchleong/Rotational-Equivariant-VAE)) fine-tuned
# the VAE of `Disty0/SoteMix` until it decoded the rotated image, "without forgetting 0 degree reconstruction". This page
# repeats the complete experiment, with its objective, data, training, check and pictures. It takes minutes, on a small VAE of
# the same class and without a network. One command runs it on SoteMix itself.

# %% [markdown]
# ## Setup
#
# | part | as published | on this page |
# |---|---|---|
# | VAE | the VAE of `Disty0/SoteMix`: `AutoencoderKL`, 83.7 M parameters, f8, 4 channels | the embedded VAE: `AutoencoderKL`, 0.92 M parameters, f4, 4 channels |
# | data | 1,000 images that SoteMix generated (prompt "1girl", 50 steps), 256 px | 100 procedural dead-leaves images, 64 px |
# | tested on | a validation split | six photographs, 128 px, not used for training |
# | objective | reconstruction plus equivariance, MSE | the same |
# | training | 5 epochs, batch size 3, AdamW, learning rate 5e-5 | the same, but learning rate 1e-3, because the VAE is 90 times smaller |
# | check | round-trip MSE, about 0.0023 on one image, units not stated | round-trip MSE in [0, 1] units, mean of six images |
#
# The objective has two terms: the VAE still has to reconstruct the image, and the rotated latent has to decode to the
# rotated image. With $T$ for rot180,
#
# $$L = \mathrm{MSE}(D(E(x)), x) + \mathrm{MSE}(D(T E(x)), T x).$$

# %%
import os
import tempfile
from pathlib import Path

from IPython.display import Image, Markdown

import equivae

COUNT = int(os.environ.get("EQUIVAE_NOTEBOOK_IMAGES", "100"))

vae = equivae.load_vae("embedded")
images = equivae.data.dead_leaves(COUNT, size=64, seed=1_000)
photographs = equivae.zoo.photographs(128)


def table(*rows):
    """Rows of cells as a table."""
    head, *rest = ["| " + " | ".join(row) + " |" for row in rows]
    return Markdown("\n".join([head, "|---" * len(rows[0]) + "|", *rest]))


# %% [markdown]
# ## Before training
#
# The *round trip* encodes an image, rotates the latent, decodes it, and rotates the result back. The *equivariance gap* is
# the PSNR of the reconstruction minus the PSNR of the round trip, in dB.

# %%
before = equivae.evaluate(vae, photographs, "rot180", progress=False)
table(("untouched VAE", ""), *((label, value) for label, _, value in before.rows()))

# %% [markdown]
# ## Training
#
# The recipe `published` has the settings of the experiment: two decodes per image, all weights, five epochs, batch size 3.

# %%
folder = Path(tempfile.mkdtemp()) / "sotemix"
result = equivae.finetune(
    vae,
    images,
    transforms="rot180",
    output_dir=folder,
    recipe="published",
    resolution=None,
    learning_rate=1e-3,
    validation_images=photographs,
    progress=False,
)
print(result.report.verdict)

# %% alt="Training and validation loss per epoch on a logarithmic scale"
from equivae.reporting.figures import draw_losses

draw_losses(result.history, by="epoch").savefig(folder / "loss_per_epoch.png", dpi=110)
Image(folder / "loss_per_epoch.png", width=640)

# %% [markdown]
# ## Result
#
# From left to right: the original, its reconstruction, the decode of the rotated latent, and that decode rotated back. The
# untouched VAE is above, the fine-tuned one below.

# %% alt="Two photographs, each before and after: before, the rotated latent decodes to a scrambled image; after, to the rotated photograph"
from equivae.reporting.figures import draw_panels

figure = draw_panels(result.report.panels[:2], result.report.panels_before[:2])
figure.savefig(folder / "four_panels.png", dpi=80)
Image(folder / "four_panels.png", width=700)

# %%
table(("", "before", "after"), *result.report.rows())

# %%
error = result.report.metrics.transforms["rot180"].round_trip_mse
print(f"round-trip MSE {error:.5f} in [0, 1] units, {4 * error:.5f} in [-1, 1] units")
print("published: about 0.0023, on one image, its units not stated")

# %% [markdown]
# The gap closes at the expense of the reconstruction. Under the plain latent op, a patch and the same patch upside down
# share one latent vector, so the VAE cannot store which way up a patch was.

# %% [markdown] tags=["docs"]
# [Concepts](concepts.md#why-the-plain-latent-op-costs-so-much) has a drawing of the reason and two ways around it.

# %% [markdown]
# ## The same without training
#
# There are two ways without training. A fitted latent op, found by least squares, leaves the VAE as it is. A symmetrized VAE
# makes the plain latent op exact, in a wrapper that encodes and decodes half of the image rotated:

# %%
fitted = equivae.fit_latent_op(vae, "rot180", images, kernel_size=5, progress=False)
symmetrized = equivae.symmetrize(vae, "c2", images=images, progress=False)
rows = [("", "reconstruction", "round trip", "gap")]
for name, model, transform in (
    ("untouched", vae, "rot180"),
    ("fitted latent op", vae, fitted),
    ("symmetrized", symmetrized, "rot180"),
    ("fine-tuned as published", result.vae, "rot180"),
):
    metrics = equivae.evaluate(model, photographs, transform, progress=False).metrics
    (found,) = metrics.transforms.values()
    numbers = (metrics.reconstruction_psnr, found.round_trip_psnr, found.equivariance_gap_db)
    rows.append((name, *(f"{number:.2f} dB" for number in numbers)))
table(*rows)

# %% [markdown] tags=["docs"]
# ## On a real pretrained autoencoder
#
# These results are for TAEF2 (f8, 32 channels), trained on crops of 128 px from 300 photographs and tested on the 24 Kodak
# images at 256 px:
#
# <!-- generated: taef2 -->
#
# *`benchmarks/sotemix_rot180.py --vae taef2`. [Benchmarks](benchmarks.md) compares it with other published objectives.*

# %% [markdown]
# ## On SoteMix itself
#
# `examples/sotemix_rot180.py` generates the 1,000 images, fine-tunes, checks, and draws every figure. It needs a network and a
# GPU. If it is interrupted, run the same command again and it continues.
#
# ```bash
# python examples/sotemix_rot180.py --recipe published --output_dir sotemix
# ```
#
# `--embedded` runs the script offline on the embedded VAE; `--images FOLDER` uses your own images.
