"""The command line: the API's words as commands and options."""

from equivae.cli.program import app, main

__all__ = ["app", "main"]
