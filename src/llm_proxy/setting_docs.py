"""What is written about settings: the shipped env file and the table of the documentation."""

from __future__ import annotations

import textwrap

from llm_proxy.setting import SETTINGS, Setting


def env_example() -> str:
    """`.env.example`: every setting with its default; those without one are commented out."""
    head = (
        "# Every setting of llm-proxy with its default. Copy what you change into llm-proxy.env\n"
        "# in the home folder (`llm-proxy config show` names it), or pass a file with --env.\n"
    )
    return head + "".join(f"\n{_example(setting)}\n" for setting in SETTINGS)


def _example(setting: Setting) -> str:
    lines = textwrap.wrap(setting.doc, 98, initial_indent="# ", subsequent_indent="# ")
    assignment = f"{setting.env}={setting.default or ''}"
    return "\n".join([*lines, assignment if setting.default else f"# {assignment}"])


def settings_table() -> str:
    """In Markdown, a row for each setting."""
    rows = [
        f"| `{setting.env}` | {_flag(setting)} | {_default(setting)} | {_escaped(setting.doc)} |"
        for setting in SETTINGS
    ]
    return "\n".join(["| setting | flag | default | meaning |", "|---|---|---|---|", *rows, ""])


def _flag(setting: Setting) -> str:
    return f"`{setting.flag}`" if setting.flag else ""


def _default(setting: Setting) -> str:
    if setting.home_file:
        return f"`{setting.home_file}` in the home folder"
    return f"`{setting.default}`" if setting.default else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
