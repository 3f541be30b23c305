"""Exact equivariance by construction: the law, what it is made of, and that it is an autoencoder."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import equivae
from equivae.symmetry import SymmetrizedVAE, domain_weights
from equivae.symmetry.domain import lattice_group, softened
from equivae.symmetry.module import _by_shape

GROUPS = ["c2", "hflip", "vflip", "d2", "c4", "d4"]
METHODS = ["fundamental-domain", "average"]


class ConvAE(nn.Module):
    """A random convolutional autoencoder on tensors, f2; equivariant under nothing."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4, 2, stride=2)
            )
            self.decoder = nn.Sequential(
                nn.ConvTranspose2d(4, 8, 2, stride=2), nn.Tanh(), nn.Conv2d(8, 3, 3, padding=1)
            )

    def encode(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents)


def own_group(*names: str) -> equivae.Group:
    return equivae.Group("own", tuple(map(equivae.get_transform, names)))


def tiny_kl() -> AutoencoderKL:
    """A random f2 `AutoencoderKL`, with group norms that see the whole crop."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            mid_block_add_attention=False,
        ).eval()


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=dtype) * 2 - 1


@functools.cache
def fitted_context(group: str) -> dict[str, Any]:
    """Latent ops fitted on a `ConvAE()`."""
    images = noise(3, 3, 12, 12, seed=9)
    found = equivae.fit_latent_group(
        ConvAE().double(), lattice_group(group), images, 3, progress=False
    )
    return {name: t for name, t in found.transforms.items() if name != "identity"}


@torch.no_grad()
def law(svae: SymmetrizedVAE, images: Tensor) -> tuple[float, float]:
    """`max |E'(T x) - S E'(x)|` and `max |D'(S z) - T D'(z)|` over the group."""
    vae = equivae.Autoencoder(svae)
    latents = vae.encode(images)
    decoded = vae.decode(latents)
    encoder = decoder = 0.0
    for t in svae.group:
        encoder = max(encoder, float((vae.encode(t.pixel(images)) - t.latent(latents)).abs().max()))
        moved = vae.decode(t.latent(latents))
        decoder = max(decoder, float((moved - t.pixel(decoded)).abs().max()))
    return encoder, decoder


# The domain -------------------------------------------------------------------------------------


@given(
    group=st.sampled_from([*GROUPS, "rot180", "transpose"]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    method=st.sampled_from(METHODS),
)
@settings(max_examples=100, deadline=None)
def test_the_weights_sum_to_one_over_the_group(group, height, width, method):
    found = lattice_group(group)
    total = torch.zeros(height, width, dtype=torch.float64)
    for element in found:
        shape = (width, height) if element.swaps_axes else (height, width)
        total += element.latent(domain_weights(found, *shape, method))
    assert total.equal(torch.ones_like(total))


@pytest.mark.parametrize("group", GROUPS)
def test_every_orbit_has_one_cell_in_the_domain(group):
    found = lattice_group(group)
    weights = domain_weights(found, 5, 5, "fundamental-domain")
    cells = torch.arange(25.0).view(5, 5)
    orbits = torch.stack([element.latent(cells) for element in found]).sort(0).values
    inside = orbits[:, weights > 0].T.unique(dim=0)
    assert len(inside) == len(orbits.flatten(1).T.unique(dim=0))
    assert int((weights > 0).sum()) == len(inside)


def test_the_domains_are_those_of_the_documentation():
    def rows(group):
        return domain_weights(lattice_group(group), 4, 4, "fundamental-domain").tolist()

    assert rows("c2") == rows("vflip") == [[1] * 4] * 2 + [[0] * 4] * 2
    assert rows("hflip") == [[1, 1, 0, 0]] * 4
    assert rows("d2") == rows("c4") == [[1, 1, 0, 0]] * 2 + [[0] * 4] * 2
    assert rows("d4") == [[0.5, 1, 0, 0], [0, 0.5, 0, 0], [0] * 4, [0] * 4]


@given(
    group=st.sampled_from([*GROUPS, "transpose"]),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    ramp=st.integers(0, 12),
)
@settings(max_examples=60, deadline=None)
def test_softened_weights_still_sum_to_one_over_the_group(group, height, width, ramp):
    found = lattice_group(group)
    total = torch.zeros(height, width, dtype=torch.float64)
    for element in found:
        shape = (width, height) if element.swaps_axes else (height, width)
        total += element.latent(softened(domain_weights(found, *shape, "fundamental-domain"), ramp))
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-12, rtol=0)


def test_the_ramp_is_a_raised_sine_as_wide_as_asked():
    hard = torch.zeros(40, 3, dtype=torch.float64)
    hard[:20] = 1
    soft = softened(hard, 8)[:, 1]
    between = ((soft > 1e-9) & (soft < 1 - 1e-9)).nonzero().flatten()
    assert between.tolist() == list(range(16, 24))
    steps = torch.arange(8, dtype=torch.float64)
    expected = 0.5 + torch.sin(torch.pi / 10 * (3.5 - steps)) / math.sin(0.45 * math.pi) / 2
    torch.testing.assert_close(soft[between], expected)


# The law ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [None, 1])
@pytest.mark.parametrize("cells", [(4, 4), (5, 5), (4, 6), (5, 7), (6, 5)])
@pytest.mark.parametrize("group", GROUPS)
def test_the_law_is_exact_with_fitted_context(group, cells, margin):
    vae = ConvAE().double()
    svae = SymmetrizedVAE(vae, group, transforms=fitted_context(group), margin=margin, seam=4)
    images = noise(2, 3, 2 * cells[0], 2 * cells[1])
    assert max(law(svae, images)) < 1e-10
    if cells == (4, 4):  # and the autoencoder inside does not have it
        t = svae.group[1]
        assert (vae.encode(t.pixel(images)) - t.latent(vae.encode(images))).abs().max() > 1e-2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("group", GROUPS)
def test_the_law_is_exact_for_a_diffusers_vae(group, method):
    svae = SymmetrizedVAE(tiny_kl().double(), group, method, margin=1, seam=4)
    assert max(law(svae, noise(1, 3, 12, 12))) < 1e-10


def test_cells_of_the_domain_are_the_plain_ones():
    vae = ConvAE().double()
    svae, x = SymmetrizedVAE(vae, "d2"), noise(2, 3, 12, 12)
    quadrant = (..., slice(0, 3), slice(0, 3))
    torch.testing.assert_close(svae.encode(x)[quadrant], vae.encode(x)[quadrant])
    averaged = SymmetrizedVAE(vae, "d2", "average").encode(x)
    expected = sum(t.latent(vae.encode(t.inverse.pixel(x))) for t in svae.group) / 4
    torch.testing.assert_close(averaged, expected)


def test_an_equivariant_vae_is_left_as_it_is():
    class PoolAE(ConvAE):
        def encode(self, images):
            return F.avg_pool2d(images, 2)

        def decode(self, latents):
            return F.interpolate(latents, scale_factor=2.0)

    vae, x = PoolAE().double(), noise(2, 3, 10, 10)
    for method in METHODS:
        svae = SymmetrizedVAE(vae, "d4", method)
        torch.testing.assert_close(svae.encode(x), vae.encode(x))
        torch.testing.assert_close(svae.decode(vae.encode(x)), vae.decode(vae.encode(x)))


def test_exact_latent_ops_give_the_decoder_its_own_latents():
    """With a context that translates without error, decoding is the plain decoder's on every part."""

    class PatchAE(ConvAE):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.eye(12) + noise(12, 12, dtype=torch.float32) / 4)

        def encode(self, images):
            return torch.einsum("oc,bchw->bohw", self.matrix, F.pixel_unshuffle(images, 2))

        def decode(self, latents):
            patches = torch.einsum("oc,bchw->bohw", torch.linalg.inv(self.matrix), latents)
            image = F.pixel_shuffle(patches, 2)
            return F.avg_pool2d(F.pad(image, [1] * 4), 3, 1)  # looks across cells

    vae, images = PatchAE(), noise(8, 3, 12, 12, dtype=torch.float32)
    fitted = equivae.fit_latent_group(vae, "d2", images, 1, progress=False)
    with_context = SymmetrizedVAE(vae, "d2", transforms=fitted.transforms)
    without = SymmetrizedVAE(vae, "d2")
    with torch.no_grad():
        expected = vae.decode(vae.encode(images))
        error = [
            float((s.decode(s.encode(images)) - expected).abs().max())
            for s in (with_context, without)
        ]
    assert error[0] < 1e-3 < 1e-2 < error[1]


# An autoencoder ---------------------------------------------------------------------------------


def test_a_posterior_is_put_together_from_its_moments():
    vae = tiny_kl().double()
    svae, x = SymmetrizedVAE(vae, "c2"), noise(1, 3, 12, 12)
    with torch.no_grad():
        whole, plain = svae.encode(x).latent_dist, vae.encode(x).latent_dist
        turned = vae.encode(x.flip(-2, -1)).latent_dist
    assert type(whole) is type(plain)
    for name in ("mean", "logvar", "std"):
        upper, lower = (
            getattr(plain, name)[..., :3, :],
            getattr(turned, name).flip(-2, -1)[..., 3:, :],
        )
        torch.testing.assert_close(getattr(whole, name), torch.cat([upper, lower], -2))
    draws = [whole.sample(torch.Generator().manual_seed(1)) for _ in range(2)]
    assert draws[0].equal(draws[1])
    assert not draws[0].equal(whole.mode())


def test_it_is_called_like_the_vae_inside():
    vae = tiny_kl()
    svae, x = SymmetrizedVAE(vae, "c2"), noise(1, 3, 16, 16, dtype=torch.float32)
    with torch.no_grad():
        output, (posterior,) = svae.encode(x), svae.encode(x, return_dict=False)
        z = output.latent_dist.mode()
        assert posterior.mode().equal(z)
        assert type(output) is type(vae.encode(x))
        (image,) = svae.decode(z, return_dict=False)
        assert svae.decode(z).sample.equal(image)
        assert svae(x).sample.equal(image)
    assert svae.config.scaling_factor == vae.config.scaling_factor
    assert (svae.dtype, svae.device) == (vae.dtype, vae.device)
    with pytest.raises(AttributeError):
        _ = svae.no_such_thing
    view = equivae.Autoencoder(svae)
    assert (view.factor, view.latent_channels) == (2, 4)


def test_it_works_inside_a_pipeline():
    from diffusers import DDIMScheduler, LDMPipeline, UNet2DModel

    unet = UNet2DModel(
        8, 4, 4, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, layers_per_block=1,
    )  # fmt: skip
    pipeline = LDMPipeline(SymmetrizedVAE(tiny_kl(), "c2"), unet, DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    images = pipeline(generator=generator, num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 16, 16, 3)


def test_gradients_reach_the_vae_inside_and_not_the_operators():
    vae, context = ConvAE(), fitted_context("c2")
    svae = SymmetrizedVAE(vae, "c2", transforms=context)
    x = noise(2, 3, 8, 8, dtype=torch.float32)
    out = equivae.EquivarianceLoss("rot180")(svae, x)
    out.loss.backward()
    assert all(p.grad is not None for p in vae.parameters())
    assert context["rot180"].operator.weight.grad is None
    # Exactly equivariant, so that both terms agree.
    torch.testing.assert_close(out.terms["reconstruction"], out.terms["equivariance/rot180"])


def test_a_finetune_of_the_decoder_keeps_the_law(tmp_path):
    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(4, 32)
    svae = equivae.symmetrize(vae, "c2", images=images, kernel_size=1, margin=1, progress=False)
    result = equivae.finetune(
        svae, images, [], tmp_path / "a", train="decoder", max_train_steps=2, progress=False
    )
    loaded = SymmetrizedVAE.from_pretrained(tmp_path / "a")
    x = noise(1, 3, 32, 32, dtype=torch.float32)
    assert max(law(loaded, x)) < 1e-4
    with torch.no_grad():
        z = loaded.encode(x).latent_dist.mode()
        assert loaded.decode(z).sample.equal(result.vae.decode(z).sample)
        assert not loaded.decode(z).sample.equal(svae.decode(z).sample)


@pytest.mark.parametrize("context", [True, False])
def test_saved_and_loaded_it_is_the_same(tmp_path, context):
    vae, transforms = ConvAE(), fitted_context("d2") if context else None
    made = SymmetrizedVAE(vae, "d2", transforms=transforms, margin=1, passes=1)
    made.save_pretrained(tmp_path)
    loaded = SymmetrizedVAE.from_pretrained(tmp_path, vae=ConvAE(seed=1))
    x = noise(1, 3, 12, 12, dtype=torch.float32)
    with torch.no_grad():
        assert loaded.decode(loaded.encode(x)).equal(made.decode(made.encode(x)))
    assert (loaded.margin, loaded.passes, loaded.method) == (1, 1, "fundamental-domain")


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(equivae.InputError, match=r"symmetrize\.json"):
        SymmetrizedVAE.from_pretrained(tmp_path)


def test_a_group_of_the_users_own_is_saved_by_its_elements(tmp_path):
    own = equivae.Group("mine", tuple(map(equivae.get_transform, ("identity", "antitranspose"))))
    made = SymmetrizedVAE(ConvAE(), own, margin=1, seam=4)
    made.save_pretrained(tmp_path)
    loaded = SymmetrizedVAE.from_pretrained(tmp_path, vae=ConvAE(seed=1))
    assert loaded.group == own
    assert loaded.seam == 4
    x = noise(1, 3, 12, 12, dtype=torch.float32)
    with torch.no_grad():
        assert loaded.decode(loaded.encode(x)).equal(made.decode(made.encode(x)))


def test_a_folder_of_before_the_seam_has_none(tmp_path):
    SymmetrizedVAE(ConvAE(), "c2", seam=4).save_pretrained(tmp_path)
    path = tmp_path / "symmetrize.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in ("seam", "elements")}))
    loaded = SymmetrizedVAE.from_pretrained(tmp_path, vae=ConvAE())
    assert (loaded.seam, loaded.group) == (0, equivae.get_group("c2"))
    for text in ("{", "[]", '{"schema": 1}', "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(equivae.InputError, match=r"symmetrize\.json"):
            SymmetrizedVAE.from_pretrained(tmp_path, vae=ConvAE())


# symmetrize -------------------------------------------------------------------------------------


def test_it_states_cost_and_effect():
    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(6, 64)
    svae = equivae.symmetrize(vae, "c2", images=images, kernel_size=3, progress=False)
    report = svae.report
    assert svae.vae is vae
    assert set(report.margins) == {3, 4, 6}
    assert report.margins[report.margin] >= max(report.margins.values()) - 0.15
    assert report.seams["all" if report.seam is None else "16"] == max(report.seams.values())
    assert report.margins[3] == max(report.seams.values())
    assert report.cost == svae.cost(64, 64) == 1 + 2 * report.margin / 16
    assert equivae.symmetrize(vae, "c2").seam == 16  # nothing to measure on
    average = equivae.symmetrize(vae, "c2", "average", images=images, progress=False).report
    assert average.plain_psnr == report.plain_psnr
    assert average.reconstruction_psnr < report.reconstruction_psnr < report.plain_psnr + 0.5
    assert equivae.symmetrize(vae, "d4").margin is None


def test_modes_of_training_are_left_as_they_were():
    vae = ConvAE().train()
    vae.encoder.eval()
    images = noise(4, 3, 12, 12, dtype=torch.float32)
    for given_images in (None, images):
        made = equivae.symmetrize(vae, "c2", images=given_images, kernel_size=1, progress=False)
        assert (vae.training, vae.encoder.training, vae.decoder.training) == (True, False, True)
        assert made.training
    assert not equivae.symmetrize(vae.eval(), "c2").training


def test_the_divergence_of_the_posterior_and_its_spread_follow_the_law():
    svae, x = SymmetrizedVAE(tiny_kl().double(), "d4"), noise(1, 3, 12, 12)
    with torch.no_grad():
        plain = svae.encode(x).latent_dist
        for t in svae.group:
            moved = svae.encode(t.pixel(x)).latent_dist
            torch.testing.assert_close(moved.kl(), plain.kl())
            torch.testing.assert_close(moved.std, t.latent(plain.std))
            noise_of = plain.mean + plain.std
            torch.testing.assert_close(moved.mean + moved.std, t.latent(noise_of))


@pytest.mark.parametrize("margin", [None, 0, 1])
@pytest.mark.parametrize("cells", [(6, 6), (7, 5)])
@pytest.mark.parametrize("group", ["c2", "d4"])
def test_all_that_is_decoded_may_count(group, cells, margin):
    """The weights of overlapping crops sum to one, the law holds, and the crops' edges are not seen."""
    vae = ConvAE().double()
    svae = SymmetrizedVAE(vae, group, transforms=fitted_context(group), margin=margin, seam=None)
    assert max(law(svae, noise(1, 3, *(2 * n for n in cells)).double())) < 1e-12
    flat = SymmetrizedVAE(Constant().double(), group, margin=margin, seam=None)
    decoded = flat.decode(torch.zeros(1, 4, *cells, dtype=torch.float64))
    assert (decoded - 0.7).abs().max() < 1e-12
    if margin == 1:
        domain, elements = next(iter(_by_shape(svae._domains(*cells))))
        weights = svae._pixels(domain, elements)
        assert weights[weights > 0].min() < 0.3 * weights.max() <= 0.3


def test_draws_of_the_posterior_follow_the_law_with_their_noise():
    svae, x = SymmetrizedVAE(tiny_kl().double(), "d4", seam=4), noise(1, 3, 12, 12)
    with torch.no_grad():
        plain = svae.encode(x).latent_dist
        for t in svae.group:
            moved = svae.encode(t.pixel(x)).latent_dist
            drawn = moved.sample(torch.Generator().manual_seed(0))
            epsilon = (drawn - moved.mean) / moved.std
            expected = plain.mean + plain.std * t.inverse.latent(epsilon)
            torch.testing.assert_close(drawn, t.latent(expected))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_law_to_one_rounding(dtype):
    vae = tiny_kl().to(dtype)
    svae = SymmetrizedVAE(vae, "d4", margin=2, seam=6)
    x = noise(1, 3, 16, 16).to(dtype)
    z = equivae.Autoencoder(svae).encode(x)
    size = max(float(z.abs().max()), float(svae.decode(z).sample.abs().max()))
    assert max(law(svae, x)) <= 2 * torch.finfo(dtype).eps * size
    # The weights of the seam sum to one before they are rounded.
    flat = Constant().to(dtype)
    decoded = SymmetrizedVAE(flat, "d4", margin=2, seam=6).decode(
        torch.zeros(1, 4, 8, 8, dtype=dtype)
    )
    assert (decoded - 0.7).abs().max() <= torch.finfo(dtype).eps


class Constant(ConvAE):
    """Decodes everything to one grey."""

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents) * 0 + 0.7


def test_the_report_says_how_far_the_law_holds():
    images = equivae.data.dead_leaves(3, 64)
    for dtype, most in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        vae = equivae.zoo.load().to(dtype)
        made = equivae.symmetrize(vae, "d2", images=images, kernel_size=1, margin=2, progress=False)
        assert made.report.encoder_law_error <= most
        assert made.report.decoder_law_error <= most


def test_the_cost_is_that_of_the_cells_that_are_encoded():
    seen = []

    class Counting(ConvAE):
        def encode(self, images):
            seen.append(images.shape[0] * images.shape[2] * images.shape[3])
            return super().encode(images)

    svae = SymmetrizedVAE(Counting(), "d2", margin=2)
    x = noise(1, 3, 32, 48, dtype=torch.float32)
    svae.cost(32, 48)  # probes the VAE
    seen.clear()
    svae.encode(x)
    assert sum(seen) == svae.cost(32, 48) * 32 * 48 < 4 * 32 * 48


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"group": "c3"}, "c2"),
        ({"group": "rot90"}, "not a group"),
        ({"group": equivae.Group("own", (object(),))}, "flips or quarter turns"),
        ({"group": own_group("identity", "rot90")}, "rot90 after rot90 is rot180"),
        ({"group": own_group("rot180", "hflip")}, "identity is missing"),
        ({"group": own_group("identity", "rot180", "rot180")}, "twice"),
        ({"seam": -1}, "seam"),
        ({"method": "averaging"}, "average"),
        ({"margin": -1}, "margin"),
        ({"margin": "some"}, "margin"),
        ({"seam": "some"}, "seam"),
        ({"margin": -1, "images": "nowhere"}, "margin"),  # before any work
        ({"seam": -1, "images": "nowhere"}, "seam"),
        ({"passes": -1}, "passes"),
    ],
)
def test_bad_input(arguments, word):
    with pytest.raises(equivae.InputError, match=word):
        equivae.symmetrize(ConvAE(), **{"group": "c2", **arguments})


def test_a_context_has_to_cover_the_group():
    with pytest.raises(equivae.InputError, match="hflip"):
        SymmetrizedVAE(ConvAE(), "d2", transforms=fitted_context("c2"))


def test_sides_that_do_not_divide_are_refused():
    with pytest.raises(equivae.InputError, match="factor 2"):
        SymmetrizedVAE(ConvAE(), "c2").encode(torch.zeros(1, 3, 9, 8))
