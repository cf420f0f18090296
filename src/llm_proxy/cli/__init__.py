"""The command line: one module for each group of commands."""

from llm_proxy.cli.main import main

__all__ = ["main"]
