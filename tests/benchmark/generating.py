"""Runs of the generator within the test's own loop."""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any

from llm_proxy.benchmark.generator import Generator
from llm_proxy.benchmark.plan import Load, Plan, Target, Workload
from llm_proxy.benchmark.samples import Frame, RigFigures
from llm_proxy.secrets import Secret

LIMIT_S = 20.0
CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}'
STREAM = b'{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Hi"}]}'


def target(address: str, *keys: str) -> Target:
    return Target(base_url=f"http://{address}", keys=tuple(map(Secret, keys or ("any-key",))))


def plan(load: Load, *targets: Target, timeout_s: float = 5.0, **workload: Any) -> Plan:
    return Plan(
        targets=targets,
        workload=Workload(**{"bodies": (CHAT,), **workload}),
        load=load,
        timeout_s=timeout_s,
        seed=7,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    frames: list[Frame]
    figures: RigFigures

    def column(self, name: str) -> list[int]:
        found: list[int] = []
        for frame in self.frames:
            column: array[int] = getattr(frame.samples, name)
            found += column
        return found


async def generate(wanted: Plan, *, process: int = 0, processes: int = 1) -> Run:
    generator = Generator(process=process, processes=processes)
    try:
        return await generate_with(generator, wanted)
    finally:
        await generator.close()


async def generate_with(generator: Generator, wanted: Plan) -> Run:
    frames: list[Frame] = []
    generator.prepare(wanted)
    async with asyncio.timeout(LIMIT_S):
        figures = await generator.run(monotonic_ns(), frames.append)
    return Run(frames=frames, figures=figures)
