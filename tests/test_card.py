"""What a fine-tune leaves for others: the card, the scaling in the config, the padding, the upload."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from diffusers import AutoencoderKL
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects
from torch import nn

import equivae
from equivae import InputError, UploadError
from equivae.files.hub import files_to_upload
from equivae.reporting.card import base_model_of, torch_expression
from equivae.reporting.report import Report
from models import ConvAE, noise, tiny_kl
from tiny_pipeline import save_tiny_pipeline

IMAGES = equivae.data.dead_leaves(12, size=16, seed=3)
SHORT = {"train_batch_size": 2, "max_train_steps": 2, "learning_rate": 1e-3, "progress": False}


def finetune(folder: Path, vae: Any = None, transforms: Any = "rot180", **options: Any) -> Any:
    vae = tiny_kl() if vae is None else vae
    return equivae.finetune(vae, IMAGES, transforms, folder, **{**SHORT, **options})


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    head, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return yaml.safe_load(head), body


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing takes most of a short run."""
    if "made" not in request.fixturenames and "hub" not in request.fixturenames:
        monkeypatch.setattr(Report, "figures", lambda self: {})


# The card ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "my-vae"
    finetune(folder, transforms=["rot180", "rot90", "shift"], license="mit")
    return folder


def test_the_card_reads_as_the_hub_reads_it(made: Path) -> None:
    card = ModelCard.load(made / "README.md")
    assert card.data.library_name == "diffusers"
    assert card.data.license == "mit"
    assert {"vae", "equivariance"} <= set(card.data.tags)
    assert card.data.base_model is None


def test_the_card_holds_the_report(made: Path) -> None:
    body = card_of(made)[1]
    report = json.loads((made / "report.json").read_text())
    assert report["verdict"] in body
    now = report["metrics"]["transforms"]["rot180"]["round_trip_psnr"]
    then = report["before"]["transforms"]["rot180"]["round_trip_psnr"]
    assert f"| rot180: round-trip PSNR | {then:.2f} dB | {now:.2f} dB |" in body
    figures = re.findall(r"!\[.+?\]\((.+?)\)", body)
    moves = ("rot180", "rot90", "shift_y=1,x=1")
    expected = [f"{kind}_{name}.png" for kind in ("panels", "latents") for name in moves]
    assert sorted(figures) == sorted(
        ["loss.png", "overview.png", "profile.png", "spectrum.png", *expected]
    )
    assert all((made / name).exists() for name in figures)
    assert "on images not trained on" in body
    assert "| learning_rate | 0.001 |" in body
    assert str(made.parent) not in body


def test_the_use_that_it_shows_works(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", card_of(made)[1], re.DOTALL)
    monkeypatch.chdir(made.parent)
    z = noise(1, 4, 4, 6)

    class Pipeline:
        vae: nn.Module

    names: dict[str, Any] = {"pipeline": Pipeline(), "latents": z}
    exec(code, names)
    assert isinstance(names["vae"], AutoencoderKL)
    assert names["pipeline"].vae is names["vae"]
    assert names["moved"].equal(equivae.get_transform("rot90").latent(z))  # the last one shown
    card = card_of(made)[1]
    assert "equivae.transform_latents(latents, transform, vae)" in card
    assert "transform = equivae." in card


@pytest.mark.parametrize("transform", [*equivae.get_group("d4")], ids=lambda t: t.name)
def test_grid_moves_as_plain_torch(transform: equivae.Transform) -> None:
    z = noise(1, 2, 3, 5)
    code = torch_expression(transform)
    assert code is not None
    assert eval(code, {"latents": z}).equal(transform.latent(z))


def test_what_is_no_grid_move_has_no_expression() -> None:
    assert torch_expression(equivae.get_transform("signed_hflip")) is None


def test_a_frozen_encoder_keeps_diffusion_models_valid(tmp_path: Path) -> None:
    result = finetune(tmp_path, train="decoder")
    body = card_of(tmp_path)[1]
    assert "**Existing diffusion models stay valid: yes.**" in body
    assert "As the base's, and so is their scaling: `scaling_factor` 0.18215." in body
    assert result.report.settings["encoder_unchanged"] is True
    assert card_of(tmp_path)[0]["license"] == "unknown"


def test_a_moved_encoder_does_not(tmp_path: Path) -> None:
    result = finetune(tmp_path)
    assert (
        "**Existing diffusion models stay valid: no.** The encoder was fine-tuned"
        in card_of(tmp_path)[1]
    )
    assert result.report.settings["encoder_unchanged"] is False


def test_running_statistics_belong_to_the_encoder(tmp_path: Path) -> None:
    class Normalised(ConvAE):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(self.encoder, nn.BatchNorm2d(4))

    finetune(tmp_path, Normalised().train(), train="all", learning_rate=1e-12)
    body = card_of(tmp_path)[1]
    assert "stay valid: no" in body
    assert "model.safetensors" in body
    assert "library_name" not in card_of(tmp_path)[0]


def test_no_image_held_out_is_said(tmp_path: Path) -> None:
    equivae.finetune(tiny_kl(), IMAGES[:1], "rot180", tmp_path, **SHORT)
    assert "on training images" in card_of(tmp_path)[1]


@pytest.mark.filterwarnings("ignore")
def test_what_the_base_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, vae = "Disty0/SoteMix", tiny_kl()
    assert base_model_of(hub, vae).hub_name == hub
    assert base_model_of("embedded", vae).hub_name is None
    assert base_model_of(vae, vae).words == "an `AutoencoderKL`, passed in as a module"
    folder = save_tiny_pipeline(tmp_path / "secret" / "pipeline")
    local = base_model_of(str(folder), equivae.load_vae(folder))
    assert (local.hub_name, local.words) == (None, "a local model, `pipeline`")
    monkeypatch.chdir(tmp_path)
    relative = base_model_of("secret/pipeline", equivae.load_vae("secret/pipeline"))
    assert (relative.hub_name, relative.words) == (None, "a local model, `pipeline`")
    loaded = tiny_kl()
    loaded.register_to_config(_name_or_path=hub)
    assert base_model_of(loaded, loaded).hub_name == hub


# Scaling ----------------------------------------------------------------------------------------


def test_the_measured_scaling_is_in_the_config(tmp_path: Path) -> None:
    options = {"max_eval_samples": 4, "keep_best": "validation_loss", "validation_steps": 1}
    result = finetune(tmp_path, tiny_kl(shift_factor=0.5), **options)
    training = equivae.data.load_images(IMAGES).split(0.1, 0)[0].subset(range(4))
    for folder in (tmp_path / "best", tmp_path):
        saved = AutoencoderKL.from_pretrained(folder)
        found = equivae.latent_statistics(saved, training, progress=False)
        assert saved.config.scaling_factor == pytest.approx(found.scaling_factor, abs=1e-5)
        assert saved.config.shift_factor == pytest.approx(found.shift_factor, abs=1e-5)
    assert result.vae.config.scaling_factor == saved.config.scaling_factor
    body = card_of(tmp_path)[1]
    row = f"| `scaling_factor` | 0.18215 | {found.scaling_factor:.5f} | {saved.config.scaling_factor} |"
    assert row in body
    assert "| `shift_factor` | 0.5 |" in body
    assert result.report.settings["scaling_factor of the base"] == 0.18215


def test_a_shift_that_no_pipeline_of_the_family_reads_is_not_written(tmp_path: Path) -> None:
    finetune(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["shift_factor"] is None
    assert config["scaling_factor"] != 0.18215


def test_numbers_per_channel_where_the_base_has_them(tmp_path: Path) -> None:
    base = tiny_kl(scaling_factor=0.5, latents_mean=(0.0,) * 4, latents_std=(1.0,) * 4)
    finetune(tmp_path, base)
    saved = AutoencoderKL.from_pretrained(tmp_path)
    assert saved.config.scaling_factor == 0.5
    generator = torch.Generator().manual_seed(0)
    view = equivae.Autoencoder(saved)
    latents = view.encode(IMAGES, sample=True, generator=generator).detach()
    scaled = equivae.scale_latents(latents, saved) / 0.5
    assert scaled.std((0, 2, 3)).allclose(torch.ones(4), atol=0.15)
    assert scaled.mean((0, 2, 3)).allclose(torch.zeros(4), atol=0.15)


@pytest.mark.parametrize("kept", ["asked", "unscaled"])
def test_the_scaling_is_kept(tmp_path: Path, kept: str) -> None:
    asked = kept == "asked"
    finetune(
        tmp_path,
        tiny_kl() if asked else tiny_kl(scaling_factor=1.0),
        update_scaling_factor=not asked,
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["scaling_factor"] == (0.18215 if asked else 1.0)
    assert "The config holds the base's numbers" in card_of(tmp_path)[1]


# Padding ----------------------------------------------------------------------------------------


def test_a_padding_mode_is_trained_saved_and_stated(tmp_path: Path) -> None:
    result = finetune(tmp_path, train="decoder", padding_mode="reflect")
    assert equivae.get_padding_mode(result.vae) == "reflect"
    loaded = equivae.load_vae(tmp_path)
    x = noise(1, 3, 16, 16)
    with torch.no_grad():
        assert loaded(x).sample.equal(result.vae(x).sample)
        assert not AutoencoderKL.from_pretrained(tmp_path)(x).sample.equal(loaded(x).sample)
    body = card_of(tmp_path)[1]
    assert "stay valid: no.** The VAE pads by reflect, the base by zeros" in body
    assert "ignore it and pad by zeros" in body
    assert "equivae.load_vae(" in body
    assert result.report.settings["padding_mode"] == "reflect"


def test_a_padding_mode_of_the_base_stays(tmp_path: Path) -> None:
    vae = tiny_kl()
    equivae.set_padding_mode(vae, "replicate")
    result = finetune(tmp_path, vae, train="decoder")
    assert equivae.get_padding_mode(equivae.load_vae(tmp_path)) == "replicate"
    assert result.report.settings["encoder_unchanged"] is True


def test_a_resumed_run_has_to_pad_alike(tmp_path: Path) -> None:
    finetune(tmp_path, padding_mode="reflect", checkpointing_steps=1)
    with pytest.raises(InputError, match="padding_mode='reflect'"):
        finetune(tmp_path, resume_from_checkpoint="latest")
    finetune(tmp_path, padding_mode="reflect", resume_from_checkpoint="latest", license="mit")


# The hub ----------------------------------------------------------------------------------------


@dataclass
class FakeHub:
    """Stands for `HfApi`: remembers what was asked of it."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    token: Any = "unset"
    files: dict[str, bytes] = field(default_factory=dict)
    fails: str = ""

    def __call__(self, token: Any = None) -> FakeHub:
        self.token = token
        return self

    def _call(self, name: str, content: Any) -> None:
        if self.fails == name:
            raise OSError(f"{name} was refused.\nin detail")
        self.calls.append((name, content))

    def whoami(self) -> dict[str, str]:
        self._call("whoami", None)
        return {"name": "someone"}

    def create_repo(self, name: str, **options: Any) -> Any:
        self._call("create_repo", (name, options))
        return huggingface_hub.RepoUrl(
            f"https://huggingface.co/{name if '/' in name else f'someone/{name}'}"
        )

    def upload_folder(
        self, *, folder_path: Path, allow_patterns: list[str], **options: Any
    ) -> None:
        self._call("upload_folder", options)
        every = [
            p.relative_to(folder_path).as_posix() for p in folder_path.rglob("*") if p.is_file()
        ]
        for name in filter_repo_objects(every, allow_patterns=allow_patterns):
            self.files[name] = (folder_path / name).read_bytes()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    return fake


def test_the_upload(tmp_path: Path, hub: FakeHub) -> None:
    folder = tmp_path / "out"
    op = equivae.fit_latent_op(tiny_kl(), "rot180", IMAGES, kernel_size=1, progress=False)
    finetune(
        folder,
        transforms=op,
        train="decoder",
        train_operator=True,
        push_to_hub=True,
        hub_model_id="someone/eq-vae",
        hub_private=True,
        hub_token="hf_secret",
        checkpointing_steps=1,
        latent_cache_mb=0,
    )
    assert [name for name, _ in hub.calls] == ["whoami", "create_repo", "upload_folder"]
    assert hub.calls[1][1] == ("someone/eq-vae", {"private": True, "exist_ok": True})
    assert hub.token == "hf_secret"
    assert set(hub.files) == {
        *(
            "README.md",
            "config.json",
            "overview.png",
            "profile.png",
            "diffusion_pytorch_model.safetensors",
            "report.html",
            "report.json",
            "report.md",
        ),
        *("loss.png", "panels_rot180_fitted.png", "latents_rot180_fitted.png", "spectrum.png"),
        "operators/rot180_fitted/latent_op.safetensors",
    }
    there = {p.name for p in folder.iterdir()}
    assert {"checkpoint-1", "checkpoint-2"} <= there
    assert b'from_pretrained("someone/eq-vae")' in hub.files["README.md"]
    written = [p for p in folder.rglob("*") if p.is_file()]
    assert not [p for p in written if b"hf_secret" in p.read_bytes()]


def test_leftovers_logs_and_caches_stay_at_home(tmp_path: Path) -> None:
    for name in (
        *("README.md", "config.json", "a.png", "diffusion_pytorch_model.safetensors"),
        *(
            "checkpoint-2/model.safetensors",
            "logs/x.json",
            ".equivae/latents.npy",
            ".vae.partial/config.json",
        ),
        *(".README.partial.md", "operators/op/latent_op.json", "notes.txt", "events.out"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files_to_upload(tmp_path) == [
        *("README.md", "a.png", "config.json", "diffusion_pytorch_model.safetensors"),
        "operators/op/latent_op.json",
    ]


def test_the_repository_is_named_after_the_folder(tmp_path: Path, hub: FakeHub) -> None:
    finetune(tmp_path / "eq-vae", push_to_hub=True)
    assert hub.calls[1][1] == ("eq-vae", {"private": False, "exist_ok": True})
    assert b'from_pretrained("someone/eq-vae")' in hub.files["README.md"]
    assert hub.token is None


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("whoami", r"whoami was refused\. Log in with"),
        ("create_repo", "does not give the repository 'out'"),
    ],
)
def test_what_the_hub_refuses_is_known_before_training(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, fails: str, said: str
) -> None:
    hub.fails = fails
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *a, **k: pytest.fail("it trained"))
    with pytest.raises(InputError, match=said):
        finetune(tmp_path / "out", push_to_hub=True)
    assert not list((tmp_path / "out").iterdir())


def test_a_failed_upload_leaves_the_run_and_says_how_to_go_on(tmp_path: Path, hub: FakeHub) -> None:
    hub.fails = "upload_folder"
    with pytest.raises(UploadError, match="hf upload someone/out"):
        finetune(tmp_path / "out", push_to_hub=True)
    assert isinstance(equivae.load_vae(tmp_path / "out"), AutoencoderKL)
    assert (tmp_path / "out" / "README.md").exists()


def test_nothing_is_asked_of_the_hub_unasked(tmp_path: Path, hub: FakeHub) -> None:
    finetune(tmp_path / "out")
    assert hub.calls == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hub_model_id": "a/b"}, "does nothing without push_to_hub"),
        ({"hub_model_id": "a/b/c", "push_to_hub": True}, "is not the name of a repository"),
        ({"padding_mode": "reflct"}, r"padding_mode='reflct' .* 'reflect'"),
    ],
)
def test_bad_options(tmp_path: Path, hub: FakeHub, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        finetune(tmp_path / "out", **options)
    assert hub.calls == []
    assert not (tmp_path / "out").exists()


def test_the_token_is_not_shown() -> None:
    config = equivae.FinetuneConfig(hub_token="hf_secret")
    assert "hf_secret" not in repr(config)
    assert "hf_secret" not in json.dumps(config.to_dict())
