from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import ConfigError
from llm_proxy.provider_file import Overrides, builtin_text, provider_text, read_providers
from llm_proxy.providers import Api, Auth, CircuitBreaker, Connection, Providers, Retry, Timeouts

PLAIN = """
apis:
  one:
    base_url: https://one.example
    allowed_endpoints: [/v1/chat]
    allowed_methods: [POST]
"""


def _overrides(
    *, default_api: str | None = None, openai_api_url: str | None = None, timeout: float = 120.0
) -> Overrides:
    return Overrides(
        request_timeout=timeout, default_api=default_api, openai_api_url=openai_api_url
    )


def _read(
    tmp_path: Path, text: str, overrides: Overrides | None = None
) -> tuple[Providers, list[str]]:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return read_providers(path, overrides or _overrides())


def _api(tmp_path: Path, more: str = "") -> Api:
    """The api of PLAIN with `more` lines in it."""
    indented = "".join(f"    {line}\n" for line in more.splitlines())
    return _read(tmp_path, PLAIN + indented)[0].apis["one"]


def _refusal(tmp_path: Path, text: str, overrides: Overrides | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        _read(tmp_path, text, overrides)
    message = str(refused.value)
    return message.removeprefix(f"{tmp_path / 'p.yaml'}:")


def test_least_file_gets_the_documented_defaults(tmp_path: Path) -> None:
    providers, warnings = _read(tmp_path, PLAIN)
    assert warnings == []
    assert providers.default_api == "one"
    assert providers.apis["one"] == Api(
        name="one",
        base_url="https://one.example",
        allowed_endpoints=("/v1/chat",),
        allowed_methods=("POST",),
        auth=Auth(header="Authorization", scheme="Bearer"),
        timeouts=Timeouts(connect=5, response_header=120, idle=300),
        connection=Connection(max_idle_conns=100, max_conns=0, idle_timeout=90),
        retry=Retry(attempts=1),
        circuit_breaker=CircuitBreaker(failures=5, cooldown=30),
    )


def test_every_key_is_understood(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    api = _api(
        tmp_path,
        "auth: {header: x-api-key, scheme: ''}\n"
        "timeouts: {connect: 1s, response_header: 2m, idle: 500ms}\n"
        "connection: {max_idle_conns: 1, max_conns: 2, idle_timeout: 3s}\n"
        "retry: {attempts: 0}\n"
        "circuit_breaker: {failures: 9, cooldown: 1m}\n"
        "param_whitelist: {model: ['gpt-4*', o1], n: [1]}\n"
        "allowed_origins: [https://app.example]\n"
        "require_origin: true\n"
        "ca_file: ca.pem\n",
    )
    assert api.auth == Auth(header="x-api-key", scheme="")
    assert api.timeouts == Timeouts(connect=1, response_header=120, idle=0.5)
    assert api.connection == Connection(max_idle_conns=1, max_conns=2, idle_timeout=3)
    assert api.retry == Retry(attempts=0)
    assert api.circuit_breaker == CircuitBreaker(failures=9, cooldown=60)
    assert api.param_whitelist == {"model": ("gpt-4*", "o1"), "n": ("1",)}
    assert api.allowed_origins == ("https://app.example",)
    assert api.require_origin is True
    assert api.ca_file == str(tmp_path / "ca.pem")


def test_circuit_breaker_can_be_switched_off(tmp_path: Path) -> None:
    api = _api(tmp_path, "circuit_breaker: {failures: 0}\n")
    assert api.circuit_breaker == CircuitBreaker(failures=0, cooldown=30)


def test_keys_of_older_files_are_understood(tmp_path: Path) -> None:
    api = _api(
        tmp_path,
        "timeouts: {request: 10s, idle_connection: 20s}\n"
        "connection: {max_idle_conns: 50, max_idle_conns_per_host: 7}\n"
        "required_headers: [Origin]\n",
    )
    assert api.timeouts.response_header == 10
    assert api.connection == Connection(max_idle_conns=7, idle_timeout=20)
    assert api.require_origin is True


def test_newer_key_wins_over_its_older_name(tmp_path: Path) -> None:
    api = _api(
        tmp_path,
        "timeouts: {request: 10s, response_header: 30s, idle_connection: 20s}\n"
        "connection: {idle_timeout: 40s}\n",
    )
    assert api.timeouts.response_header == 30
    assert api.connection.idle_timeout == 40


def test_what_has_no_effect_is_warned_about_with_its_line(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    text = PLAIN.replace("https://one", "http://one") + (
        "    timeouts: {flush_interval: 10ms}\n    ca_file: ca.pem\n"
    )
    _, warnings = _read(tmp_path, text)
    assert [warning.removeprefix(f"{tmp_path}/p.yaml:") for warning in warnings] == [
        "4: apis.one.base_url: keys and prompts travel unencrypted over http",
        "7: apis.one.timeouts.flush_interval has no effect: flushing is always immediate",
        "8: apis.one.ca_file has no effect on an http base_url",
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("timeuots: {}", "7: apis.one.timeuots is no known key; did you mean timeouts?"),
        ("timeouts: {conect: 1s}", "7: apis.one.timeouts.conect is no known key; did you mean co"),
        ("timeouts: {connect: 5}", "7: apis.one.timeouts.connect must be a duration above zero"),
        ("timeouts: {connect: .inf}", "7: apis.one.timeouts.connect must be a duration above"),
        ("connection: {max_conns: -1}", "7: apis.one.connection.max_conns must be a whole number"),
        ("connection: {max_conns: .nan}", "7: apis.one.connection.max_conns must be a whole"),
        ("retry: {attempts: 11}", "7: apis.one.retry.attempts must be a whole number from 0 to"),
        ("retry: 1", "7: apis.one.retry must be a mapping"),
        ("auth: {header: Host}", "7: apis.one.auth.header must be a header that can carry a key"),
        ("allowed_methods: [GET]", "7: apis.one.allowed_methods is given twice, first on line 6"),
        ("param_whitelist: {model: []}", "7: apis.one.param_whitelist.model must be a list with"),
        ("require_origin: 1", "7: apis.one.require_origin must be true or false, not '1'"),
        ("required_headers: [x-a]", "7: apis.one.required_headers[0] must be origin"),
        ("ca_file: no.pem", "7: apis.one.ca_file"),
        ("allowed_origins: ['*']", "7: apis.one.allowed_origins[0] must be an origin"),
    ],
)
def test_mistake_is_named_with_its_line_and_key(tmp_path: Path, line: str, complaint: str) -> None:
    assert _refusal(tmp_path, f"{PLAIN}    {line}\n").startswith(complaint)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("    base_url: https://one.example\n", "", "3: apis.one.base_url is missing"),
        ("[/v1/chat]", "[]", "5: apis.one.allowed_endpoints must be a list with at least one"),
        ("[/v1/chat]", "/v1/chat", "5: apis.one.allowed_endpoints must be a list"),
        ("[/v1/chat]", "[/v1/chat, x]", "5: apis.one.allowed_endpoints[1] must be a path"),
        ("[POST]", "[post]", "6: apis.one.allowed_methods[0] must be a method in capital"),
        ("  one:", "  One:", "3: the api name 'One' must be"),
        ("  one:", "  manage:", "3: the api name 'manage' is taken"),
        ("  one:", "  v1:", "3: apis.v1 has the name that the path /v1/chat"),
        ("apis:", "api:", "2: api is no known key; did you mean apis?"),
        ("apis:", "default_api: x\napis:", "2: default_api must be the name of an api in this"),
    ],
)
def test_mistake_elsewhere_is_named_too(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert _refusal(tmp_path, PLAIN.replace(old, new)).startswith(complaint)


def test_file_needs_apis_and_a_choice_among_several(tmp_path: Path) -> None:
    assert "the key apis is missing" in _refusal(tmp_path, "default_api: x\n")
    assert "at least one api" in _refusal(tmp_path, "apis: {}\n")
    second = PLAIN.replace("apis:\n  one:", "  two:")
    assert "default_api is missing; set it to one of one, two" in _refusal(tmp_path, PLAIN + second)


def test_repeated_items_count_once(tmp_path: Path) -> None:
    text = PLAIN.replace("[POST]", "[POST, GET, POST]")
    assert _read(tmp_path, text)[0].apis["one"].allowed_methods == ("POST", "GET")


def test_settings_complete_the_file(tmp_path: Path) -> None:
    two = PLAIN + PLAIN.replace("\napis:\n  one:", "  openai:")
    overrides = _overrides(
        default_api="openai", openai_api_url="http://127.0.0.1:9/base", timeout=7
    )
    providers, warnings = _read(tmp_path, two, overrides)
    assert warnings == []
    assert providers.default_api == "openai"
    assert providers.apis["openai"].base_url == "http://127.0.0.1:9/base"
    assert providers.apis["one"].base_url == "https://one.example"
    assert providers.apis["one"].timeouts.response_header == 7


def test_settings_that_fit_no_api_are_pointed_out(tmp_path: Path) -> None:
    assert "DEFAULT_API_PROVIDER must name an api of" in _refusal(
        tmp_path, PLAIN, _overrides(default_api="nine")
    )
    _, warnings = _read(tmp_path, PLAIN, _overrides(openai_api_url="https://x.example"))
    assert len(warnings) == 1
    assert "OPENAI_API_URL has no effect" in warnings[0]


def test_version_at_the_end_of_a_base_url_is_not_sent_twice(tmp_path: Path) -> None:
    text = PLAIN.replace("https://one.example", "https://one.example/api/v1/")
    providers, warnings = _read(tmp_path, text)
    assert providers.apis["one"].base_url == "https://one.example/api"
    assert "its end /v1 is left out" in warnings[0]
    kept, warnings = _read(tmp_path, text.replace("[/v1/chat]", "['/*']"))
    assert kept.apis["one"].base_url == "https://one.example/api/v1"
    assert warnings == []


def test_builtin_profile_has_both_apis() -> None:
    providers, warnings = read_providers(None, _overrides())
    assert warnings == []
    assert providers.default_api == "openai"
    openai, anthropic = providers.apis["openai"], providers.apis["anthropic"]
    assert openai.base_url == "https://api.openai.com"
    assert openai.auth == Auth(header="Authorization", scheme="Bearer")
    assert {"/v1/chat/completions/*", "/v1/embeddings", "/v1/files/*"} <= {
        *openai.allowed_endpoints
    }
    assert anthropic.base_url == "https://api.anthropic.com"
    assert anthropic.auth == Auth(header="x-api-key", scheme="")
    assert {"/v1/messages", "/v1/messages/count_tokens"} <= {*anthropic.allowed_endpoints}
    assert not any("organization" in path for path in builtin_text().split() if "/v1" in path)


def test_written_providers_read_back_the_same(tmp_path: Path) -> None:
    builtin, _ = read_providers(None, _overrides())
    assert _read(tmp_path, provider_text(builtin))[0] == builtin
    api = _api(tmp_path, "circuit_breaker: {failures: 9}\nparam_whitelist: {n: [1, '[a]*']}")
    mine = Providers(default_api="one", apis={"one": api})
    assert _read(tmp_path, provider_text(mine))[0] == mine


@given(st.data())
def test_damaged_file_is_refused_in_one_sentence_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = PLAIN + "    timeouts: {connect: 1s}\n    param_whitelist: {model: [a]}\n"
    position = data.draw(st.integers(0, len(text) - 1))
    junk = data.draw(st.text("{}[]:,'\"\n\t #&*!|>-0aA/", max_size=4))
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_text(text[:position] + junk + text[position + 1 :])
    try:
        providers, _ = read_providers(path, _overrides())
        assert providers.default_api in providers.apis
    except ConfigError as refused:
        assert str(refused).startswith(str(path))
