"""From a request to its answer: faults, route, key, handler, and errors in the dialect."""

from __future__ import annotations

import random

from llm_proxy.benchmark.mock_answer import Answer, Refused
from llm_proxy.benchmark.mock_dialects import Dialect, check_key, dialect_of
from llm_proxy.benchmark.mock_faults import NO_FAULTS, Faults, read_faults
from llm_proxy.benchmark.mock_files import FileStore, Upload
from llm_proxy.benchmark.mock_hang_ups import HangUps
from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_routes import Route, Routes

# Answers worth remembering: benchmarks ask the same few questions over and over.
MOST_REMEMBERED = 256
_LARGEST_REMEMBERED = 64 * 1024


class MockService:
    def __init__(self, options: MockOptions) -> None:
        self._options = options
        self.hang_ups = HangUps()
        self._routes = Routes(FileStore(), self.hang_ups)
        self._remembered: dict[tuple[str, int | None], bytes] = {}
        # One for the server, as its waits: drawn from the request, equal ones would fare alike.
        self._random = random.Random(0)

    def prepare(self, request: Request) -> None:
        """Once the head is there: decides what is done with the body that follows."""
        try:
            takes = self._routes.find(request).takes
        except Refused:
            return
        if takes == "json":
            request.collect()
        elif takes == "form":
            request.sink = Upload(request.header(b"content-type") or "")

    def answer(self, request: Request) -> tuple[Answer, Faults]:
        dialect = dialect_of(request)
        faults = NO_FAULTS
        try:
            faults = self._befalling(read_faults(request))
            answer = self._answer(request, faults, dialect)
        except Refused as refused:
            body = dialect.error(refused, request.identity())
            answer = Answer(status=refused.status, headers=refused.headers, body=body)
        answer.headers += dialect.headers(request.identity())
        if faults.retry_after is not None:
            answer.headers += b"retry-after: %s\r\n" % faults.retry_after.encode("latin-1")
        return answer, faults

    def _befalling(self, faults: Faults) -> Faults:
        """What happens to this request: a share of them is met by chance."""
        is_spared = faults.share < 1 and self._random.random() >= faults.share
        return faults.spared if is_spared else faults

    def _answer(self, request: Request, faults: Faults, dialect: Dialect) -> Answer:
        if faults.status is not None and faults.status >= 400:
            raise Refused(faults.status, f"X-Mock-Status asked for this {faults.status}.")
        route = self._routes.find(request)
        check_key(request, dialect, self._options.api_key)
        if route.takes == "json":
            answer = self._recall(route, request, faults)
        else:
            answer = route.handler(request, faults)
        if faults.status is not None:
            answer.status = faults.status
        return answer

    def _recall(self, route: Route, request: Request, faults: Faults) -> Answer:
        """The answer of a route that depends on nothing but the request, worked out once."""
        key = (request.identity(), faults.tokens)
        body = self._remembered.get(key)
        if body is not None:
            return Answer(body=body)
        answer = route.handler(request, faults)
        if answer.events is None and len(answer.body) <= _LARGEST_REMEMBERED:
            if len(self._remembered) >= MOST_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[key] = answer.body
        return answer
