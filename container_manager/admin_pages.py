"""The pages of Django's admin as this service shows them: to admins, who are known by their tokens."""

import asyncio
from functools import cache
from http import HTTPStatus
from io import BytesIO
from typing import Any

from django.contrib.admin import AdminSite
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import get_script_prefix, path, set_script_prefix

from container_manager.admin import Caller, register
from container_manager.service import Service
from container_manager.store import threads
from container_manager.store.transaction import Actor

UNUSED = {"password_change", "password_change_done", "view_on_site", "autocomplete"}
"""Addresses of Django's admin that this one does not have."""


class TokenUser:
    """An admin as Django's templates and permissions ask about it."""

    is_active = is_staff = is_authenticated = True
    is_anonymous = False
    pk = None

    def __init__(self, name: str) -> None:
        self.name = name

    def get_username(self) -> str:
        return self.name

    def get_short_name(self) -> str:
        return self.name

    def has_usable_password(self) -> bool:
        return False

    def has_perm(self, _: str, __: object = None) -> bool:
        return True

    def has_module_perms(self, _: str) -> bool:
        return True


class _Site(AdminSite):
    site_title = site_header = index_title = "container-manager"
    enable_nav_sidebar = True

    def get_urls(self) -> list[Any]:
        # The others need users with passwords.
        return [url for url in super().get_urls() if getattr(url, "name", None) not in UNUSED]

    def has_permission(self, request: HttpRequest) -> bool:
        return isinstance(getattr(request, "user", None), TokenUser)

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return HttpResponseRedirect(get_script_prefix())

    def logout(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:  # type: ignore[override]
        return HttpResponseRedirect(get_script_prefix())


site = _Site()
register(site)
urlpatterns = [path("admin/", site.urls)]


@cache
def _handler() -> BaseHandler:
    handler = BaseHandler()
    handler.load_middleware()
    return handler


async def answer(scope: dict[str, Any], body: bytes, service: Service, actor: Actor) -> HttpResponseBase:
    """Django's answer to a request of an admin."""
    request = ASGIRequest(scope, BytesIO(body))
    request.user = TokenUser(actor.name)  # type: ignore[assignment]
    request.container_manager = Caller(service, asyncio.get_running_loop(), actor)  # type: ignore[attr-defined]
    return await threads.make_page(_answer, request, scope.get("root_path", ""))


def _answer(request: ASGIRequest, root: str) -> HttpResponseBase:
    set_script_prefix(f"{root}/")
    response = _handler().get_response(request)
    if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return HttpResponse("An internal error occurred; the log describes it.", status=response.status_code)
    return response
