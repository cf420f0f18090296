"""A session of a coding agent: a conversation that grows with every tool call, turn by turn."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec

from llm_proxy.benchmark.made_text import made_text

TURNS: Final = 30
_FROM_PERSON_EVERY: Final = 6  # turns; in between the agent goes on with what its tools say
_SYSTEM_WORDS: Final = 1200
_DESCRIPTION_WORDS: Final = 45
# Words of what a tool gives back, and how often: mostly short, now and then a whole file.
_RESULT_WORDS: Final = (20, 60, 200, 450, 1300)
_RESULT_WEIGHTS: Final = (4, 6, 6, 4, 1)
_TOOLS: Final = {
    "read_file": ("path", "first_line", "last_line"),
    "write_file": ("path", "content"),
    "edit_file": ("path", "old_text", "new_text"),
    "list_files": ("path", "depth"),
    "search_text": ("pattern", "path"),
    "run_command": ("command", "timeout_s"),
    "run_tests": ("path", "pattern"),
    "find_definition": ("name", "path"),
    "fetch_page": ("url",),
    "note_progress": ("text",),
}

Fields = dict[str, Any]


def agent_session(seed: int, turns: int = TURNS) -> tuple[Fields, ...]:
    """The requests of one session, in order; each holds all that was said before."""
    source = random.Random(f"{seed}/agent")
    said: list[Fields] = [{"role": "system", "content": _text(source, _SYSTEM_WORDS)}]
    tools = [_tool(source, name) for name in _TOOLS]
    requests = []
    for turn in range(turns):
        if turn % _FROM_PERSON_EVERY == 0:
            said.append({"role": "user", "content": _text(source, 80)})
        requests.append({"messages": list(said), "tools": tools})
        said += _tool_call(source, turn)
    return tuple(requests)


def _tool_call(source: random.Random, turn: int) -> list[Fields]:
    """What the agent does next, and what comes of it."""
    name = source.choice(list(_TOOLS))
    arguments = {field: _text(source, source.randint(1, 12)) for field in _TOOLS[name]}
    call = {
        "id": f"call_{turn:04d}",
        "type": "function",
        "function": {"name": name, "arguments": msgspec.json.encode(arguments).decode()},
    }
    (words,) = source.choices(_RESULT_WORDS, _RESULT_WEIGHTS)
    return [
        {"role": "assistant", "content": _text(source, 25), "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": _text(source, words)},
    ]


def _tool(source: random.Random, name: str) -> Fields:
    fields = {field: {"type": "string", "description": _text(source, 12)} for field in _TOOLS[name]}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": _text(source, _DESCRIPTION_WORDS),
            "parameters": {"type": "object", "properties": fields, "required": list(fields)},
        },
    }


def _text(source: random.Random, words: int) -> str:
    return made_text(words, str(source.random()))
