"""How a broken law is reported."""

from __future__ import annotations

__all__ = ["Broken", "ContractError"]


class ContractError(AssertionError):
    """A transform breaks a law; the message says which, how, and on what input.

    Attributes:
        law: the name of the law, one of `LAWS`.
    """

    def __init__(self, message: str, law: str) -> None:
        super().__init__(message)
        self.law = law


class Broken(Exception):
    """How a law is broken, in words that follow the name of the law."""
