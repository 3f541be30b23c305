"""Uploading a finished run, to a repository that is made before training begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub
from huggingface_hub.errors import LocalTokenNotFoundError

from equivae.errors import InputError, UploadError, first_line
from equivae.files.provenance import OPERATORS
from equivae.files.writing import hide_secrets
from equivae.secrets import register_secret

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["HubRepo", "files_to_upload", "open_repo"]

_SUFFIXES = frozenset({".html", ".json", ".md", ".png", ".safetensors"})


@dataclass(frozen=True)
class HubRepo:
    """A repository that is there and may be written to."""

    repo_id: str
    api: HfApi

    def upload(self, folder: Path) -> None:
        """Upload VAE, card, report and figures; no checkpoints, caches and logs.

        Raises `UploadError`, since what was trained is safe on the disk.
        """
        files = files_to_upload(folder)
        for name in files:
            hide_secrets(folder / name)
        try:
            self.api.upload_folder(
                repo_id=self.repo_id,
                folder_path=folder,
                allow_patterns=files,
                commit_message="Fine-tuned with equivae",
            )
        except Exception as error:
            raise UploadError(
                f"the run is saved in {folder}, but could not be uploaded to {self.repo_id}: "
                f"{first_line(error)}. Upload it with `hf upload {self.repo_id} {folder}` "
                "--exclude 'checkpoint-*' 'logs/*' '*.npy'."
            ) from error


def open_repo(name: str, *, token: str | None = None, private: bool = False) -> HubRepo:
    """The repository of that name, made if it is not there.

    Raises `InputError` when the token is missing or not accepted, or the repository cannot be made.
    """
    if token is not None:
        register_secret(token)
    api = huggingface_hub.HfApi(token=token)
    try:
        api.whoami()
    except LocalTokenNotFoundError as error:
        raise InputError(
            "push_to_hub=True needs a token: run `hf auth login`, or pass hub_token."
        ) from error
    except Exception as error:
        raise InputError(
            f"push_to_hub=True needs a token that the hub accepts: {first_line(error)}. Log in with "
            "`hf auth login`, or pass hub_token."
        ) from error
    try:
        made = api.create_repo(name, private=private, exist_ok=True)
    except Exception as error:
        raise InputError(
            f"the hub does not give the repository {name!r}: {first_line(error)}. Pass a hub_model_id that "
            "your token may write to."
        ) from error
    return HubRepo(made.repo_id, api)


def files_to_upload(folder: Path) -> list[str]:
    """The files of a finished run that others need, relative to its folder."""
    top = [p for p in folder.iterdir() if p.is_file()]
    inside = [p for p in (folder / OPERATORS).rglob("*") if p.is_file()]
    return sorted(
        p.relative_to(folder).as_posix()
        for p in (*top, *inside)
        if p.suffix in _SUFFIXES and not p.name.startswith(".")
    )
