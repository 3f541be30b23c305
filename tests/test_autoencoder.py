"""The seam: any autoencoder behind one pair of calls, found by a probe, loaded from anywhere."""

from __future__ import annotations

import json

import diffusers
import pytest
import torch
from diffusers import (
    AsymmetricAutoencoderKL,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderTiny,
    UNet2DModel,
    VQModel,
)
from safetensors.torch import load_file, save_file
from torch import nn

import equivae
from equivae import InputError
from equivae.autoencoder import check_images
from equivae.files.pretrained import save_vae
from models import ConvAE, PoolAE, noise, tiny_kl

BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}


def _vq() -> VQModel:
    return VQModel(
        **BLOCKS, block_out_channels=(8, 8), num_vq_embeddings=16, mid_block_add_attention=False
    )


def _tiny() -> AutoencoderTiny:
    channels, blocks = (8, 8, 8), (1, 1, 1)
    return AutoencoderTiny(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks,
    )


def _dc() -> AutoencoderDC:
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
    )


def _asymmetric() -> AsymmetricAutoencoderKL:
    return AsymmetricAutoencoderKL(
        **BLOCKS, down_block_out_channels=(8, 8), up_block_out_channels=(8, 16)
    )


# name: how to make it, factor, latent channels, prefixes of the encoder's and of the decoder's weights
AUTOENCODERS = {
    "AutoencoderKL": (tiny_kl, 2, 4, ("encoder", "quant_conv"), ("decoder", "post_quant_conv")),
    "AutoencoderTiny": (_tiny, 4, 4, ("encoder",), ("decoder",)),
    "VQModel": (_vq, 2, 3, ("encoder", "quant_conv"), ("decoder", "post_quant_conv")),
    "AutoencoderDC": (_dc, 2, 4, ("encoder",), ("decoder",)),
    "AsymmetricAutoencoderKL": (
        *(_asymmetric, 2, 4),
        *(("encoder", "quant_conv"), ("decoder", "post_quant_conv")),
    ),
    "plain module": (ConvAE, 2, 4, ("encoder",), ("decoder",)),
}


@pytest.fixture(params=AUTOENCODERS)
def case(request):
    make, *expected = AUTOENCODERS[request.param]
    torch.manual_seed(0)
    return make(), *expected


def test_encode_and_decode(case):
    module, factor, channels, _, _ = case
    vae = equivae.Autoencoder(module.eval())
    x = noise(2, 3, 32, 48)
    z = vae.encode(x)
    assert (vae.factor, vae.latent_channels, vae.image_channels) == (factor, channels, 3)
    assert z.shape == (2, channels, 32 // factor, 48 // factor)
    assert vae.decode(z).shape == x.shape
    assert vae.encode(x).equal(z)
    assert (vae.device, vae.dtype) == (torch.device("cpu"), torch.float32)


def test_parameters_of_each_half(case):
    module, _, _, encoder_prefixes, decoder_prefixes = case
    vae = equivae.Autoencoder(module)
    named = dict(module.named_parameters())

    def of(prefixes):
        return {n for n in named if n.split(".")[0] in prefixes}

    def names(parameters):
        identities = {id(p) for p in parameters}
        return {n for n, p in named.items() if id(p) in identities}

    encoder, decoder = names(vae.encoder_parameters()), names(vae.decoder_parameters())
    assert not encoder & decoder
    # The inpainting branch of the asymmetric decoder takes no part in a plain decode.
    unused = {n for n in of(decoder_prefixes) if "condition_encoder" in n}
    # A VAE of diffusers reads the latent's mean, and half of the last convolution gives it.
    assert encoder == of(encoder_prefixes)
    assert decoder == of(decoder_prefixes) - unused


def test_the_probe_leaves_no_trace(case):
    module = case[0]
    module.train()
    for i, parameter in enumerate(module.parameters()):
        parameter.requires_grad_(i % 2 == 0)
    first = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    first.eval()
    weights = {n: t.clone() for n, t in module.state_dict().items()}
    with torch.no_grad():
        assert equivae.Autoencoder(module).factor > 1
    assert [p.requires_grad for p in module.parameters()] == [
        i % 2 == 0 for i in range(len(list(module.parameters())))
    ]
    assert all(p.grad is None for p in module.parameters())
    assert not first.training
    assert all(m.training for m in module.modules() if m is not first)
    assert all(t.equal(weights[n]) for n, t in module.state_dict().items())


def test_the_probe_happens_once():
    calls = []

    class Counting(ConvAE):
        def encode(self, images):
            calls.append(images.shape)
            return super().encode(images)

    vae = equivae.Autoencoder(Counting())
    assert (vae.factor, vae.latent_channels) == (2, 4)
    assert len(calls) == 1


def test_the_mode_is_the_mean_of_the_posterior():
    module = tiny_kl()
    x = noise(2, 3, 16, 16)
    with torch.no_grad():
        posterior = module.encode(x).latent_dist
        assert equivae.Autoencoder(module).encode(x).equal(posterior.mean)


def test_posterior_sampling_is_seeded():
    vae = equivae.Autoencoder(tiny_kl())
    x = noise(2, 3, 16, 16)

    def draw(seed):
        return vae.encode(x, sample=True, generator=torch.Generator().manual_seed(seed))

    assert draw(0).equal(draw(0))
    assert not draw(0).equal(draw(1))
    assert not draw(0).equal(vae.encode(x))


def test_sampling_without_a_posterior_gives_the_latent():
    vae = equivae.Autoencoder(ConvAE())
    x = noise(1, 3, 8, 8)
    assert vae.encode(x, sample=True).equal(vae.encode(x))


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 9])
def test_chunked_decode_equals_unchunked(chunk_size):
    sizes = []

    class Watched(ConvAE):
        def decode(self, latents):
            sizes.append(len(latents))
            return super().decode(latents)

    vae = equivae.Autoencoder(Watched())
    z = noise(5, 4, 4, 4)
    whole = equivae.Autoencoder(ConvAE()).decode(z)
    torch.testing.assert_close(vae.decode(z, chunk_size=chunk_size), whole)
    assert sum(sizes) == 5
    assert max(sizes) == min(chunk_size, 5)


def test_tuples_and_named_outputs():
    class Tuples(ConvAE):
        def encode(self, images):
            return (super().encode(images), "more")

        def decode(self, latents):
            return [super().decode(latents)]

    x = noise(1, 3, 8, 8)
    vae, plain = equivae.Autoencoder(Tuples()), equivae.Autoencoder(ConvAE())
    assert vae.encode(x).equal(plain.encode(x))
    assert vae.decode(vae.encode(x)).equal(plain.decode(plain.encode(x)))


def test_adapters():
    class Codec(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = ConvAE()

        def encode(self, images):
            return {"code": self.inner.encode(images)}

        def decode(self, code):
            return {"picture": self.inner.decode(code["code"])}

    x = noise(1, 3, 8, 8)
    with pytest.raises(InputError, match=r"`encode` of Codec returned dict.*register_adapter"):
        equivae.Autoencoder(Codec()).encode(x)
    equivae.register_adapter(
        lambda module: isinstance(module, Codec),
        encode=lambda module, images, sample, generator: module.encode(images)["code"],
        decode=lambda module, latents: module.decode({"code": latents})["picture"],
    )
    vae = equivae.Autoencoder(Codec())
    assert vae.encode(x).equal(ConvAE().encode(x))
    assert vae.factor == 2
    assert len(vae.encoder_parameters()) == len(vae.decoder_parameters()) == 2
    assert equivae.Autoencoder(ConvAE()).encode(x).equal(ConvAE().encode(x))


def test_a_module_without_weights():
    vae = equivae.Autoencoder(PoolAE(4))
    assert (vae.factor, vae.latent_channels) == (4, 3)
    assert vae.encoder_parameters() == vae.decoder_parameters() == []


@pytest.mark.parametrize("latent_channels", [1, 4])
def test_a_module_whose_decoder_comes_first(latent_channels):
    class DecoderFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = nn.Sequential(
                nn.Upsample(scale_factor=2), nn.Conv2d(latent_channels, 3, 3, padding=1)
            )
            self.encoder = nn.Conv2d(3, latent_channels, 2, stride=2)

        def encode(self, images):
            return self.encoder(images)

        def decode(self, latents):
            return self.decoder(latents)

    vae = equivae.Autoencoder(DecoderFirst())
    assert (vae.factor, vae.image_channels, vae.latent_channels) == (2, 3, latent_channels)


def test_grey_images():
    vae = equivae.Autoencoder(tiny_kl(in_channels=1, out_channels=1))
    assert vae.image_channels == 1
    assert vae.decode(vae.encode(noise(1, 1, 8, 8))).shape == (1, 1, 8, 8)


def test_half_precision_is_kept():
    vae = equivae.Autoencoder(tiny_kl().to(torch.bfloat16))
    assert vae.factor == 2
    assert vae.encode(noise(1, 3, 8, 8).bfloat16()).dtype == torch.bfloat16


# Errors -------------------------------------------------------------------------------------------


def test_a_module_without_the_calls_is_refused():
    with pytest.raises(InputError, match="Conv2d is not an autoencoder: it has no `encode`"):
        equivae.Autoencoder(nn.Conv2d(3, 3, 1))
    half = ConvAE()
    half.decode = None
    with pytest.raises(InputError, match="it has no `decode` call"):
        equivae.Autoencoder(half)


def test_a_module_that_fails_at_every_side_says_why():
    class Broken(ConvAE):
        def encode(self, images):
            raise RuntimeError("the valve is stuck")

    with pytest.raises(InputError, match="the valve is stuck"):
        _ = equivae.Autoencoder(Broken()).factor


def test_latents_without_a_grid_are_refused():
    class Flat(ConvAE):
        def encode(self, images):
            return super().encode(images).flatten(1)

        def decode(self, latents):
            return latents

    with pytest.raises(InputError, match=r"latents of shape"):
        _ = equivae.Autoencoder(Flat()).factor


def test_factors_that_are_not_whole_are_refused():
    class Crop(ConvAE):
        def encode(self, images):
            return super().encode(images)[..., 1:, 1:]

    with pytest.raises(InputError, match="not a whole factor"):
        _ = equivae.Autoencoder(Crop()).factor


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("a word", "must be a tensor"),
        (torch.zeros(3, 8, 8), r"must be a tensor \(B, C, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "must be floating point"),
        (torch.zeros(0, 3, 8, 8), "hold no pixel"),
        (torch.full((1, 3, 8, 8), 255.0), r"must lie in \[-1, 1\], got values from 255"),
        (torch.full((1, 3, 8, 8), float("inf")), "NaN or infinite"),
        (torch.zeros(1, 4, 8, 8), "have 4 channels, ConvAE takes 3"),
        (torch.zeros(1, 3, 8, 9), r"8x9 pixels do not divide by the VAE's factor 2.*8x8"),
    ],
)
def test_images_that_cannot_be_used(images, message):
    with pytest.raises(InputError, match=message):
        check_images(images, equivae.Autoencoder(ConvAE()))


def test_the_position_of_a_nan_is_named():
    images = torch.zeros(4, 3, 8, 8)
    images[2, 1, 3, 4] = float("nan")
    with pytest.raises(InputError, match=r"at batch positions \[2\]"):
        check_images(images)


def test_a_little_overshoot_passes():
    check_images(torch.tensor([-1.04, 1.04]).view(1, 1, 1, 2))


# Files --------------------------------------------------------------------------------------------


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(t.equal(theirs[n]) for n, t in ours.items())


def test_load_what_is_loaded_already():
    module = ConvAE()
    assert equivae.load_vae(module) is module


@pytest.mark.parametrize("name", ["AutoencoderKL", "AutoencoderTiny", "VQModel", "AutoencoderDC"])
@pytest.mark.parametrize("kind", [str, "path"])
def test_load_a_vae_folder(tmp_path, name, kind):
    module = AUTOENCODERS[name][0]()
    module.save_pretrained(tmp_path)
    loaded = equivae.load_vae(tmp_path if kind == "path" else str(tmp_path))
    assert type(loaded) is type(module)
    assert same_weights(loaded, module)


def test_load_the_vae_of_a_pipeline_folder(tmp_path):
    module = tiny_kl()
    index = {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    module.save_pretrained(tmp_path / "vae")
    UNet2DModel(
        block_out_channels=(4, 4),
        norm_num_groups=2,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1,
        attention_head_dim=2,
    ).save_pretrained(tmp_path / "unet")
    assert same_weights(equivae.load_vae(tmp_path), module)
    assert same_weights(equivae.load_vae(tmp_path, subfolder="vae"), module)
    with pytest.raises(InputError, match="is not an autoencoder: its config names 'UNet2DModel'"):
        equivae.load_vae(tmp_path, subfolder="unet")
    with pytest.raises(InputError, match="holds no autoencoder"):
        equivae.load_vae(tmp_path, subfolder="text_encoder")


def test_options_reach_diffusers(tmp_path):
    tiny_kl().save_pretrained(tmp_path)
    loaded = equivae.load_vae(tmp_path, torch_dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


def test_load_the_embedded_vae():
    loaded = equivae.load_vae("embedded")
    assert isinstance(loaded, AutoencoderKL)
    assert not loaded.training
    assert equivae.Autoencoder(loaded).factor == 4
    assert same_weights(loaded, equivae.zoo.load())


def test_a_folder_without_an_autoencoder(tmp_path):
    with pytest.raises(InputError, match=r"neither config\.json nor vae/config\.json"):
        equivae.load_vae(tmp_path)


@pytest.mark.parametrize("config", ['{"_class_name": "Nonsense"}', "{}", "no json", "[]"])
def test_a_folder_with_a_strange_config(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError):
        equivae.load_vae(tmp_path)


def test_pickled_weights_are_not_read(tmp_path):
    module = tiny_kl()
    module.save_pretrained(tmp_path, safe_serialization=False)
    assert [p.suffix for p in tmp_path.iterdir() if p.suffix != ".json"] == [".bin"]
    with pytest.raises(InputError, match="no autoencoder could be loaded from folder"):
        equivae.load_vae(tmp_path)


@pytest.mark.parametrize("name", ["nowhere/at-all", "/nowhere/at/all"])
def test_a_missing_folder(name):
    with pytest.raises(InputError, match="no autoencoder could be loaded from"):
        equivae.load_vae(name)


def test_single_files(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        equivae.load_vae(tmp_path / "gone.safetensors")
    other = tmp_path / "weights.pt"
    other.write_bytes(b"weights")
    with pytest.raises(InputError, match=r"is no \.safetensors file"):
        equivae.load_vae(other)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"not at all")
    with pytest.raises(InputError, match="holds no autoencoder in LDM layout"):
        equivae.load_vae(torn)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(InputError, match="holds no autoencoder in LDM layout"):
        equivae.load_vae(foreign)


def test_save_a_diffusers_vae(tmp_path):
    module = tiny_kl()
    save_vae(module, tmp_path / "new" / "folder")
    names = {p.name for p in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert same_weights(
        diffusers.AutoencoderKL.from_pretrained(tmp_path / "new" / "folder"), module
    )


def test_save_any_module(tmp_path):
    module = ConvAE()
    save_vae(module, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    other = ConvAE(seed=1)
    assert not same_weights(other, module)
    other.load_state_dict(weights)
    assert same_weights(other, module)


# A real one ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_taef2_as_published(shared_data):
    from taef2 import load_taef2

    module = load_taef2(shared_data / "taef2")
    vae = equivae.Autoencoder(module)
    assert (vae.factor, vae.latent_channels) == (8, 32)
    assert len(vae.encoder_parameters()) == len(list(module.encoder.parameters()))
    assert len(vae.decoder_parameters()) == len(list(module.decoder.parameters()))
    t = equivae.get_transform("rot180")
    errors = []
    images = equivae.data.load_images(shared_data / "kodak", resolution=256)
    for i in range(len(images)):
        x = images[i][None]
        z = vae.encode(x)
        decoded = torch.cat([vae.decode(z), t.inverse.pixel(vae.decode(t.latent(z)))])
        errors.append(((decoded.clamp(-1, 1) - x) / 2).square().mean((1, 2, 3)))
    reconstruction, round_trip = torch.stack(errors).mean(0).log10().mul(-10).tolist()
    assert len(images) == 24
    assert reconstruction == pytest.approx(28.66, abs=0.01)
    assert round_trip == pytest.approx(18.44, abs=0.01)
