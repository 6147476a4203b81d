"""Signing in from a browser: the token is kept, encrypted, in a cookie that scripts cannot read.

A session ends with its token: to revoke the token is to end it. The cookie is believed only in requests that the
service's own pages have made, so that no other site can use it.
"""

import base64
import binascii
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from container_manager import crypto

COOKIE = "container_manager_session"
LASTS_SECONDS = 7 * 86_400
LONGEST_COOKIE = 4000


def start(request: Request, secret: str) -> Response:
    """An answer that sets the cookie, for a request with a valid token."""
    value = base64.urlsafe_b64encode(crypto.encrypt({"secret": secret, "until": time.time() + LASTS_SECONDS})).decode()
    if len(value) > LONGEST_COOKIE:
        return JSONResponse({"message": "The token is too long for a session in a browser."}, 400)
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE, value, max_age=LASTS_SECONDS, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return response


def end() -> Response:
    """An answer that deletes the cookie."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def credentials(request: HTTPConnection) -> str | None:
    """The Authorization value that the request's session stands for; None when it has none."""
    value = request.cookies.get(COOKIE, "")
    if not value or len(value) > LONGEST_COOKIE or not _is_of_own_page(request):
        return None
    try:
        session: Any = crypto.decrypt(base64.urlsafe_b64decode(value))
    except (crypto.WrongKeyError, binascii.Error, ValueError):
        return None
    return f"Bearer {session['secret']}" if time.time() < session["until"] else None


def navigating(request: Request) -> Request:
    """The same request; one that opens a page (a typed address, a bookmark) counts as one of our own pages.

    To open a page changes nothing, and no other site can do it with the cookie, which is SameSite=Strict.
    """
    typed = request.headers.get("sec-fetch-site", "none") == "none"
    if request.method != "GET" or not typed or request.headers.get("origin"):
        return request
    headers = [pair for pair in request.scope["headers"] if pair[0] != b"sec-fetch-site"]
    return Request({**request.scope, "headers": [*headers, (b"sec-fetch-site", b"same-origin")]}, request.receive)


def _is_of_own_page(request: HTTPConnection) -> bool:
    """Whether a page of this service has made the request. Browsers tell, and scripts cannot change what they tell."""
    if (site := request.headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    # Not told over plain HTTP, except on this machine.
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host")
