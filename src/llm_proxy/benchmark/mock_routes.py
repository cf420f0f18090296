"""Which path answers what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from llm_proxy.benchmark.mock_answer import Answer, Refused
from llm_proxy.benchmark.mock_chat import complete_chat
from llm_proxy.benchmark.mock_embeddings import embed
from llm_proxy.benchmark.mock_faults import Faults
from llm_proxy.benchmark.mock_files import FileStore
from llm_proxy.benchmark.mock_hang_ups import HangUps
from llm_proxy.benchmark.mock_messages import count_message_tokens, create_message
from llm_proxy.benchmark.mock_models import get_model, list_models
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_responses import create_response

Handler = Callable[[Request, Faults], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    handler: Handler
    takes: Literal["json", "form", "nothing"] = "nothing"


class Routes:
    def __init__(self, files: FileStore, hang_ups: HangUps) -> None:
        self._exact: dict[str, dict[str, Route]] = {
            "/v1/chat/completions": {"POST": Route(complete_chat, "json")},
            "/v1/responses": {"POST": Route(create_response, "json")},
            "/v1/embeddings": {"POST": Route(embed, "json")},
            "/v1/messages": {"POST": Route(create_message, "json")},
            "/v1/messages/count_tokens": {"POST": Route(count_message_tokens, "json")},
            "/v1/models": {"GET": Route(list_models)},
            "/v1/files": {"GET": Route(files.list), "POST": Route(files.create, "form")},
            "/mock/stats": {"GET": Route(hang_ups.tell)},
        }
        # By the first segments and the number of all of them.
        self._with_id: dict[tuple[str, int], dict[str, Route]] = {
            ("/v1/models", 3): {"GET": Route(get_model)},
            ("/v1/files", 3): {"GET": Route(files.get), "DELETE": Route(files.delete)},
            ("/v1/files", 4): {"GET": Route(files.content)},
        }

    def find(self, request: Request) -> Route:
        """Raises Refused: 404 for the path, 405 for the method."""
        methods = self._exact.get(request.path) or self._find_with_id(request.path)
        if methods is None:
            raise Refused(404, f"Invalid URL ({request.method} {request.path[:200]})")
        # HEAD is GET whose body isn't sent (RFC 9110 9.3.2).
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise Refused(
                405,
                f"{request.path[:200]} takes {allowed}, not {request.method}.",
                headers=b"allow: %s\r\n" % allowed.encode(),
            )
        return route

    def _find_with_id(self, path: str) -> dict[str, Route] | None:
        segments = path.split("/")[1:]
        if len(segments) < 3 or not segments[2] or segments[3:] not in ([], ["content"]):
            return None
        return self._with_id.get((f"/{segments[0]}/{segments[1]}", len(segments)))
