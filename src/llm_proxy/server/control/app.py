"""The control plane as one ASGI app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Never

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llm_proxy.server.control.audit import Audit
from llm_proxy.server.control.auditing import Auditing
from llm_proxy.server.control.context import ControlContext, HealthReport
from llm_proxy.server.control.health import Health
from llm_proxy.server.control.metrics import Metrics
from llm_proxy.server.control.middleware import ManagementAuthentication, RequestEnvelope
from llm_proxy.server.control.projects import Projects
from llm_proxy.server.control.tokens import Tokens

Handler = Callable[[Request], Awaitable[Response]]

__all__ = ["ControlContext", "HealthReport", "create_app"]


def create_app(context: ControlContext) -> Starlette:
    projects, tokens, health = Projects(context), Tokens(context), Health(context)
    metrics, audit = Metrics(context), Audit(context)
    routes = [
        _resource("/manage/projects", GET=projects.list, POST=projects.create),
        _resource(
            "/manage/projects/{id}",
            GET=projects.get,
            PATCH=projects.update,
            PUT=projects.update,
            DELETE=projects.delete,
        ),
        _resource("/manage/projects/{id}/tokens/revoke", POST=projects.revoke_tokens),
        _resource("/manage/tokens", GET=tokens.list, POST=tokens.create),
        _resource(
            "/manage/tokens/{id}",
            GET=tokens.get,
            PATCH=tokens.update,
            PUT=tokens.update,
            DELETE=tokens.revoke,
        ),
        _resource("/manage/tokens/{id}/rotate", POST=tokens.rotate),
        _resource("/manage/audit", GET=audit.list),
        _resource("/manage/audit/verify", GET=audit.verify),
        _resource("/manage/audit/{id}", GET=audit.get),
        _resource("/health", GET=health.health),
        _resource("/ready", GET=health.ready),
        _resource("/live", GET=health.live),
    ]
    if context.metrics_path is not None:
        # The second is where an older program had this format.
        for path in (context.metrics_path, f"{context.metrics_path}/prometheus"):
            routes.append(_resource(path, GET=metrics.show))
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(RequestEnvelope),
            Middleware(Auditing, trail=context.audit),
            Middleware(ManagementAuthentication, token=context.management_token),
        ],
        exception_handlers={HTTPException: _pass_on},
    )
    app.router.redirect_slashes = False  # a redirect would repeat the request with its token
    return app


def _resource(path: str, **handlers: Handler) -> Route:
    """One route for all methods of a path, so that a 405 names every one that is allowed."""

    async def endpoint(request: Request) -> Response:
        if "\0" in request.path_params.get("id", ""):
            raise HTTPException(404)  # no id has one, and not every database takes the question
        method = "GET" if request.method == "HEAD" else request.method
        return await handlers[method](request)

    return Route(path, endpoint, methods=list(handlers))


def _pass_on(request: Request, exc: Exception) -> Never:
    """Starlette would answer in plain text; RequestEnvelope answers in ours."""
    raise exc
