"""The dashboard in a real browser: every page is readable by all, works by keyboard alone, and never pretends."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.client import CREATE_HOST, SUBMIT
from tests.engines import IMAGE, Engine
from tests.postgres import free_port
from tests.processes import ROOT, UNMEASURED, Served, environment

CHROMIUM = shutil.which("chromium")
OFFLINE = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync")  # fmt: skip
HOSTS: list[dict[str, Any]] = [
    {"name": "frankfurt-1", "region": "eu-central", "maxConcurrentJobs": 4},
    {
        "name": "a-host-with-a-rather-long-name-in-iowa.example.internal",
        "region": "us-central",
        "labels": {"gpu": "yes"},
    },
]
SIMULATED = {"executorType": "SIMULATED", "config": {"accept": "any", "launch_ms": 1, "run_ms": 20}}
EXPECTED = ("401 (Unauthorized)", "404 (Not Found)", "ERR_CONNECTION_REFUSED", "WebSocket connection to")
"""Parts of messages that a browser logs for what the tests do on purpose."""


class Watched:
    """A page, and what went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.problems = page, []
        page.on("console", lambda message: self._note(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self._note(f"{error}"))
        page.on(
            "request",
            lambda sent: None if sent.url.startswith((url, "ws:", "blob:", "data:")) else self._note(sent.url),
        )

    def _note(self, problem: str) -> None:
        if not any(part in problem for part in EXPECTED):
            self.problems.append(problem)

    async def check(self, name: str) -> None:
        """The page has no barrier and fits into the window."""
        found = await Axe().run(self.page)
        self.problems += [
            f"{name}: {entry['id']} at {entry['nodes'][0]['target']}" for entry in found.response["violations"]
        ]
        wider = await self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wider > 0:
            self.problems.append(f"{name}: is {wider} px wider than the window")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium).")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(OFFLINE))
        yield started
        await started.close()


@asynccontextmanager
async def opened(browser: Browser, served: Served, token: str | None, **options: Any) -> AsyncIterator[Watched]:
    """A window, signed in if a token is given; everything in it went well."""
    context = await browser.new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
    page = await context.new_page()
    page.set_default_timeout(20_000)
    watched = Watched(page, served.url)
    await page.goto(f"{served.url}/#token={token}" if token else f"{served.url}/")
    if token:
        await expect(page.locator("header .badge").first).to_contain_text("live")
    yield watched
    await context.close()
    assert watched.problems == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A service with hosts, and with jobs that succeed, fail and wait."""
    with Served(tmp_path / "home", "serve", "--port", str(free_port()), **UNMEASURED) as started:
        for host in HOSTS:
            started.query(started.token, CREATE_HOST, input={**SIMULATED, **host})
        for job in (
            {"name": "works", "command": ["echo \u001b[31mred\u001b[0m; echo done"], "labels": {"team": "ml"}},
            {"name": "breaks", "command": ["echo before; exit 3"]},
            {"name": "waits", "hostSelector": {"gpu": "no"}},
        ):
            started.query(started.token, SUBMIT, input={"image": "registry.example/team/image:1", **job})
        yield started


@pytest.mark.parametrize("width", [1360, 360])
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_page_has_no_barrier_and_fits(
    browser: Browser, served: Served, theme: Any, width: int, tmp_path: Path
) -> None:
    # Of each page, to be looked at.
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path / "screenshots"))

    async def check(name: str) -> None:
        await watched.check(name)
        file = re.sub(r"\W+", "-", name).strip("-") or "overview"
        await page.screenshot(path=shots / f"{file}-{theme}-{width}.png")

    window = {"viewport": {"width": width, "height": 800}, "color_scheme": theme}
    async with opened(browser, served, None, **window) as watched:
        page = watched.page
        await page.get_by_label("API token").fill("cm_wrong")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("The token is unknown")
        await check("login")
        await page.get_by_label("API token").fill(f"Bearer {served.token}")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("navigation")).to_be_visible()
        for path, wanted in {
            "/": "Jobs per minute", "/fleet": "frankfurt-1", "/fleet/frankfurt-1": "Why it was chosen",
            "/jobs": "works", "/jobs?status=failed": "breaks", "/queue": "can never run", "/what-if": "frankfurt-1",
            "/events": "Load earlier events", "/admin": "Audit log", "/nothing": "No such page",
            "/fleet?create=1": "Create and check", "/jobs?submit=1": "Preferred region",
        }.items():  # fmt: skip
            await page.goto(served.url + path)
            await expect(page.get_by_text(wanted).first).to_be_visible()
            await check(path)
        for name, wanted in {"works": "done", "breaks": "Exit code 3", "waits": "What would help"}.items():
            await page.goto(served.url + "/jobs")
            await page.get_by_role("link", name=name).click()
            await expect(page.get_by_text(wanted).first).to_be_visible()
            await check(name)


async def test_a_job_is_submitted_watched_and_submitted_again(browser: Browser, served: Served, engine: Engine) -> None:
    input = {"name": "engine", "executorType": "DOCKER", "config": {"url": engine.url}, "labels": {"of": "this-test"}}
    served.query(served.token, CREATE_HOST, input=input)
    async with opened(browser, served, served.token) as watched:
        page = watched.page
        await page.goto(served.url + "/jobs?submit=1")
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Image").fill("NOT AN IMAGE")
        await dialog.get_by_role("button", name="Submit").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("Is not an image reference")
        await dialog.get_by_label("Image").fill(IMAGE)
        await dialog.get_by_label("Name", exact=True).fill("from the page")
        script = "for i in $(seq 300); do echo line $i; done; echo trouble >&2; sleep 2; echo the end; exit 7"
        await dialog.get_by_label("Command").fill(json.dumps(["sh", "-c", script]))
        await dialog.get_by_label("Host must have").fill('{"of": "this-test"}')
        await dialog.get_by_role("button", name="Submit").click()
        # While it runs, lines come; afterwards all of them are there.
        log = page.get_by_label("Output of the job")
        await expect(log).to_contain_text("line 300")
        await expect(page.locator("h1 + .badge")).to_contain_text("failed")
        await expect(log).to_contain_text("the end")
        await expect(page.locator(".notice.bad")).to_contain_text("Exit code 7.")
        await expect(log.locator(".row.stderr")).to_have_count(1)
        await page.get_by_label("Search all lines").fill("line 29")
        await expect(page.get_by_text("1 of 11")).to_be_visible()
        async with page.expect_download() as downloading:
            await page.get_by_role("button", name="Download").click()
        text = Path(await (await downloading.value).path()).read_text()
        assert (text.count("\n"), "! trouble" in text) == (301, True)
        await page.get_by_role("button", name="Submit again…").click()
        await dialog.get_by_label("Command").fill('["true"]')
        await dialog.get_by_role("button", name="Submit").click()
        await expect(page.locator("h1 + .badge")).to_contain_text("succeeded")
        await expect(page.get_by_text("It has written nothing.")).to_be_visible()


async def test_a_job_is_shown_as_a_command_that_submits_it_again(browser: Browser, served: Served) -> None:
    job = {
        "image": "x:1",
        "name": 'it\'s "quoted" $HOME',
        "command": ["echo 'a b'\n\\n"],
        "labels": {"team": "ml"},
        "priority": 3,
    }
    submitted = served.query(served.token, SUBMIT, input=job)
    async with opened(browser, served, served.token) as watched:
        page = watched.page
        await page.goto(f"{served.url}/jobs/{submitted['id']}")
        await page.get_by_text("As a command that submits it again").click()
        command = await page.locator("pre", has_text="container-manager submit").inner_text()
        await watched.check("a job as a command")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = environment(served.stderr.parent, CONTAINER_MANAGER_TOKEN=served.token, PATH=path)
    done = await asyncio.to_thread(subprocess.check_output, ["sh", "-c", f"{command} --json"], env=variables, text=True)
    again = json.loads(done)
    assert again["name"] == job["name"]
    query = "query($id: ID!) { job(id: $id) { image command priority labels } }"
    found = served.query(served.token, query, id=again["id"])
    assert found == {name: job[name] for name in ("image", "command", "priority", "labels")}


async def test_a_cut_connection_is_shown_and_leaves_no_gap(browser: Browser, served: Served, tmp_path: Path) -> None:
    async with opened(browser, served, served.token) as watched:
        page = watched.page
        await page.goto(served.url + "/events")
        await expect(page.locator("header .badge").first).to_contain_text("live")
        served.kill()
        await expect(page.locator("header .badge").first).to_contain_text("no connection for")
        port = served.url.rpartition(":")[2]
        with Served(tmp_path / "home", "serve", "--port", port, **UNMEASURED) as again:
            after = again.query(served.token, "{ eventCursor }")
            for number in range(5):
                job = {"image": "x", "name": f"after-{number}", "hostSelector": {"gpu": "none"}}
                again.query(served.token, SUBMIT, input=job)
            await expect(page.locator("header .badge").first).to_contain_text("live")
            await expect(page.get_by_text("after-4").first).to_be_visible()
            query = "query($after: String) { routingEvents(first: 100, after: $after) { edges { node { message } } } }"
            missed = again.query(served.token, query, after=after)["edges"]
            shown = await page.locator(".events li").all_inner_texts()
            for edge in missed:
                assert any(edge["node"]["message"] in text for text in shown), edge


async def test_a_fleet_is_changed_and_planned(browser: Browser, served: Served) -> None:
    async with opened(browser, served, served.token) as watched:
        page = watched.page
        await page.goto(served.url + "/fleet?create=1")
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name", exact=True).fill("bad name!")
        await dialog.get_by_label("Type").select_option("SIMULATED")
        await dialog.get_by_role("button", name="Create and check").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("Must begin with a letter or digit")
        await dialog.get_by_label("Name", exact=True).fill("new")
        await dialog.get_by_label("Labels").fill('{"gpu": "no", "rack": "row 7, left"}')
        await dialog.get_by_role("button", name="Create and check").click()
        await expect(page.get_by_text("Host new was created.")).to_be_visible()
        await page.get_by_role("link", name="new", exact=True).click()
        await page.get_by_role("button", name="Drain").click()
        await expect(page.locator(".title").get_by_text("draining")).to_be_visible()
        await page.get_by_role("button", name="Resume").click()
        await expect(page.get_by_role("button", name="Drain")).to_be_visible()
        await page.get_by_role("button", name="Edit").click()
        await dialog.get_by_label("Weight").fill("7")
        await dialog.get_by_role("button", name="Save").click()
        await expect(page.get_by_text("Host new was changed.")).to_be_visible()
        await page.goto(served.url + "/what-if")
        await page.get_by_label("A list of job inputs").fill(
            '[{"image": "x", "regionPreference": "eu-central", "regionRequired": true}]'
        )
        await page.get_by_role("button", name="Plan").click()
        # One job waits for a host that there is now.
        await expect(page.get_by_text("1 of 1 now, 1 with the changes")).to_be_visible()
        await page.get_by_label("is draining: frankfurt-1").check()
        await page.get_by_role("button", name="Plan").click()
        await expect(page.get_by_text("1 of 1 now, 0 with the changes")).to_be_visible()
        await expect(page.get_by_text("≠ changed")).to_be_visible()
        await page.get_by_role("button", name="Add a host").click()
        await page.get_by_label("Region: new host 1").fill("eu-central")
        await watched.check("what if, with a new host")
        await page.get_by_role("button", name="Plan").click()
        await expect(page.get_by_text("1 of 1 now, 1 with the changes")).to_be_visible()
        await expect(page.get_by_role("link", name="new-host-1")).to_be_visible()
        await page.get_by_label("Name: new host 1").fill("frankfurt-1")
        await page.get_by_role("button", name="Plan").click()
        await expect(page.get_by_text("addHosts.0.name: frankfurt-1 exists already.")).to_be_visible()


async def test_all_jobs_that_match_are_cancelled_after_a_question(browser: Browser, served: Served) -> None:
    async with opened(browser, served, served.token) as watched:
        page = watched.page
        await page.goto(served.url + "/jobs?status=PENDING&q=wait")
        await page.get_by_role("button", name="Cancel all that match…").click()
        await expect(page.get_by_text("Cancel 1 job?")).to_be_visible()
        await page.get_by_role("button", name="Yes").click()
        await expect(page.get_by_text("1 job cancelled.")).to_be_visible()
        await page.goto(served.url + "/jobs?status=CANCELLED")
        await page.get_by_role("link", name="waits").click()
        await expect(page.locator(".notice").first).to_contain_text("Cancelled by admin.")


async def test_the_keyboard_alone_is_enough(browser: Browser, served: Served) -> None:
    async with opened(browser, served, served.token) as watched:
        page = watched.page
        await page.keyboard.press("g")
        await page.keyboard.press("q")
        await page.keyboard.press("g")
        await page.keyboard.press("u")
        await expect(page.get_by_role("heading", name="Queue", exact=True)).to_be_visible()
        await page.keyboard.press("Control+k")
        await expect(page.get_by_role("combobox")).to_be_focused()
        await page.keyboard.type("breaks")
        await expect(page.get_by_role("option", name="breaks")).to_be_visible()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="breaks")).to_be_visible()
        await page.keyboard.press("g")
        await page.keyboard.press("f")
        await expect(page.get_by_role("heading", name="Fleet")).to_be_visible()
        await page.keyboard.press("/")
        await page.keyboard.type("frankfurt")
        await expect(page.get_by_text("1 host of")).to_be_visible()
        assert page.url.endswith("/fleet?q=frankfurt")


async def test_a_viewer_sees_no_button_that_it_may_not_use_and_signs_out(browser: Browser, served: Served) -> None:
    create = 'mutation { createToken(name: "guest", role: VIEWER) { ... on NewApiToken { secret } } }'
    secret = served.query(served.token, create)["secret"]
    async with opened(browser, served, secret) as watched:
        page = watched.page
        await page.goto(served.url + "/fleet/frankfurt-1")
        await expect(page.get_by_text("Why it was chosen")).to_be_visible()
        for name in ("Drain", "Edit", "Delete"):
            await expect(page.get_by_role("button", name=name)).to_have_count(0)
        await page.goto(served.url + "/admin")
        await expect(page.get_by_text("This page needs a token with the role admin")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        await page.goto(served.url + "/fleet")
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_operations_are_edited_and_run_in_the_browser(browser: Browser, served: Served) -> None:
    async with opened(browser, served, served.token) as watched:
        page = watched.page
        await page.goto(f"{served.url}/graphql")
        # It has a menu as soon as the editor has found several operations in its text.
        await page.locator(".graphiql-execute-button[aria-haspopup=menu]").click()
        await page.get_by_role("menuitem", name="Fleet").click()
        await expect(page.locator(".result-window")).to_contain_text("frankfurt-1")
        await page.locator(".graphiql-execute-button").click()
        await page.get_by_role("menuitem", name="Events").click()
        await expect(page.locator(".graphiql-execute-button")).to_have_attribute("aria-label", re.compile("Stop"))

        # The subscription may not have begun when the first jobs are submitted.
        async with asyncio.timeout(20):
            while "JOB_" not in await page.locator(".result-window").inner_text():
                await asyncio.to_thread(served.query, served.token, SUBMIT, input={"image": "x"})


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the dashboard, with what they are made by."""
    if shutil.which("npm") is None:
        pytest.skip("Node.js is not installed (Debian: apt-get install nodejs npm).")
    without = shutil.ignore_patterns("node_modules", "__pycache__")
    folder = shutil.copytree(ROOT / "dashboard", tmp_path_factory.mktemp("sources") / "dashboard", ignore=without)
    subprocess.run(["npm", "ci", "--silent"], cwd=folder, check=True, timeout=180)
    return folder


def made(folder: Path) -> dict[str, bytes]:
    """The files that scripts make of others."""
    files = [*(folder / "vendor").iterdir(), folder / "operations.js", folder / "operations.d.ts"]
    return {path.name: path.read_bytes() for path in files}


def test_what_is_made_is_up_to_date(sources: Path) -> None:
    subprocess.run(["node", "vendor.mjs"], cwd=sources, check=True, timeout=60)
    schema = str(ROOT / "graphql_api" / "schema.graphql")
    subprocess.run(["node", "operations.mjs", schema], cwd=sources, check=True, timeout=60)
    assert made(sources) == made(ROOT / "dashboard")


def test_the_scripts_fit_the_types_of_the_schema(sources: Path) -> None:
    done = subprocess.run(
        ["npx", "tsc", "-p", "jsconfig.json"], cwd=sources, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == ""
