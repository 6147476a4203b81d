"""The dashboard's files, and the page that every path gets which a person may type."""

from html import escape
from importlib.resources import files
from pathlib import Path

import orjson
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from graphql_api import auth, browser_session
from graphql_api.view import GraphQLView

_PACKAGE = Path(str(files("container_manager")))
FOLDER = next(folder for folder in (_PACKAGE / "dashboard", _PACKAGE.parent / "dashboard") if folder.is_dir())
"""Inside of the installed package; in the sources it is beside it."""
PAGES = ("/", "/fleet", "/fleet/{name}", "/jobs", "/jobs/{id}", "/compare", "/queue", "/what-if", "/events", "/admin")
SERVED = {".js", ".css", ".svg", ".LICENSE"}
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
EDITOR_POLICY = CONTENT_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'; font-src data:")
"""The editor sets styles of its own elements."""


class _Assets(StaticFiles):
    """Scripts and styles. Browsers ask each time whether they have changed, so that an upgrade is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if Path(path).suffix not in SERVED or Path(path).parts[:1] == ("node_modules",):
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def documents() -> list[str]:
    """The operations of the dashboard, as its scripts send them."""
    lines = (FOLDER / "operations.js").read_text().splitlines()
    return [orjson.loads(line.partition(" = ")[2].rstrip(";")) for line in lines if line.startswith("export const ")]


def routes(view: GraphQLView) -> list[Route | Mount]:
    """The routes of the dashboard; `view` knows who a request comes from."""

    async def session(request: Request) -> Response:
        if request.method == "DELETE":
            return browser_session.end()
        context = await view.get_context(request, Response())
        given = request.headers.get("authorization")
        # Not by its cookie: a session would never end by itself.
        if context.identity is None or not given:
            refusal = auth.refusal(context, given)
            return JSONResponse({"message": refusal.message}, 401, {"WWW-Authenticate": "Bearer"})
        return browser_session.start(request, context.secret)

    return [
        Route("/session", session, methods=["POST", "DELETE"]),
        Mount("/assets", _Assets(directory=FOLDER)),
        *(Route(path, _page) for path in PAGES),
    ]


async def _page(request: Request) -> Response:
    return _shell(request)


def _shell(request: Request, status: int = 200) -> Response:
    """The page in which the scripts show everything."""
    return _html(request, "index.html", CONTENT_POLICY, status)


def _html(request: Request, name: str, policy: str, status: int = 200) -> Response:
    """A page whose addresses begin with the path of the application."""
    page = (FOLDER / name).read_text().replace("{root}", escape(request.scope.get("root_path", "")))
    return HTMLResponse(page, status, {"Content-Security-Policy": policy})


def _reads_html(request: Request) -> bool:
    return request.method == "GET" and "text/html" in Headers(scope=request.scope).get("accept", "")


class EditorOr:
    """The editor of operations for a browser that opens the address of the API; `view` for every request to the API."""

    def __init__(self, view: GraphQLView) -> None:
        self._view = view

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if _reads_html(request) and not request.query_params:
            page = _html(request, "ide.html", EDITOR_POLICY)
            page.headers["Vary"] = "Accept"
            await page(scope, receive, send)
            return
        await self._view(scope, receive, send)


async def not_found(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    """The page for a path that there is not, for those who read HTML."""
    return _shell(request, 404) if _reads_html(request) else PlainTextResponse("Not Found", 404)
