from __future__ import annotations

import json
from itertools import pairwise

from llm_proxy.benchmark.agent_session import TURNS, agent_session


def test_every_turn_holds_what_was_said_before_it() -> None:
    session = agent_session(1)
    assert len(session) == TURNS
    for before, after in pairwise(session):
        assert after["messages"][: len(before["messages"])] == before["messages"]
        assert len(after["messages"]) > len(before["messages"])


def test_every_tool_call_is_of_a_known_tool_and_followed_by_its_result() -> None:
    last = agent_session(2)[-1]
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in last["tools"]}
    for message, following in pairwise(last["messages"]):
        for call in message.get("tool_calls", ()):
            arguments = json.loads(call["function"]["arguments"])
            assert list(arguments) == tools[call["function"]["name"]]["required"]
            assert (following["role"], following["tool_call_id"]) == ("tool", call["id"])
    assert {message["role"] for message in last["messages"]} == {
        *("system", "user", "assistant", "tool")
    }


def test_sessions_are_as_large_as_those_of_agents() -> None:
    for seed in range(5):
        sizes = [len(json.dumps(request)) for request in agent_session(seed)]
        assert 10_000 < sizes[0] < 20_000
        assert 50_000 < sizes[-1] < 100_000


def test_the_seed_decides() -> None:
    assert agent_session(1) == agent_session(1) != agent_session(2)
