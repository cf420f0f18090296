"""Shell completion: the scripts that `_LLM_PROXY_COMPLETE=source_zsh llm-proxy` prints."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping

import typer

VARIABLE = "_LLM_PROXY_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
_ZSH_END = "compdef _llm_proxy_completion llm-proxy\n"
_ZSH_END_FOR_BOTH = """\
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _llm_proxy_completion "$@"  # from fpath: this first call has to complete already
else
  compdef _llm_proxy_completion llm-proxy
fi
"""


def wanted_shell(environ: Mapping[str, str]) -> str | None:
    """The shell whose script is asked for."""
    shell = environ.get(VARIABLE, "").removeprefix("source_")
    return shell if environ.get(VARIABLE) == f"source_{shell}" and shell in SHELLS else None


def completion_script(app: typer.Typer, shell: str) -> str:
    """Typer's script, able to be a file: zsh wants #compdef first, and completes when it loads it.

    `_LLM_PROXY_COMPLETE` must be set.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        app(args=[], prog_name="llm-proxy")
    script = printed.getvalue().strip() + "\n"
    return script.replace(_ZSH_END, _ZSH_END_FOR_BOTH) if shell == "zsh" else script
