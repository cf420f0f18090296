from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from llm_proxy.grants import Lease
from llm_proxy.store.database import Store
from llm_proxy.store.hosts import beat, write_off_host
from llm_proxy.store.leases import holders_of, take_lease
from llm_proxy.store.timestamps import to_stored
from llm_proxy.store.tokens import Token, get_token

AddToken = Callable[..., tuple[Token, bytes]]


def test_a_host_hears_the_last_word_of_each_other(store: Store, now: datetime) -> None:
    later = now + timedelta(seconds=10)
    assert beat(store, "a", now) == {}
    assert beat(store, "b", now) == {"a": to_stored(now)}
    assert beat(store, "a", later) == {"b": to_stored(now)}
    assert beat(store, "b", later) == {"a": to_stored(later)}


def test_a_host_that_has_leases_but_never_spoke_is_heard_of(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, _ = add_token()
    assert take_lease(store, token.id, 1, host="a", holder="w", at=now)
    assert beat(store, "b", now) == {"a": ""}
    assert beat(store, "a", now) == {"b": to_stored(now)}
    assert beat(store, "b", now) == {"a": to_stored(now)}


def test_a_lost_host_is_written_off_with_all_it_held(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, _ = add_token(max_requests=100)
    for holder in ("v", "w"):
        lease = take_lease(store, token.id, 10, host="a", holder=holder, at=now)
        assert lease == Lease(lease.id if isinstance(lease, Lease) else 0, 10)
    beat(store, "a", now)
    assert write_off_host(store, "a", to_stored(now)) == 2
    assert holders_of(store, "a") == []
    found = get_token(store, token.id)
    assert found is not None and found.request_count == 20
    assert beat(store, "b", now) == {}


def test_a_host_that_spoke_again_is_left_alone(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, _ = add_token()
    take_lease(store, token.id, 1, host="a", holder="w", at=now)
    assert write_off_host(store, "a", to_stored(now)) is None
    beat(store, "a", now + timedelta(seconds=1))
    assert write_off_host(store, "a", to_stored(now)) is None
    assert write_off_host(store, "a", "") is None
    assert holders_of(store, "a") == ["w"]
