"""Uploading what was trained."""

from __future__ import annotations

import re
from dataclasses import dataclass

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from equivae.errors import InputError
from equivae.options import Options, option, quoted

__all__ = ["HubOptions"]


def _check_license(name: str, value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", value):
        raise InputError(
            f"{name}={quoted(value)} is not a licence as the hub names it; pass one such as 'mit' or "
            "'apache-2.0'."
        )


def _check_repo_id(name: str, value: str) -> None:
    try:
        validate_repo_id(value)
    except HFValidationError as error:
        raise InputError(
            f"{name}={quoted(value)} is not the name of a repository; pass one such as 'name' or "
            "'owner/name'."
        ) from error


def _check_token(name: str, value: str) -> None:
    # Nothing that JSON, HTML or a shell would write otherwise, so that it is found wherever it turns up.
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{8,2048}", value):
        raise InputError(
            f"{name} is not a token: it has at least 8 letters, digits or signs of ._~+/=- and no others."
        )


@dataclass(frozen=True)
class HubOptions(Options):
    """The repository, the licence and the token."""

    license: str | None = option(
        None,
        "Licence of the saved VAE, for its card, as the hub names it.",
        check=_check_license,
        free=True,
    )
    push_to_hub: bool = option(False, "Upload VAE, card, report and figures when done.", free=True)
    hub_model_id: str | None = option(
        None,
        "The repository; by default the output folder's name.",
        check=_check_repo_id,
        free=True,
    )
    hub_private: bool = option(False, "Make that repository a private one.", free=True)
    hub_token: str | None = option(
        None,
        "To upload with; by default the one you logged in with.",
        check=_check_token,
        secret=True,
        free=True,
    )

    def check(self) -> None:
        for name in ("hub_model_id", "hub_private"):
            value = getattr(self, name)
            if value and not self.push_to_hub:
                raise InputError(
                    f"{name}={value!r} does nothing without push_to_hub; pass both or neither."
                )
