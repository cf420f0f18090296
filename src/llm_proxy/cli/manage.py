"""`llm-proxy manage`: projects and tokens of a server, here or elsewhere."""

from __future__ import annotations

import typer

from llm_proxy.cli import manage_audit, manage_project, manage_token

app = typer.Typer(
    help="Manage the projects, tokens and audit log of a running server, here or elsewhere.",
    no_args_is_help=True,
)
app.add_typer(manage_project.app, name="project")
app.add_typer(manage_token.app, name="token")
app.add_typer(manage_audit.app, name="audit")
