from __future__ import annotations

from collections import Counter

from llm_proxy.benchmark.plan import DIRECT, PROXIED, Closed, Order, Plan, Target, Workload
from llm_proxy.benchmark.samples import NONE
from llm_proxy.benchmark.turns import Numbers, Turns


def plan(
    *, bodies: int = 1, cancel_rate: float = 0.0, seed: int = 1, order: Order = "shuffled"
) -> Plan:
    return Plan(
        targets=(Target(base_url="http://a"),),
        workload=Workload(bodies=(b"x",) * bodies, cancel_rate=cancel_rate, order=order),
        load=Closed(concurrency=1, requests=1),
        seed=seed,
    )


def numbers(wanted: Plan, process: int = 0, processes: int = 1) -> Numbers:
    return Numbers(wanted, process=process, processes=processes)


def test_unpaired_turns_go_to_the_target_alone() -> None:
    turns = Turns(numbers(plan()), is_paired=False)
    for _ in range(5):
        assert turns.is_between_pairs
        turn = turns.next()
        assert (turn.lane, turn.pair) == (PROXIED, NONE)


def test_pairs_are_abba_and_each_lane_begins_half_of_the_time() -> None:
    turns = Turns(numbers(plan()), is_paired=True)
    begins: Counter[int] = Counter()
    for quad in range(400):
        seen = []
        for step in range(4):
            assert turns.is_between_pairs is (step % 2 == 0)
            turn = turns.next()
            seen.append((turn.lane, turn.pair, turn.number, turn.body))
        lanes = [lane for lane, *_ in seen]
        assert lanes in ([0, 1, 1, 0], [1, 0, 0, 1])
        assert [pair for _, pair, *_ in seen] == [2 * quad] * 2 + [2 * quad + 1] * 2
        assert seen[0][2:] == seen[1][2:] and seen[2][2:] == seen[3][2:]
        begins[lanes[0]] += 1
    assert 150 < begins[DIRECT] < 250


def test_processes_number_their_requests_apart() -> None:
    first, second = (numbers(plan(), process, 2) for process in range(2))
    assert [first.first(is_paired=False).number for _ in range(3)] == [0, 2, 4]
    assert [second.first(is_paired=False).number for _ in range(3)] == [1, 3, 5]


def test_all_bodies_come_equally_often() -> None:
    source = numbers(plan(bodies=7))
    counts = Counter(source.first(is_paired=False).body for _ in range(70))
    assert counts == dict.fromkeys(range(7), 10)


def test_a_share_of_requests_is_cancelled() -> None:
    source = numbers(plan(cancel_rate=0.25))
    cancelled = [source.first(is_paired=False).cancel_after for _ in range(4000)]
    assert 800 < sum(after > 0 for after in cancelled) < 1200
    assert max(cancelled) <= 20
    never = numbers(plan())
    assert not any(never.first(is_paired=False).cancel_after for _ in range(100))


def test_the_seed_decides() -> None:
    def begins(seed: int) -> list[int]:
        turns = Turns(numbers(plan(seed=seed)), is_paired=True)
        return [turns.next().lane for _ in range(80)]

    assert begins(1) == begins(1) != begins(2)


def test_every_connection_has_a_session_of_its_own_from_its_beginning() -> None:
    source = numbers(plan(bodies=3, order="in turn"), process=1, processes=2)
    first, second = (Turns(source, is_paired=False) for _ in range(2))
    assert [first.next().body for _ in range(4)] == [0, 1, 2, 0]
    assert [second.next().body for _ in range(2)] == [0, 1]


def test_both_halves_of_a_pair_are_the_same_turn_of_a_session() -> None:
    turns = Turns(numbers(plan(bodies=3, order="in turn")), is_paired=True)
    assert [turns.next().body for _ in range(8)] == [0, 0, 1, 1, 2, 2, 0, 0]
