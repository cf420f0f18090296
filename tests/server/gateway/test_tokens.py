from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.errors import Refusal, StoreError
from llm_proxy.grants import TokenGrant
from llm_proxy.secrets import Secret, new_token, token_digest
from llm_proxy.server.gateway.tokens import (
    MAX_LOADING,
    MISSES_PER_ADDRESS,
    KnownToken,
    Tokens,
    TokenUsage,
    check_grant,
    check_quota,
)

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, MemoryGrants

pytestmark = pytest.mark.anyio

TOKEN = b"the token"
DIGEST = token_digest(TOKEN)
ADDRESS = "192.0.2.1"


@pytest.fixture
def source(new_grants: type[MemoryGrants]) -> MemoryGrants:
    source = new_grants()
    source.add(TOKEN)
    return source


async def load(
    tokens: Tokens, digest: bytes = DIGEST, address: str = ADDRESS
) -> KnownToken | Refusal:
    outcome: asyncio.Future[KnownToken | Refusal] = asyncio.get_running_loop().create_future()
    tokens.load(digest, address, outcome.set_result)
    async with asyncio.timeout(5):
        return await outcome


async def admit(tokens: Tokens, digest: bytes = DIGEST, now: float = 1.0) -> bool:
    """What an exchange does; whether it was let through."""
    while (token := tokens.find(digest)) is None:
        outcome = await load(tokens, digest)
        assert isinstance(outcome, KnownToken)
    try:
        check_quota(token)
    except Refusal as refusal:
        assert refusal.code == "token_quota_exhausted"
        return False
    tokens.charge(token, now)
    return True


async def test_token_is_loaded_once_and_then_known(source: MemoryGrants) -> None:
    tokens = Tokens(source)
    assert tokens.find(DIGEST) is None
    outcomes = await asyncio.gather(*(load(tokens) for _ in range(10)))
    assert source.loads == [DIGEST]  # concurrent requests share the look-up
    token = tokens.find(DIGEST)
    assert isinstance(token, KnownToken)
    assert tokens.known_count == 1
    assert all(outcome is token for outcome in outcomes)


async def test_unknown_token_is_remembered_as_such(source: MemoryGrants) -> None:
    tokens = Tokens(source)
    digest = token_digest(b"no token")
    for _ in range(3):
        outcome = await load(tokens, digest)
        assert isinstance(outcome, Refusal)
        assert outcome.code == "invalid_token"
    assert source.loads == [digest]
    source.add(b"no token")
    tokens.invalidate("token", "token-2")  # it was created
    assert isinstance(await load(tokens, digest), KnownToken)


async def test_client_that_left_is_not_called(source: MemoryGrants) -> None:
    tokens = Tokens(source)
    calls: list[object] = []
    tokens.load(DIGEST, ADDRESS, calls.append)
    tokens.load(DIGEST, ADDRESS, lambda outcome: calls.append("stays"))
    tokens.forget(DIGEST, calls.append)
    tokens.forget(DIGEST, calls.append)
    tokens.forget(token_digest(b"other"), calls.append)
    await load(tokens)
    assert calls == ["stays"]


async def test_guesses_of_one_address_have_a_budget(source: MemoryGrants) -> None:
    tokens = Tokens(source)
    codes = []
    for number in range(2 * MISSES_PER_ADDRESS):
        outcome = await load(tokens, token_digest(b"guess %d" % number))
        assert isinstance(outcome, Refusal)
        codes.append(outcome.code)
        if outcome.code == "rate_limited":
            assert outcome.headers == {"Retry-After": "1"}
            break
    # A new second may begin meanwhile, and with it a new budget.
    assert codes[:MISSES_PER_ADDRESS] == ["invalid_token"] * MISSES_PER_ADDRESS
    assert codes[-1] == "rate_limited"
    assert isinstance(await load(tokens, address="192.0.2.2"), KnownToken)


async def test_look_ups_of_all_clients_have_a_limit(source: MemoryGrants) -> None:
    tokens = Tokens(source)
    source.may_load.clear()
    outcomes: list[KnownToken | Refusal] = []
    for number in range(MAX_LOADING):
        tokens.load(token_digest(b"%d" % number), f"192.0.2.{number}", outcomes.append)
    refused = await load(tokens)
    assert isinstance(refused, Refusal)
    assert refused.code == "rate_limited"
    source.may_load.set()
    await tokens.close()
    assert len(outcomes) == MAX_LOADING
    assert isinstance(await load(tokens), KnownToken)


async def test_change_during_a_look_up_makes_it_look_again(source: MemoryGrants) -> None:
    tokens = Tokens(source)
    source.may_load.clear()
    loading = asyncio.create_task(load(tokens))
    await source.is_asked.wait()  # the grant has been read, but is not here yet
    source.grants[DIGEST] = dataclasses.replace(source.grants[DIGEST], is_active=False)
    tokens.invalidate("token", "token-1")
    source.may_load.set()
    outcome = await loading
    assert isinstance(outcome, KnownToken)
    assert not outcome.grant.is_active
    assert source.loads == [DIGEST, DIGEST]


@pytest.mark.parametrize(
    ("kind", "identity", "is_forgotten"),
    [
        ("token", "token-1", True),
        ("project", "project-1", True),
        ("token", "project-1", False),
        ("project", "token-1", False),
        ("token", "token-2", False),
    ],
)
async def test_change_forgets_what_it_is_about(
    source: MemoryGrants, kind: str, identity: str, is_forgotten: bool
) -> None:
    tokens = Tokens(source)
    await load(tokens)
    tokens.invalidate(kind, identity)
    assert (tokens.find(DIGEST) is None) is is_forgotten


async def test_failure_of_the_store_is_told_and_not_remembered(
    source: MemoryGrants, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(source)
    source.failure = StoreError("locked")
    outcome = await load(tokens)
    assert isinstance(outcome, Refusal)
    assert (outcome.code, outcome.headers) == ("store_unavailable", {"Retry-After": "1"})
    assert "a token could not be looked up: locked" in caplog.text
    source.failure = None
    assert isinstance(await load(tokens), KnownToken)


async def test_use_is_recorded_once(source: MemoryGrants) -> None:
    tokens = Tokens(source)
    for now in (1.0, 2.0, 3.0):
        await admit(tokens, now=now)
    await tokens.record_usage()
    await tokens.record_usage()
    assert [(use.token_id, use.requests, use.last_used_at) for use in source.uses] == [
        ("token-1", 3, 3.0)
    ]
    await admit(tokens, now=4.0)
    await tokens.record_usage()
    assert [use.requests for use in source.uses] == [3, 1]


async def test_use_that_could_not_be_recorded_is_kept(source: MemoryGrants) -> None:
    tokens = Tokens(source)
    await admit(tokens)
    source.failure = StoreError("locked")
    with pytest.raises(StoreError):
        await tokens.record_usage()
    await admit(tokens)
    source.failure = None
    await tokens.record_usage()
    assert [use.requests for use in source.uses] == [2]


async def test_use_while_it_is_recorded_is_recorded_next(source: MemoryGrants) -> None:
    tokens = Tokens(source)
    await admit(tokens)
    source.may_record.clear()
    source.is_asked.clear()
    recording = asyncio.create_task(tokens.record_usage())
    await source.is_asked.wait()
    await admit(tokens)
    source.may_record.set()
    await recording
    await tokens.record_usage()
    assert [use.requests for use in source.uses] == [1, 1]


async def test_end_waits_for_look_ups_so_that_no_use_is_recorded_twice(
    source: MemoryGrants,
) -> None:
    tokens = Tokens(source)
    await admit(tokens)
    source.add(b"other")
    source.may_record.clear()
    source.is_asked.clear()
    loading = asyncio.create_task(load(tokens, token_digest(b"other")))  # records first
    await source.is_asked.wait()
    closing = asyncio.create_task(tokens.close())
    await asyncio.sleep(0)
    source.may_record.set()
    await closing
    await tokens.record_usage()
    assert [use.requests for use in source.uses] == [1]
    assert isinstance(await loading, KnownToken)


async def test_cap_holds_for_the_old_and_the_new_secret_together(source: MemoryGrants) -> None:
    """After a rotation with grace both digests are of one token."""
    grant = source.add(TOKEN, max_requests=4)
    new = token_digest(b"rotated")
    source.grants[new] = grant
    tokens = Tokens(source)
    admitted = [await admit(tokens, digest) for digest in (DIGEST, new, DIGEST, new, DIGEST, new)]
    assert admitted == [True] * 4 + [False] * 2
    await tokens.record_usage()
    assert source.counts[grant.token_id] == 4


STEPS = st.lists(
    st.sampled_from(["old", "new", "record", "token", "project", "wait", "settle", "fail", "mend"]),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, cap=st.integers(0, 12), before=st.integers(0, 3))
async def test_cap_admits_exactly_its_number_in_any_order_of_events(
    steps: list[str], cap: int, before: int, new_grants: type[MemoryGrants]
) -> None:
    source = new_grants()
    grant = source.add(TOKEN, max_requests=cap + before, request_count=before)
    rotated = token_digest(b"rotated")
    source.grants[rotated] = grant
    tokens = Tokens(source)
    asked: list[asyncio.Task[bool]] = []
    recording: list[asyncio.Task[None]] = []
    for step in steps:
        if step in ("old", "new"):
            asked.append(asyncio.create_task(_admit_or_retry(tokens, step == "new", rotated)))
        elif step == "record":
            recording.append(asyncio.create_task(_record(tokens)))
        elif step == "wait":
            await asyncio.sleep(0)
        elif step == "settle":
            source.failure = None
            await asyncio.gather(*asked, *recording)
        elif step in ("fail", "mend"):
            source.failure = StoreError("locked") if step == "fail" else None
        else:
            tokens.invalidate(step, grant.token_id if step == "token" else grant.project_id)
    source.failure = None
    admitted = sum(await asyncio.gather(*asked))
    await asyncio.gather(*recording)
    assert admitted == min(cap, len(asked))
    for digest in (rotated, DIGEST, rotated):
        while await admit(tokens, digest):
            admitted += 1
    assert admitted == cap
    await tokens.record_usage()
    assert source.counts[grant.token_id] == cap


async def _admit_or_retry(tokens: Tokens, is_new: bool, rotated: bytes) -> bool:
    while True:
        try:
            return await admit(tokens, rotated if is_new else DIGEST)
        except AssertionError:  # the store had failed
            await asyncio.sleep(0)


async def _record(tokens: Tokens) -> None:
    try:
        await tokens.record_usage()
    except StoreError as exc:
        assert str(exc) == "locked"


async def test_cap_admits_exactly_its_number_of_50_at_once(gate: Gate) -> None:
    token = gate.new_token(max_requests=7, request_count=2)

    async def serve() -> None:
        while True:
            peer = await gate.openai.accept()
            await peer.request()
            await peer.answer()

    serving = asyncio.create_task(serve())
    clients = [await gate.connect() for _ in range(50)]
    for client in clients:
        client.writer.write(gate.request(b"Connection: close", body=b"{}", token=token))
    responses = await asyncio.gather(*(client.response() for client in clients))
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert sorted(response.status for response in responses) == [200] * 5 + [429] * 45
    await gate.tokens.record_usage()
    assert [use.requests for use in gate.grants.uses] == [5]


def grant(**changes: object) -> TokenGrant:
    base = TokenGrant(
        token_id="t",
        project_id="p",
        is_active=True,
        project_is_active=True,
        expires_at=None,
        max_requests=None,
        request_count=0,
        upstream_keys={"openai": Secret("sk-1")},
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"is_active": False, "expires_at": 5.0, "project_is_active": False}, "token_revoked"),
        ({"expires_at": 10.0, "project_is_active": False}, "token_expired"),
        ({"expires_at": 10.1, "project_is_active": False}, "project_inactive"),
    ],
)
async def test_faults_of_a_grant_are_refused_in_order(
    changes: dict[str, object], code: str
) -> None:
    with pytest.raises(Refusal) as caught:
        check_grant(KnownToken(grant(**changes), TokenUsage()), 10.0)
    assert caught.value.code == code


async def test_good_grant_passes() -> None:
    check_grant(KnownToken(grant(expires_at=10.1), TokenUsage()), 10.0)


async def test_credential_line_is_that_of_the_api(gate: Gate) -> None:
    openai, anthropic, _ = gate.upstreams
    token = KnownToken(grant(), TokenUsage())
    credential = token.add_credential(openai)
    assert credential.line == b"\nAuthorization: Bearer sk-1\r"
    assert token.credentials["openai"] is credential
    with pytest.raises(Refusal) as caught:
        token.add_credential(anthropic)
    assert caught.value.code == "no_upstream_key"


async def test_project_without_the_key_of_an_api_is_refused_there_only(gate: Gate) -> None:
    token = gate.new_token(upstream_keys={"anthropic": Secret("sk-ant")})
    assert (await gate.ask(gate.request(body=b"{}", token=token))).code == "no_upstream_key"
    client = await gate.connect()
    await client.send(gate.request(target=b"/anthropic/v1/messages", body=b"{}", token=token))
    assert b"x-api-key: sk-ant\r\n" in await (await gate.anthropic.accept()).request()


async def test_random_string_is_refused_without_a_look_up(gate: Gate) -> None:
    wrong = new_token().reveal().encode()[:-1] + b"\x00"
    for token in (b"sk-1", b"\xff" * 35, wrong.replace(b"\x00", b"!")):
        response = await gate.ask(gate.request(body=b"{}", token=token))
        assert (response.status, response.code) == (401, "invalid_token")
    assert not gate.grants.loads


async def test_revoked_token_is_refused_on_a_kept_connection(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.answer()
    assert (await client.response()).status == 200
    gate.grants.add(gate.token, token_id="token-1", is_active=False)
    gate.tokens.invalidate("token", "token-1")
    await client.send(gate.request(body=b"{}"))
    assert (await client.response()).code == "token_revoked"
