"""Django's admin at /admin/, for admins."""

import asyncio
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from container_manager.domain.kinds import Role
from graphql_api import browser_session, dashboard
from graphql_api.view import GraphQLView

STATIC = Path(str(files("django.contrib.admin"))) / "static"
LARGEST_FORM = 1_000_000
"""Bytes."""

CONTENT_POLICY = dashboard.CONTENT_POLICY.replace("form-action 'none'", "form-action 'self'")


def routes(view: GraphQLView) -> list[BaseRoute]:
    """The routes of the admin; `view` knows who a request comes from."""

    async def page(request: Request) -> Response:
        # In a thread, because Django's admin takes a while to load.
        admin_pages = await asyncio.to_thread(import_module, "container_manager.admin_pages")
        context = await view.get_context(browser_session.navigating(request), Response())
        if context.identity is None:
            return RedirectResponse(f"{request.scope.get('root_path', '')}/", 303)
        if not context.identity.may(Role.ADMIN):
            return PlainTextResponse("This needs a token with the role admin.\n", 403)
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_FORM:
                    return PlainTextResponse(f"A form has at most {LARGEST_FORM} bytes.\n", 413)
        except ClientDisconnect:
            return Response()
        scope = dict(request.scope)
        origin = urlsplit(request.headers.get("origin", ""))
        if origin.netloc == request.headers.get("host"):
            # The scheme as the browser sees it, which a proxy may not tell.
            scope["scheme"] = origin.scheme
        answer = await admin_pages.answer(scope, body, context.service, context.actor)
        for cookie in answer.cookies.values():
            cookie["secure"] = scope["scheme"] == "https"
        response = Response(b"".join(answer), answer.status_code)
        response.raw_headers = [
            *((name.lower().encode(), value.encode()) for name, value in answer.items()),
            *((b"set-cookie", cookie.OutputString().encode()) for cookie in answer.cookies.values()),
            (b"content-security-policy", CONTENT_POLICY.encode()),
            # Else forms would be sent from the origin "null", which Django's CSRF check refuses.
            (b"referrer-policy", b"same-origin"),
        ]
        return response

    return [
        Mount("/admin/static", StaticFiles(directory=STATIC)),
        Route("/admin/{path:path}", page, methods=["GET", "POST"]),
    ]
