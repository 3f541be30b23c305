"""Latent ops by their names on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

import equivae
from cache_files import an_op
from equivae.errors import InputError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the hub: `hub / "user/repo"` is what is downloaded of that repository."""

    def download(repo: str, allow_patterns: list[str]) -> str:
        assert allow_patterns == ["latent_op.*", "*/latent_op.*"]  # safetensors and JSON, no code
        if not (tmp_path / repo).is_dir():
            raise OSError(f"404 Client Error for {repo}\nmore of it")
        return str(tmp_path / repo)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return tmp_path


def same(found: Any) -> bool:
    z = torch.randn(1, 4, 5, 5)
    return bool(torch.allclose(found.latent(z), an_op().latent(z)))


def test_an_op_at_the_root_and_one_below_operators(hub: Path) -> None:
    an_op().save(hub / "user" / "repo")
    assert same(equivae.load_latent_op("user/repo"))
    an_op().save(hub / "user" / "vae" / "operators" / "hflip_fitted")
    assert same(equivae.load_latent_op("user/vae"))
    assert same(equivae.load_latent_op("user/vae/operators/hflip_fitted"))
    assert same(equivae.caches.LatentAugment("user/vae", p=1.0).op.transform)


def test_a_folder_here_comes_first(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    an_op().save(hub / "user" / "repo")
    monkeypatch.delattr(huggingface_hub, "snapshot_download")
    assert same(equivae.load_latent_op("user/repo"))


def test_what_the_hub_does_not_give(hub: Path) -> None:
    (hub / "user" / "empty").mkdir(parents=True)
    for name in ("a", "b"):
        an_op().save(hub / "user" / "two" / "operators" / name)
    for name, match in (
        ("user/none", "does not give user/none: 404 Client Error for user/none. Check"),
        ("user/empty", "holds no latent op"),
        ("user/two", "several latent ops; pass one of user/two/operators/a, user/two/operators/b"),
        ("no-such-folder", "holds no latent op"),
        ("../user/two", "holds no latent op"),
    ):
        with pytest.raises(InputError, match=match):
            equivae.load_latent_op(name)
