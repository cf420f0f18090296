"""/metrics: what the workers of this server counted, for Prometheus."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from llm_proxy.measurements import Totals
from llm_proxy.server.control.context import ControlContext


class Metrics:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    async def show(self, request: Request) -> Response:
        totals = await self._context.measure()
        totals.add(await self._context.measure_server())
        return await asyncio.to_thread(_answer, totals)


def _answer(totals: Totals) -> Response:
    # Only a server that is scraped pays for the import: it takes 0.1 s.
    from llm_proxy.server.control.exposition import CONTENT_TYPE, render

    headers = {"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE}
    return Response(render(totals), headers=headers)
