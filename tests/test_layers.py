"""Who may import whom: read from the sources, so that an import inside a function counts too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "llm_proxy"

# The module path after `llm_proxy.`, and what nothing under it may import.
FORBIDDEN = {
    "": ["cli"],
    "server": ["chat", "manage", "dispatcher", "benchmark"],
    "manage": ["chat", "server", "dispatcher", "benchmark", "store"],
    "dispatcher": ["chat", "server", "manage", "benchmark"],
    "benchmark": ["chat", "server", "manage", "dispatcher", "store"],
    "chat": ["server", "manage", "dispatcher", "benchmark", "store", "events", "http1"],
    "store": ["chat", "server", "manage", "dispatcher", "benchmark", "http1"],
    "events": ["chat", "server", "manage", "dispatcher", "benchmark", "store"],
    "http1": ["chat", "server", "manage", "dispatcher", "benchmark", "store", "events"],
    "server.gateway": ["server.control", "store"],
    "server.control": ["server.gateway"],
}
FORBIDDEN_LIBRARIES = {
    "server.gateway": {"starlette", "hypercorn", "peewee", "httpx", "rich", "typer"},
    "http1": {"starlette", "hypercorn", "peewee", "httpx", "rich", "typer"},
    "store": {"starlette", "hypercorn", "httpx", "rich", "typer"},
    "server.control": {"peewee", "httpx", "rich", "typer"},
    "chat": {"starlette", "hypercorn", "peewee", "typer"},
    "dispatcher": {"starlette", "hypercorn", "peewee", "rich"},
}
# Of everything outside: these libraries stay where they are named.
AT_HOME_IN = {
    "peewee": ("store",),
    "starlette": ("server.control",),
    "prometheus_client": ("server.control",),
    "redis": ("server.fleet",),
    "typer": ("cli",),
    "prompt_toolkit": ("chat.line_editor",),
    "markdown_it": ("chat.blocks",),
    "pygments": ("chat.markdown",),
    "yaml": ("yaml_file", "provider_file", "cli"),
    "dotenv": ("env_file",),
}
# Above everything: it may be imported by the package's own entry point only.
ENTRY = {"__main__"}
NEVER = {"click", "pickle", "requests"}


@cache
def _modules() -> list[tuple[str, Path]]:
    return [
        (
            ".".join(p for p in path.relative_to(SOURCE).with_suffix("").parts if p != "__init__"),
            path,
        )
        for path in sorted(SOURCE.rglob("*.py"))
    ]


@cache
def _imports(path: Path) -> frozenset[str]:
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    """Absolute names; `from a import b` counts as a and as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_within(name: str, package: str) -> bool:
    return not package or name == package or name.startswith(package + ".")


def _ours(path: Path) -> set[str]:
    return {
        name.removeprefix("llm_proxy.") for name in _imports(path) if name.startswith("llm_proxy.")
    }


def _libraries(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in _imports(path)}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in _modules()
        if _is_within(module, package) and not _is_within(module, "cli") and module not in ENTRY
        for name in _ours(path)
        if any(_is_within(name, other) for other in FORBIDDEN[package])
    ]
    assert wrong == []


@pytest.mark.parametrize("package", FORBIDDEN_LIBRARIES)
def test_package_keeps_out_libraries_that_are_not_for_it(package: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in _modules()
        if _is_within(module, package)
        for name in _libraries(path) & FORBIDDEN_LIBRARIES[package]
    ]
    assert wrong == []


@pytest.mark.parametrize("library", AT_HOME_IN)
def test_library_stays_where_it_belongs(library: str) -> None:
    wrong = [
        module
        for module, path in _modules()
        if library in _libraries(path)
        and not any(_is_within(module, package) for package in AT_HOME_IN[library])
    ]
    assert wrong == []


def test_some_libraries_are_never_imported() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in _modules()
        for name in _libraries(path) & NEVER
    ]
    assert wrong == []


def test_gateway_and_control_plane_meet_in_the_channel_only() -> None:
    """Of their own parent, both may import nothing but `channel`, and the gateway its ledger."""
    wrong = [
        f"{module} imports {name}"
        for module, path in _modules()
        for package in ("server.gateway", "server.control")
        if _is_within(module, package)
        for name in _ours(path)
        if _is_within(name, "server")
        and not _is_within(name, package)
        and not _is_within(name, "server.channel")
        and not (package == "server.gateway" and _is_within(name, "server.ledger"))
        and name != "server"
    ]
    assert wrong == []


def test_gateway_is_used_by_the_worker_alone() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in _modules()
        if not _is_within(module, "server.gateway") and module != "server.worker"
        for name in _ours(path)
        if _is_within(name, "server.gateway")
    ]
    assert wrong == []


def test_chat_draws_in_few_places_only() -> None:
    """The client and the conversation could serve another face."""
    faces = {"live_lines", "markdown", "markdown_view", "terminal_screen"}
    wrong = [
        module
        for module, path in _modules()
        if _is_within(module, "chat")
        and "rich" in _libraries(path)
        and module.removeprefix("chat.") not in faces
    ]
    assert wrong == []


def test_command_modules_start_light() -> None:
    """At their top level: the standard library, typer and the light modules of our own."""
    light = {"llm_proxy.settings", "llm_proxy.setting", "llm_proxy.errors", "llm_proxy.cli"}
    banned = {"rich", "httpx", "starlette", "hypercorn", "peewee", "msgspec", "uvloop", "yaml"}
    banned |= {"prompt_toolkit", "markdown_it"}
    wrong = []
    for module, path in _modules():
        if not _is_within(module, "cli"):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                name = node.module
                is_ours = name.startswith("llm_proxy.")
                if (is_ours and not any(_is_within(name, one) for one in light)) or (
                    name.partition(".")[0] in banned
                ):
                    wrong.append(f"{module} imports {name}")
            elif isinstance(node, ast.Import):
                wrong += [f"{module} imports {a.name}" for a in node.names if a.name in banned]
    assert wrong == []
