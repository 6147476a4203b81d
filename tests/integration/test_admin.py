"""Django's admin: every table can be seen, secrets cannot, and actions go through the service."""

import asyncio
import re
from collections.abc import AsyncIterator
from unittest.mock import patch

import httpx
import pytest
from django.apps import apps

from container_manager.domain.kinds import Role
from container_manager.errors import Unavailable
from container_manager.models import ApiToken, AuditEntry, ContainerJob, ExecutorHost
from graphql_api import browser_session
from tests.api import make_hosts
from tests.client import CREATE_HOST, Api
from tests.eventually import eventually
from tests.jobs import has_status
from tests.server import make_token

HOSTS, JOBS, TOKENS = (f"/admin/container_manager/{name}/" for name in ("executorhost", "containerjob", "apitoken"))
ENGINE = {"url": "tcp://127.0.0.1:1", "registry_auth": {"r.io": {"username": "me", "password": "swordfish"}}}
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def browser(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A browser in which an admin has signed in."""
    async with httpx.AsyncClient(base_url=url, headers={**SAME_ORIGIN, "Origin": url}) as client:
        secret = await make_token(Role.ADMIN, name="boss")
        await client.post("/session", headers={"Authorization": f"Bearer {secret}"})
        yield client


async def act(browser: httpx.AsyncClient, page: str, action: str, *ids: int) -> str:
    """Choose rows and an action as a user does; returns what the page says afterwards."""
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', (await browser.get(page)).text)
    assert token is not None
    form = {
        "csrfmiddlewaretoken": token[1],
        "action": action,
        "index": "0",
        "_selected_action": [str(pk) for pk in ids],
    }
    done = await browser.post(page, data=form, follow_redirects=True)
    said = re.search(r'<li class="(?:success|warning|error)">(.*?)</li>', done.text)
    assert said is not None, (done.status_code, done.text[:500])
    return said[1]


async def test_every_table_can_be_seen(browser: httpx.AsyncClient, admin: Api, sim: dict) -> None:
    job = await admin.submit(labels={"team": "ml"})
    await eventually(lambda: has_status(admin, job["id"], "SUCCEEDED"))
    await admin.submit(hostSelector={"gpu": "yes"})
    index = (await browser.get("/admin/")).text
    for model in apps.get_app_config("container_manager").get_models():
        page = f"/admin/container_manager/{model._meta.model_name}/"
        assert f'href="{page}"' in index
        listed = await browser.get(page)
        assert listed.status_code == 200, model
        for row in re.findall(rf'href="({page}\w+/change/)', listed.text)[:1]:
            shown = await browser.get(row)
            assert (shown.status_code, 'name="_save"' in shown.text) == (200, False), row
            assert (await browser.get(row.replace("/change/", "/history/"))).status_code == 404
    assert (await browser.get(f"{JOBS}?q=nothing&status__exact=failed")).status_code == 200


async def test_secrets_are_not_shown(browser: httpx.AsyncClient, admin: Api) -> None:
    await admin(CREATE_HOST, input={"name": "far", "executorType": "DOCKER", "config": ENGINE})
    await admin.submit(environment=[{"name": "KEY", "value": "swordfish"}])
    host, job = await ExecutorHost.objects.aget(), await ContainerJob.objects.aget()
    token = await ApiToken.objects.aget(name="boss")
    pages = [
        (await browser.get(f"{page}{row.pk}/change/")).text
        for page, row in ((HOSTS, host), (JOBS, job), (TOKENS, token))
    ]
    assert "********" in pages[0]
    assert "KEY" in pages[1]
    assert not any("swordfish" in page or token.digest in page for page in pages)


async def test_actions_go_through_the_service(browser: httpx.AsyncClient, admin: Api, sim: dict) -> None:
    host = await ExecutorHost.objects.aget()
    assert await act(browser, HOSTS, "drain", host.pk) == "1 of 1 were changed."
    waiting = ContainerJob.objects.filter(status="pending")
    await admin.submit()
    job = await waiting.aget()
    assert await act(browser, JOBS, "retry", job.pk) == "0 of 1 were changed."
    assert await act(browser, JOBS, "cancel", job.pk) == "1 of 1 were changed."
    assert await act(browser, JOBS, "retry", job.pk) == "1 of 1 were changed."
    assert await act(browser, HOSTS, "resume", host.pk) == "1 of 1 were changed."
    token = await ApiToken.objects.acreate(name="old", role=Role.VIEWER, digest="x")
    assert await act(browser, TOKENS, "revoke", token.pk) == "1 of 1 were changed."
    audited = [(row.action, row.result) async for row in AuditEntry.objects.filter(actor="boss").order_by("pk")]
    assert audited == [
        ("drainHost", "DONE"), ("retryJob", "CONFLICT"), ("cancelJob", "DONE"), ("retryJob", "DONE"),
        ("resumeHost", "DONE"), ("token revoke", "DONE"),
    ]  # fmt: skip


async def test_only_admins_get_in(url: str, browser: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(base_url=url) as stranger:
        answer = await stranger.get("/admin/")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        await stranger.post("/session", headers={"Authorization": f"Bearer {await make_token(Role.OPERATOR)}"})
        answer = await stranger.get("/admin/")
        assert (answer.status_code, answer.text) == (403, "This needs a token with the role admin.\n")
    typed = browser.build_request("GET", "/admin/", headers={"Sec-Fetch-Site": "none"})
    del typed.headers["Origin"]
    opened = await browser.send(typed)
    assert opened.status_code == 200
    assert "script-src 'self'; style-src 'self'" in opened.headers["content-security-policy"]
    assert (await browser.get("/admin/login/")).headers["location"] == "/"


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-site"}]
)
async def test_no_other_site_can_act(browser: httpx.AsyncClient, sim: dict, headers: dict[str, str]) -> None:
    form = {"action": "drain", "index": "0", "_selected_action": "1"}
    assert (await browser.post(HOSTS, data=form, headers=headers)).status_code == 303
    assert (await browser.post(HOSTS, data=form)).status_code == 403, "without the token of the form"
    assert not (await ExecutorHost.objects.aget()).is_draining


async def test_a_form_that_is_too_large_is_refused(browser: httpx.AsyncClient) -> None:
    answer = await browser.post(HOSTS, content=b"x" * 1_100_000)
    assert answer.status_code == 413


async def test_actions_of_many_admins_hold_up_no_read(browser: httpx.AsyncClient, admin: Api, sim: dict) -> None:
    tokens = [await ApiToken.objects.acreate(name=f"old-{n}", role=Role.VIEWER, digest=str(n)) for n in range(6)]
    # The cookie of the forms, which the pages share.
    await browser.get(TOKENS)
    done = await asyncio.gather(*(act(browser, TOKENS, "revoke", token.pk) for token in tokens))
    assert done == ["1 of 1 were changed."] * 6


async def test_more_than_one_action_changes_are_refused(browser: httpx.AsyncClient, sim: dict) -> None:
    with patch("container_manager.admin.MOST_AT_ONCE", 1):
        await make_hosts(2)
        ids = [pk async for pk in ExecutorHost.objects.values_list("pk", flat=True)]
        assert await act(browser, HOSTS, "drain", *ids) == "Select at most 1 at a time."
    assert not await ExecutorHost.objects.filter(is_draining=True).aexists()


async def test_an_action_without_the_database_says_so(browser: httpx.AsyncClient, sim: dict) -> None:
    async def fails(*_: object) -> None:
        raise Unavailable("no")

    with patch("container_manager.service.hosts.Hosts.drain", fails):
        said = await act(browser, HOSTS, "drain", (await ExecutorHost.objects.aget()).pk)
    assert said == "The database does not answer; the audit log shows what was done."


async def test_cookies_are_secure_behind_a_proxy_with_tls(browser: httpx.AsyncClient) -> None:
    host = browser.base_url.netloc.decode()
    page = await browser.get(HOSTS, headers={"Origin": f"https://{host}"})
    cookie = page.headers["set-cookie"]
    assert all(part in cookie for part in ("csrftoken=", "HttpOnly", "SameSite=Strict", "Secure"))
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert token is not None
    form = {"csrfmiddlewaretoken": token[1], "action": "drain", "index": "0"}
    secret = re.search(r"csrftoken=(\w+)", cookie)
    assert secret is not None
    headers = {
        "Origin": f"https://{host}",
        "Cookie": f"csrftoken={secret[1]}; {browser_session.COOKIE}={browser.cookies[browser_session.COOKIE]}",
    }
    assert (await browser.post(HOSTS, data=form, headers=headers)).status_code == 302


async def test_what_needs_users_with_passwords_is_not_there(browser: httpx.AsyncClient) -> None:
    for path in ("password_change/", "r/1/1/", "autocomplete/"):
        assert (await browser.get(f"/admin/{path}")).status_code == 404


async def test_a_browser_that_leaves_before_its_form_was_sent_is_no_error(
    browser: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    url = browser.base_url
    _, writer = await asyncio.open_connection(url.host, url.port)
    cookie = f"{browser_session.COOKIE}={browser.cookies[browser_session.COOKIE]}"
    head = (
        f"POST {HOSTS} HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nSec-Fetch-Site: same-origin\r\nCookie: {cookie}\r\n"
    )
    writer.write(f"{head}Content-Length: 100\r\n\r\nhalf".encode())
    await writer.drain()
    # Answered while that request waits for the rest of its body.
    assert (await browser.get("/admin/")).status_code == 200
    writer.close()
    await writer.wait_closed()
    assert (await browser.get("/admin/")).status_code == 200
    assert not [record for record in caplog.records if record.name == "uvicorn.error"]
