"""Provider files: what is wrong in one ConfigError says; what is accepted reads back the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fuzz.target import Target, must
from llm_proxy.errors import ConfigError
from llm_proxy.provider_file import builtin_text, provider_text
from llm_proxy.providers import Providers, load_providers

_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-providers-")
_FILE = Path(_FOLDER.name) / "providers.yaml"


def run(data: bytes) -> None:
    providers = _load(data)
    if providers is not None:
        written = provider_text(providers)
        must(_load(written.encode()) == providers, "written and read again it is another one")


def _load(data: bytes) -> Providers | None:
    _FILE.write_bytes(data)
    try:
        return load_providers(_FILE)[0]
    except ConfigError as exc:
        must(str(exc).startswith(str(_FILE)), f"an error without the file's name: {exc}")
        return None


TARGET = Target(
    covers=("llm_proxy.yaml_file", "llm_proxy.provider_file", "llm_proxy.provider_rules"),
    run=run,
    words=(
        *(b"apis:\n", b"default_api: ", b"base_url: ", b"https://a.b", b"http://[::1]:8", b"\n  "),
        *(b"auth: {header: A, scheme: B}", b"allowed_endpoints: [/a]", b"allowed_methods: [GET]"),
        *(b"timeouts: {connect: 1s, idle: 5m}", b"connection: {max_conns: 1}", b"!!int ", b"&a "),
        *(b"retry: {attempts: 1}", b"circuit_breaker: {failures: 1, cooldown: 1s}", b"*a", b"<<: "),
        *(b"param_whitelist: {model: [a]}", b"allowed_origins: ['http://a']", b"ca_file: /a", b"~"),
        *(b"require_origin: true", b"required_headers: [origin]", b"? ", b"- ", b"|\n", b"---\n"),
    ),
    seeds=(
        builtin_text().encode()[:1500],
        b"apis:\n  a:\n    base_url: https://a.b/c\n    allowed_endpoints: [/v1/x, '/v1/y/*']\n"
        b"    allowed_methods: [GET, POST]\n    timeouts: {connect: 5s, idle: 300s}\n"
        b"    connection: {max_conns: 3, idle_timeout: 90s}\n    retry: {attempts: 2}\n"
        b"    param_whitelist: {model: ['gpt-4*', o1]}\n    allowed_origins: ['http://a']\n",
        b"default_api: a\napis:\n  a: &a\n    base_url: http://127.0.0.1:8\n"
        b"    allowed_endpoints: ['/*']\n    allowed_methods: [GET]\n  b: *a\n",
        b"apis: {a: {base_url: !!int 5, auth: {scheme: ''}}}",
    ),
)
