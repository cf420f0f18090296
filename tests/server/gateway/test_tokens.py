from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from llm_proxy.errors import Refusal, StoreError
from llm_proxy.grants import TokenGrant
from llm_proxy.secrets import Secret, new_token, token_digest
from llm_proxy.server.gateway.accounts import Accounts
from llm_proxy.server.gateway.guesses import PER_ADDRESS
from llm_proxy.server.gateway.tokens import (
    MAX_ALTERED,
    MAX_LOADING,
    KnownToken,
    Tokens,
)
from tests.server.gateway.memory_leases import MemoryLedger

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, MemoryGrants, Peer

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
    async with asyncio.timeout(30):
        return await outcome


def new_tokens(source: MemoryGrants) -> Tokens:
    return Tokens(source, Accounts(source.leases, MemoryLedger()))


async def admit(tokens: Tokens, digest: bytes = DIGEST, now: float = 1.0) -> bool:
    """What an exchange does; whether it was let through."""
    while (token := tokens.find(digest)) is None:
        outcome = await load(tokens, digest)
        assert isinstance(outcome, KnownToken)
    while token.account.permits <= 0:
        answer: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        try:
            tokens.accounts.want(token.account, answer.set_result)
        except Refusal as refusal:
            assert refusal.code == "token_quota_exhausted"
            return False
        if (refused := await answer) is not None:
            assert refused.code == "token_quota_exhausted"
            return False
    tokens.accounts.spend(token.account, now)
    return True


async def test_token_is_loaded_once_and_then_known(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
    assert tokens.find(DIGEST) is None
    outcomes = await asyncio.gather(*(load(tokens) for _ in range(10)))
    assert source.loads == [DIGEST]  # concurrent requests share the look-up
    token = tokens.find(DIGEST)
    assert isinstance(token, KnownToken)
    assert tokens.known_count == 1
    assert all(outcome is token for outcome in outcomes)


async def test_unknown_token_is_remembered_as_such(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
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
    tokens = new_tokens(source)
    calls: list[object] = []
    tokens.load(DIGEST, ADDRESS, calls.append)
    tokens.load(DIGEST, ADDRESS, lambda outcome: calls.append("stays"))
    tokens.forget(DIGEST, calls.append)
    tokens.forget(DIGEST, calls.append)
    tokens.forget(token_digest(b"other"), calls.append)
    await load(tokens)
    assert calls == ["stays"]


async def test_guesses_of_one_address_have_a_budget(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
    codes = []
    for number in range(2 * PER_ADDRESS):
        outcome = await load(tokens, token_digest(b"guess %d" % number))
        assert isinstance(outcome, Refusal)
        codes.append(outcome.code)
        if outcome.code == "rate_limited":
            assert outcome.headers == {"Retry-After": "1"}
            break
    # A new second may begin meanwhile, and with it a new budget.
    assert codes[:PER_ADDRESS] == ["invalid_token"] * PER_ADDRESS
    assert codes[-1] == "rate_limited"
    assert isinstance(await load(tokens, address="192.0.2.2"), KnownToken)


async def test_token_that_was_known_is_no_guess(source: MemoryGrants) -> None:
    """Whoever shares an address with a guesser isn't locked out by each change of the token."""
    tokens = new_tokens(source)
    assert isinstance(await load(tokens), KnownToken)
    for number in range(PER_ADDRESS):
        await load(tokens, token_digest(b"guess %d" % number))
    tokens.invalidate("token", "token-1")
    assert isinstance(await load(tokens), KnownToken)
    tokens.invalidate("project", "project-1")
    assert isinstance(await load(tokens), KnownToken)


async def test_look_ups_of_all_clients_have_a_limit(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
    source.may_load.clear()
    outcomes: list[KnownToken | Refusal] = []
    for number in range(MAX_LOADING):
        tokens.load(token_digest(b"%d" % number), f"198.51.100.{number}", outcomes.append)
    refused = await load(tokens)
    assert isinstance(refused, Refusal)
    assert refused.code == "rate_limited"
    source.may_load.set()
    await tokens.close()
    assert len(outcomes) == MAX_LOADING
    assert isinstance(await load(tokens), KnownToken)


async def test_change_during_a_look_up_makes_it_look_again(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
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


@pytest.mark.parametrize(("changes", "looks"), [(1, 1), (MAX_ALTERED, 1), (MAX_ALTERED + 1, 2)])
async def test_changes_of_others_during_a_look_up_are_nothing_to_it_unless_too_many(
    source: MemoryGrants, changes: int, looks: int
) -> None:
    tokens = new_tokens(source)
    source.may_load.clear()
    loading = asyncio.create_task(load(tokens))
    await source.is_asked.wait()
    for number in range(changes):
        tokens.invalidate("token", f"other-{number}")
    source.may_load.set()
    assert isinstance(await loading, KnownToken)
    assert source.loads == looks * [DIGEST]


async def test_token_made_while_it_was_looked_up_works_at_once(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
    grant = source.grants.pop(DIGEST)
    source.may_load.clear()
    loading = asyncio.create_task(load(tokens))
    await source.is_asked.wait()
    source.grants[DIGEST] = grant
    tokens.invalidate("token", "token-1")
    source.may_load.set()
    assert isinstance(await loading, Refusal)  # it was asked for too early
    assert isinstance(await load(tokens), KnownToken)


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
    tokens = new_tokens(source)
    await load(tokens)
    tokens.invalidate(kind, identity)
    assert (tokens.find(DIGEST) is None) is is_forgotten


async def test_change_forgets_both_secrets_of_a_rotated_token(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
    other = token_digest(b"the new secret")
    source.grants[other] = source.grants[DIGEST]
    for _ in range(2):
        await load(tokens)
        await load(tokens, other)
        tokens.invalidate("token", "token-1")
        assert tokens.known_count == 0


async def test_failure_of_the_store_is_told_and_not_remembered(
    source: MemoryGrants, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = new_tokens(source)
    source.failure = StoreError("locked")
    outcome = await load(tokens)
    assert isinstance(outcome, Refusal)
    assert (outcome.code, outcome.headers) == ("store_unavailable", {"Retry-After": "1"})
    assert "a token could not be looked up: locked" in caplog.text
    source.failure = None
    assert isinstance(await load(tokens), KnownToken)


async def test_cap_holds_for_the_old_and_the_new_secret_together(source: MemoryGrants) -> None:
    """After a rotation with grace both digests are of one token."""
    grant = source.add(TOKEN, max_requests=4)
    new = token_digest(b"rotated")
    source.grants[new] = grant
    tokens = new_tokens(source)
    admitted = [await admit(tokens, digest) for digest in (DIGEST, new, DIGEST, new, DIGEST, new)]
    assert admitted == [True] * 4 + [False] * 2
    await tokens.accounts.close()
    assert source.leases.counts[grant.token_id] == 4


async def test_cap_admits_exactly_its_number_of_50_at_once(gate: Gate) -> None:
    token = gate.new_token(max_requests=7, used=2)

    async def serve(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer()

    async def accept() -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(serve(await gate.openai.accept()))

    serving = asyncio.create_task(accept())
    clients = [await gate.connect() for _ in range(50)]
    for client in clients:
        client.writer.write(gate.request(b"Connection: close", body=b"{}", token=token))
    responses = await asyncio.gather(*(client.response() for client in clients))
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert sorted(response.status for response in responses) == [200] * 5 + [429] * 45
    assert await gate.counted() == 7


def grant(**changes: object) -> TokenGrant:
    base = TokenGrant(
        token_id="t",
        project_id="p",
        is_active=True,
        project_is_active=True,
        expires_at=None,
        max_requests=None,
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
    changes: dict[str, object], code: str, source: MemoryGrants
) -> None:
    tokens = new_tokens(source)
    token = KnownToken(grant(**changes), tokens.accounts.of("t"), 0.0)
    with pytest.raises(Refusal) as caught:
        tokens.check(token, 10.0)
    assert caught.value.code == code


async def test_good_grant_passes(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
    assert tokens.check(KnownToken(grant(expires_at=10.1), tokens.accounts.of("t"), 0.0), 10.0)


async def test_idle_token_is_looked_up_anew_before_it_is_refused(source: MemoryGrants) -> None:
    """Another worker may have used it since."""
    tokens = new_tokens(source)
    account = tokens.accounts.of("t")
    idle = grant(idle_timeout=5.0, last_used_at=1.0)
    now = asyncio.get_running_loop().time()
    assert not tokens.check(KnownToken(idle, account, now - 2.0), 10.0)
    with pytest.raises(Refusal, match="not used"):
        tokens.check(KnownToken(idle, account, now), 10.0)


async def test_lost_store_leaves_what_is_known_for_the_grace(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
    await load(tokens)
    source.add(b"another")
    tokens.store_is_lost(3600.0)
    assert tokens.find(DIGEST) is not None
    refused = await load(tokens, token_digest(b"another"))
    assert isinstance(refused, Refusal)
    assert refused.code == "store_unavailable"
    tokens.store_is_back()
    assert isinstance(await load(tokens, token_digest(b"another")), KnownToken)
    assert tokens.find(DIGEST) is not None


async def test_who_waits_for_a_store_that_is_lost_is_refused_at_once(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
    source.may_load.clear()
    outcomes: list[KnownToken | Refusal] = []
    tokens.load(DIGEST, ADDRESS, outcomes.append)
    await source.is_asked.wait()
    source.leases.may_go_on.clear()
    account = tokens.accounts.of("token-1")
    refusals: list[Refusal | None] = []
    tokens.accounts.want(account, refusals.append)
    tokens.store_is_lost(3600.0)
    assert [refusal.code for refusal in refusals if refusal] == ["store_unavailable"]
    (outcome,) = outcomes
    assert isinstance(outcome, Refusal)
    assert outcome.code == "store_unavailable"
    source.may_load.set()
    source.leases.may_go_on.set()
    await tokens.close()
    assert len(outcomes) == len(refusals) == 1


async def test_what_is_known_is_refused_after_the_grace(source: MemoryGrants) -> None:
    tokens = new_tokens(source)
    await load(tokens)
    tokens.store_is_lost(0.0)
    async with asyncio.timeout(30):
        while tokens.find(DIGEST) is not None:
            await asyncio.sleep(0)
    refused = await load(tokens)
    assert isinstance(refused, Refusal)
    assert refused.code == "store_unavailable"


async def test_legacy_token_is_looked_up_only_where_there_are_some(source: MemoryGrants) -> None:
    legacy = b"sk-AZqYtX2fSUuYk2sX0v3a9Q"
    with pytest.raises(Refusal):
        new_tokens(source).check_form(legacy)
    Tokens(source, Accounts(source.leases, MemoryLedger()), knows_legacy_tokens=True).check_form(
        legacy
    )


async def test_credential_line_is_that_of_the_api(gate: Gate) -> None:
    openai, anthropic, _ = gate.upstreams
    token = KnownToken(grant(), gate.tokens.accounts.of("t"), 0.0)
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
