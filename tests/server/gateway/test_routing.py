from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import Refusal
from llm_proxy.http1.timers import Timers
from llm_proxy.providers import Api
from llm_proxy.server.gateway.api import build_control, build_upstream
from llm_proxy.server.gateway.routing import Router

pytestmark = pytest.mark.anyio


def router(*, management_is_public: bool = True, metrics_path: str | None = None) -> Router:
    timers = Timers(asyncio.get_running_loop())
    upstreams = {
        name: build_upstream(
            Api(
                name=name,
                base_url=f"http://{name}.test/base",
                allowed_endpoints=(endpoint, "/v1/models"),
                allowed_methods=("POST",),
            ),
            timers,
            max_body=1,
        )
        for name, endpoint in (("openai", "/v1/chat"), ("anthropic", "/v1/messages"))
    }
    return Router(
        upstreams,
        default="openai",
        control=build_control("/run/control", timers),
        management_is_public=management_is_public,
        metrics_path=metrics_path,
    )


@pytest.mark.parametrize(
    ("target", "api", "endpoint", "query", "allowed"),
    [
        (b"/v1/chat", "openai", b"/v1/chat", b"", True),
        (b"/v1/chat?", "openai", b"/v1/chat", b"?", True),
        (b"/v1/chat?a=/../x", "openai", b"/v1/chat", b"?a=/../x", True),
        (b"/openai/v1/chat", "openai", b"/v1/chat", b"", True),
        (b"/anthropic/v1/messages?b", "anthropic", b"/v1/messages", b"?b", True),
        (b"/anthropic", "anthropic", b"/", b"", False),
        (b"/anthropic/", "anthropic", b"/", b"", False),
        (b"/anthropic?x", "anthropic", b"/", b"?x", False),
        (b"/anthropic2/v1/messages", "openai", b"/anthropic2/v1/messages", b"", False),
        (b"/Anthropic/v1/messages", "openai", b"/Anthropic/v1/messages", b"", False),
        (b"/anthropic/openai/v1/chat", "anthropic", b"/openai/v1/chat", b"", False),
        (b"/anthropic/manage", "anthropic", b"/manage", b"", False),
        (b"/", "openai", b"/", b"", False),
        (b"/v1/chat/", "openai", b"/v1/chat/", b"", False),
        (b"http://x/v1/chat?q", "openai", b"/v1/chat", b"?q", True),
    ],
)
async def test_target_finds_its_api(
    target: bytes, api: str, endpoint: bytes, query: bytes, allowed: bool
) -> None:
    routes = router()
    for _ in range(2):  # the second time it is remembered
        route, rest = routes.route(target)
        assert (route.upstream.name, route.endpoint, rest) == (api, endpoint, query)
        assert route.is_allowed is allowed
        assert route.upstream_path == b"/base" + endpoint


async def test_hint_names_the_api_that_allows_the_endpoint() -> None:
    routes = router()
    route, _ = routes.route(b"/v1/messages")
    assert routes.hint(route) == "Did you mean /anthropic/v1/messages?"
    route, _ = routes.route(b"/anthropic/v1/chat")
    assert routes.hint(route) == "Did you mean /openai/v1/chat?"
    route, _ = routes.route(b"/v1/nothing")
    assert "allowed_endpoints" in routes.hint(route)


async def test_more_paths_than_are_remembered_still_find_their_way() -> None:
    upstream = build_upstream(
        Api(
            name="all",
            base_url="http://a.test",
            allowed_endpoints=("/*",),
            allowed_methods=("GET",),
        ),
        Timers(asyncio.get_running_loop()),
        max_body=1,
    )
    routes = Router({"all": upstream}, default="all", control=upstream, management_is_public=True)
    for number in range(10_000):
        path = b"/%d" % number
        assert routes.route(path)[0].endpoint == path
    assert routes.route(b"/0")[0].endpoint == b"/0"


@pytest.mark.parametrize("path", [b"/manage", b"/manage/x", b"/admin", b"/metrics", b"/metrics/"])
async def test_management_has_its_paths(path: bytes) -> None:
    assert router().route(path)[0].upstream.is_control
    with pytest.raises(Refusal) as caught:
        router(management_is_public=False).route(path)
    assert caught.value.code == "not_found"


@pytest.mark.parametrize("path", [b"/internal/metrics", b"/internal/metrics/prometheus"])
async def test_metrics_can_be_moved(path: bytes) -> None:
    moved = router(metrics_path="/internal/metrics")
    assert moved.route(path + b"?x=1")[0].upstream.is_control
    assert moved.route(b"/internal/metrics2")[0].upstream.name == "openai"
    assert router().route(path)[0].upstream.name == "openai"
    with pytest.raises(Refusal) as caught:
        router(management_is_public=False, metrics_path="/internal/metrics").route(path)
    assert caught.value.code == "not_found"


@given(st.text(alphabet="/.%2eEfF5cC\\a#", max_size=20))
async def test_no_path_that_a_server_could_read_as_another_gets_through(path: str) -> None:
    target = b"/" + path.encode()
    try:
        route, _ = router().route(target)
    except Refusal as refusal:
        assert refusal.code == "invalid_request"
        return
    plain = target.lower()
    for written, meant in ((b"%2e", b"."), (b"%2f", b"/"), (b"%5c", b"/"), (b"\\", b"/")):
        plain = plain.replace(written, meant)
    assert not {b".", b".."} & set(plain.split(b"/"))
    assert not target.startswith(b"//")
    assert route.endpoint == target
