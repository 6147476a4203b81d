"""The commands that are clients of the service, as a person and as a script use them."""

import asyncio
import json
import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from container_manager.cli.main import main
from tests.client import CREATE_HOST
from tests.engines import Engine
from tests.eventually import eventually_sync
from tests.pages import blocks
from tests.postgres import free_port
from tests.processes import Served, command, environment
from tests.terminal import Terminal

SIMULATED = {"name": "sim", "executorType": "SIMULATED", "config": {"accept": "any", "launch_ms": 0, "run_ms": 1}}
FULL = {"name": "small", "executorType": "SIMULATED", "region": "eu", "maxMemoryMb": 512, "config": {"accept": "any"}}
NEVER = ("submit", "--image", "x", "--name", "giant", "--memory", "4096", "--require-region", "eu")
PROGRAM = [sys.executable, "-m", "container_manager"]

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("terminal")) as served:
        for host in (SIMULATED, FULL):
            assert served.query(served.token, CREATE_HOST, input=host)["health"]["status"] == "HEALTHY"
        yield served


@pytest.fixture
def variables(served: Served, tmp_path: Path) -> dict[str, str]:
    """The environment of a user who is logged in by it."""
    here = {"XDG_CONFIG_HOME": str(tmp_path), "CONTAINER_MANAGER_URL": served.url}
    return environment(tmp_path, CONTAINER_MANAGER_TOKEN=served.token, **here)


@pytest.fixture
def run(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command as a script runs it, in this process."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments, **options: CliRunner().invoke(main, arguments, **options)


@pytest.fixture
def terminal(variables: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """A command as a person runs it."""
    opened: list[Terminal] = []

    def begin(*arguments: str) -> Terminal:
        opened.append(Terminal([*PROGRAM, *arguments], variables, tmp_path))
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


def submitted(run: Run, *arguments: str) -> str:
    """The number of a new job."""
    done = run("submit", "--image", "busybox", "-q", *arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout.strip()


# ---------------------------------------------------------------- submit


def test_submit_follows_a_job_and_exits_with_its_code(run: Run) -> None:
    done = run("submit", "--image", "busybox", "--follow", "--", "echo one; echo two; exit 3")
    assert (done.exit_code, done.stdout) == (3, "one\ntwo\n")
    assert re.search(r"Job \d+ is ROUTED on \w+: Drawn by weight", done.stderr)
    assert re.search(r"Job \d+ is FAILED after [\d.]+s, exit code 3\.", done.stderr)


def test_submit_waits_for_a_job(run: Run) -> None:
    done = run("submit", "--image", "busybox", "--wait", "--json", "--name", "n", "--label", "a=b", "--", "exit 0")
    job = json.loads(done.stdout)
    assert (done.exit_code, job["status"], job["name"], job["labels"]) == (0, "SUCCEEDED", "n", {"a": "b"})
    done = run("submit", "--image", "busybox", "--wait", "--timeout", "1", "--", "sleep 60")
    assert (done.exit_code, "is TIMED_OUT" in done.stderr) == (124, True)


def test_a_script_gets_the_number_of_a_job(run: Run) -> None:
    number = submitted(run)
    assert number.isdecimal()
    shown = run("job", number, "--json")
    assert json.loads(shown.stdout)["image"] == "busybox"


def test_a_file_has_one_job_or_many(run: Run, tmp_path: Path) -> None:
    one = {
        "image": "busybox",
        "command": ["echo $A"],
        "environment": {"A": "b"},
        "memoryLimitMb": 64,
        "tmpfs": {"/x": 1},
    }
    path = tmp_path / "jobs.yaml"
    path.write_text(yaml.safe_dump(one))
    done = run("submit", "--file", str(path), "--memory", "32", "--wait", "--json")
    assert done.exit_code == 0, done.stderr
    details = json.loads(run("job", json.loads(done.stdout)["id"], "--json").stdout)
    assert (details["memoryLimitMb"], details["environmentNames"], details["tmpfs"]) == (32, ["A"], {"/x": 1})
    path.write_text(json.dumps({"jobs": [{**one, "name": f"n{number}"} for number in range(3)]}))
    done = run("submit", "-f", str(path), "--wait", "--json")
    assert [job["status"] for job in json.loads(done.stdout)] == ["SUCCEEDED"] * 3
    done = run("submit", "-f", "-", input="[{image: busybox}, {image: 'A B'}]")
    assert (done.exit_code, "job 2 of 2 was refused: inputs.1.image: is not an image" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imge: x", "job 1: imge: there is no such field; did you mean image?"),
        ("image: x\ncommand: echo hi", "job 1: command: must be a list of arguments, such as ['echo', 'hi']"),
        ("image: x\nmemory: 3", "job 1: memory: there is no such field; did you mean memory_limit_mb?"),
        ("image: x\nmemoryLimitMb: much", "job 1: memory_limit_mb: Input should be a valid integer"),
        ("- 1", "has no jobs: it must be an object, or a list of objects"),
        ("{", "is no YAML"),
        ("name: x", "job 1: an image is needed"),
    ],
)
def test_a_wrong_file_is_refused_with_a_sentence(run: Run, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(text)
    done = run("submit", "-f", str(path))
    assert done.exit_code in {1, 2}
    assert message in done.stderr


def test_a_job_that_cannot_run_says_what_would_help(run: Run) -> None:
    done = run(*NEVER)
    assert done.exit_code == 0
    assert "waits: No host could ever take this job" in done.stdout
    assert "It would run if:" in done.stdout
    assert "It waits: No host could ever take this job" in run("explain", "giant").stdout
    assert "waits for" in run("job", "giant").stdout
    refused = run("why-not", "giant", "small")
    assert refused.stdout.startswith("small cannot take it: NEVER.")
    assert re.search(r"MEMORY +no +4096 MiB +\d+ MiB free of 512 MiB", refused.stdout), refused.stdout
    assert json.loads(run("why-not", "giant", "sim", "--json").stdout)["verdict"] == "NEVER"
    assert re.search(r"NEVER +[\d.]+s +\w.*(MEMORY|REGION) \d", run("queue").stdout)
    assert json.loads(run("queue", "--json").stdout)["pending"] >= 1
    assert run("cancel", "giant").exit_code == 0


# ---------------------------------------------------------------- jobs, logs, explain


def test_jobs_are_listed_as_a_table_and_as_json(run: Run) -> None:
    number = submitted(run, "--name", "listed", "--", "exit 4")
    eventually_sync(lambda: json.loads(run("job", number, "--json").stdout)["status"] == "FAILED")
    head, line = run("jobs", "--name", "listed", "--failed").stdout.splitlines()
    assert head.split() == ["NUMBER", "NAME", "IMAGE", "STATUS", "HOST", "EXIT", "ATTEMPT", "AGE", "RAN"]
    assert line.split()[:4] == [number, "listed", "busybox", "FAILED"]
    (job,) = json.loads(run("jobs", "--name", "listed", "--json").stdout)
    assert job["exitCode"] == 4
    chosen = run("jobs", "--last", "1", "-o", "name,status,host.name")
    assert chosen.stdout.splitlines()[0].split() == ["NAME", "STATUS", "HOST.NAME"]
    wrong = run("jobs", "-o", "nme")
    assert (wrong.exit_code, "there is no 'nme'; there is: number, id, name" in wrong.stderr) == (2, True)
    assert run("jobs", "--label", "no=where").stderr == "There is no such job.\n"
    assert run("retry", number).stdout.startswith(f"Job {number} runs again")
    assert run("job", "listed").stdout.startswith(f"job        {number}\nname       listed")


def test_logs_of_a_job_that_runs_and_that_has_ended(run: Run) -> None:
    number = submitted(run, "--", "echo first; sleep 60; echo second")
    eventually_sync(lambda: json.loads(run("job", number, "--json").stdout)["status"] == "RUNNING")
    running = run("logs", number)
    assert (running.stdout, "--follow waits for more" in running.stderr) == ("first\n", True)
    assert run("cancel", number).exit_code == 0
    followed = run("logs", number, "--follow", "--timestamps")
    assert re.fullmatch(r"\d{4}-\S+Z  first\n", followed.stdout)
    assert [json.loads(line)["text"] for line in run("logs", number, "--json").stdout.splitlines()] == ["first"]


def test_a_decision_is_shown_as_hosts_by_checks(run: Run) -> None:
    # The jobs of other tests hold their room until their ends are committed.
    unfinished = ("PENDING", "ROUTED", "LAUNCHING", "RUNNING")
    eventually_sync(lambda: all(job["status"] not in unfinished for job in json.loads(run("jobs", "--json").stdout)))
    number = submitted(run, "--require-region", "eu", "--", "exit 0")
    shown = run("explain", number).stdout
    assert re.search(r"→  small +FEASIBLE +100 +ok", shown), shown
    assert re.search(r"sim +NEVER +100 +no", shown)
    assert "REGION" in shown
    assert "sim needs region eu" in shown
    assert json.loads(run("explain", number, "--json").stdout)["decisions"][0]["host"]["name"] == "small"


def test_a_plan_says_where_jobs_would_go(run: Run, tmp_path: Path) -> None:
    number = submitted(run, "--require-region", "eu", "--memory", "64", "--", "sleep 60")
    eventually_sync(lambda: json.loads(run("job", number, "--json").stdout)["status"] == "RUNNING")
    planned = run("plan", "--drain", "small")
    assert planned.exit_code == 1
    assert re.search(rf"{number} busybox +none +No host", planned.stdout), planned.stdout
    more = tmp_path / "more.yaml"
    more.write_text(json.dumps({"hosts": [{**FULL, "name": "second"}]}))
    planned = run("plan", "--drain", "small", "--add", str(more))
    assert (planned.exit_code, "second" in planned.stdout) == (0, True), planned.output
    wanted = tmp_path / "jobs.yaml"
    wanted.write_text("image: busybox\nname: planned\nmemoryLimitMb: 16")
    planned = run("plan", "-f", str(wanted), "--weight", "sim=0", "--slots", "small=5", "--json")
    assert [one["hostName"] for one in json.loads(planned.stdout)["placements"]] == ["small"]
    run("cancel", number)


# ---------------------------------------------------------------- hosts


def test_hosts_are_created_changed_and_deleted(run: Run) -> None:
    made = run("hosts", "create", "h1", "--type", "simulated", "--label", "disk=ssd", "--config", '{"healthy": true}')
    assert made.stdout == "Host h1 is active and HEALTHY.\n"
    assert run("hosts", "create", "h1", "--type", "simulated").exit_code == 1
    assert (
        json.loads(run("hosts", "update", "h1", "--slots", "3", "--json").stdout)[0]["capacity"]["maxConcurrentJobs"]
        == 3
    )
    assert (
        "Host h1 is empty" in run("hosts", "drain", "h1").stdout
        or "draining" in run("hosts", "--label", "disk=ssd").stdout
    )
    assert "Host h1 is active" in run("hosts", "resume", "h1").stdout
    run("hosts", "update", "h1", "--config", '{"healthy": false}')
    asked = run("hosts", "lost", "h1", input="n\n")
    assert (asked.exit_code, "Is it gone for good?" in asked.stderr) == (1, True)
    gone = eventually_sync(lambda: run("hosts", "lost", "h1", "--yes").stdout, 60, "three failed probes")
    assert "Host h1 is inactive" in gone
    listed = json.loads(run("hosts", "--label", "disk=ssd", "--json").stdout)
    assert [(host["name"], host["isActive"]) for host in listed] == [("h1", False)]
    assert run("hosts", "-o", "name,health.status").stdout.splitlines()[0].split() == ["NAME", "HEALTH.STATUS"]
    assert run("hosts", "delete", "h1").stdout == "Host h1 is deleted.\n"
    assert run("hosts", "delete", "h1").exit_code == 3
    wrong = run("hosts", "create", "h1", "--config", "{")
    assert (wrong.exit_code, "this is no JSON" in wrong.stderr) == (2, True)
    unsafe = run("hosts", "create", "h1", "--type", "simulated", "--config", '{"hxalthy": true}')
    assert (unsafe.exit_code, "config.hxalthy" in unsafe.stderr) == (1, True)


def test_the_fleet_is_a_file(run: Run, tmp_path: Path) -> None:
    exported = run("hosts", "export")
    path = tmp_path / "fleet.yaml"
    path.write_text(exported.stdout)
    assert {host["change"] for host in json.loads(run("hosts", "apply", "-f", str(path), "--json").stdout)} == {
        "UNCHANGED"
    }
    fleet = yaml.safe_load(exported.stdout)["hosts"]
    next(host for host in fleet if host["name"] == "sim")["routingWeight"] = 120
    path.write_text(json.dumps([*fleet, {**SIMULATED, "name": "new"}]))
    would = run("hosts", "apply", "-f", str(path), "--dry-run").stdout
    assert re.search(r"sim +UPDATED +routingWeight: 100 to 120", would), would
    assert re.search(r"new +CREATED", would)
    refused = run("hosts", "apply", "-f", str(path), input="n\n")
    assert (refused.exit_code, "Apply this?" in refused.stderr) == (1, True)
    assert run("hosts", "apply", "-f", str(path), "--yes").exit_code == 0
    assert json.loads(run("hosts", "--json").stdout)[-2]["routingWeight"] == 120
    path.write_text(json.dumps([{"name": "new", "executorType": "docker"}]))
    assert run("hosts", "apply", "-f", str(path), "--yes").exit_code == 1
    run("hosts", "delete", "new")


def test_a_question_can_be_left(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(json.dumps([{**SIMULATED, "name": "never"}]))
    asking = terminal("hosts", "apply", "-f", "fleet.yaml")
    asking.shows("Apply this?")
    asking.type("\x03")
    assert asking.ends() == 130


# ---------------------------------------------------------------- events, top


def test_events_are_printed_and_followed_from_a_cursor(run: Run) -> None:
    run("submit", "--image", "busybox", "--wait", "--name", "told", "--", "exit 0")
    of_job = [json.loads(line) for line in run("events", "--job", "told", "--json").stdout.splitlines()]
    assert [event["kind"] for event in of_job][:2] == ["JOB_SUBMITTED", "JOB_ROUTED"]
    after = run("events", "--after", of_job[1]["cursor"], "--kind", "job_finished", "--job", "told").stdout
    assert re.fullmatch(r" +\d+  [\d-]+ [\d:]+  JOB_FINISHED +job \d+ +SUCCEEDED, exit code 0\n", after)
    assert len(run("events", "--after", "0", "--json").stdout.splitlines()) > 3
    assert run("events", "--host", "sim", "--last", "1").stdout.count("\n") == 1


def test_top_shows_the_fleet(run: Run, terminal: Callable[..., Terminal]) -> None:
    piped = run("top").stdout
    assert re.search(r"running +\d+", piped)
    assert re.search(r"small +SIMULATED +eu +HEALTHY", piped)
    assert "jobStats" in json.loads(run("top", "--json").stdout)
    live = terminal("top")
    live.shows("small")
    live.type("\x03")
    assert live.ends() == 130
    assert "Traceback" not in live.text


# ---------------------------------------------------------------- a terminal


def test_on_a_terminal_tables_have_colours_and_piped_ones_do_not(run: Run, terminal: Callable[..., Terminal]) -> None:
    shown = terminal("hosts")
    assert shown.ends() == 0
    assert re.search(r"\x1b\[32mHEALTHY", shown.text)
    assert "\x1b" not in run("hosts").stdout


def test_follow_tells_on_a_terminal_what_happens_and_can_be_left(terminal: Callable[..., Terminal], run: Run) -> None:
    followed = terminal("submit", "--image", "busybox", "--name", "left", "--follow", "--", "echo up; sleep 60")
    followed.shows("up")
    followed.shows("Attempt 1 runs.")
    followed.type("\x03")
    assert followed.ends() == 130
    assert re.search(r"Job \d+ goes on; `container-manager cancel \d+` ends it\.", followed.text)
    assert json.loads(run("job", "left", "--json").stdout)["status"] == "RUNNING"
    run("cancel", "left")


# ---------------------------------------------------------------- servers, tokens, exit codes


def test_what_went_wrong_is_told_by_the_exit_code(run: Run, served: Served) -> None:
    away = run("jobs", "--server", "http://127.0.0.1:9", "--token", "x")
    assert (away.exit_code, "Is it running there?" in away.stderr) == (4, True)
    assert run("jobs", "--server", "localhost").exit_code == 1
    stranger = run("jobs", "--token", "x")
    assert (stranger.exit_code, "keep it with `container-manager login`" in stranger.stderr) == (5, True)
    assert run("job", "999999").exit_code == 3
    assert run("job", "no-such").exit_code == 3
    assert run("submit").exit_code == 2
    assert run("submit", "--image", "x", "--env", "A").exit_code == 2
    told = run("submit", "--image", "A B", "--json")
    error = json.loads(told.stderr)["error"]
    assert (told.exit_code, error["code"], error["fields"][0]["field"]) == (1, "VALIDATION_FAILED", "image")


def test_what_is_typed_comes_before_the_environment(
    run: Run, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("login", served.url, "--token", served.token, "--context", "real").exit_code == 0
    monkeypatch.setenv("CONTAINER_MANAGER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CONTAINER_MANAGER_TOKEN", "of-another")
    assert run("hosts").exit_code == 4
    # Before and after the name of a command below `hosts`.
    assert run("hosts", "--server", served.url, "--token", served.token, "drain", "sim").exit_code == 0
    assert run("hosts", "resume", "sim", "--context", "real").exit_code == 0
    assert json.loads(run("hosts", "--json", "--context", "real", "drain", "sim").stdout)[0]["isDraining"]
    assert run("hosts", "resume", "sim", "--server", served.url).exit_code == 5
    monkeypatch.delenv("CONTAINER_MANAGER_URL")
    # The kept token, and not that of the environment, goes to the kept server.
    assert run("hosts", "resume", "sim").exit_code == 0


def test_of_several_things_each_is_tried(run: Run) -> None:
    first, last = submitted(run, "--", "sleep 60"), submitted(run, "--", "sleep 60")
    done = run("cancel", first, "no-such", last)
    assert (done.exit_code, done.stdout.count("is cancelled")) == (3, 2)
    assert "Error: no-such: There is no job" in done.stderr
    done = run("hosts", "resume", "no-such", "sim")
    assert (done.exit_code, "Host sim is active" in done.stdout) == (3, True)


def test_text_of_a_server_cannot_move_the_cursor_or_forge_a_line(run: Run) -> None:
    number = submitted(run, "--name", "a\x1b]52;c;eA==\x07\nforged", "--", "exit 0")
    for shown in (run("jobs", "--last", "1").stdout, run("job", number).stdout, run("events", "--last", "5").stdout):
        assert "\x1b" not in shown
        assert "\nforged" not in shown
    assert "\\x1b]52" in run("jobs", "--last", "1").stdout


def test_login_keeps_servers_and_their_tokens(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONTAINER_MANAGER_URL", "CONTAINER_MANAGER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*arguments: str, **options: str) -> Result:
        return CliRunner().invoke(main, arguments, **options)

    assert run("login", served.url, "--token", "wrong").exit_code == 5
    done = run("login", served.url, input=f"{served.token}\n")
    assert done.stdout == f"Logged in to {served.url} as admin (ADMIN).\n"
    kept = tmp_path / "container-manager/contexts.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert run("hosts").exit_code == 0
    # The token is not shown to another server.
    assert run("hosts", "--server", f"http://localhost:{served.url.rsplit(':')[-1]}").exit_code == 5
    run("login", served.url, "--token", served.token, "--context", "second")
    assert re.search(r"\* +second +http", run("contexts").stdout)
    run("contexts", "default")
    assert re.search(r"\* +default +http", run("contexts").stdout)
    assert run("hosts", "--context", "third").exit_code == 1
    assert run("logout", "second").exit_code == 0
    assert run("logout").exit_code == 0
    assert run("hosts", "--server", served.url).exit_code == 5
    kept.write_text("{")
    assert "mend or remove it" in run("contexts").stderr


def test_shells_complete_commands_and_names(run: Run, variables: dict[str, str], tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_CONTAINER_MANAGER_COMPLETE" in run("completion", shell).stdout
    number = submitted(run, "--name", "completed")

    def completed(words: str) -> list[str]:
        shell = {
            "_CONTAINER_MANAGER_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        done = Terminal([*PROGRAM], {**variables, **shell}, tmp_path)
        assert done.ends() == 0
        done.close()
        return [line.partition(",")[2] for line in done.text.splitlines() if "," in line]

    assert "why-not" in completed("container-manager w")
    assert number in completed(f"container-manager why-not {number[:1]}")
    assert completed(f"container-manager why-not {number} sm") == ["small"]
    variables["CONTAINER_MANAGER_URL"] = "http://127.0.0.1:9"
    assert completed("container-manager job ") == []


# ---------------------------------------------------------------- restarts


def test_submit_follow_outlives_restarts_of_the_service(engine: Engine, tmp_path: Path) -> None:
    serve = ("serve", "--port", str(free_port()))
    script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit 7"
    with Served(tmp_path, *serve) as served:
        host = {"name": "engine", "executorType": "DOCKER", "config": {"url": engine.url}}
        assert served.query(served.token, CREATE_HOST, input=host)["health"]["status"] == "HEALTHY"
        place = {"CONTAINER_MANAGER_URL": served.url, "CONTAINER_MANAGER_TOKEN": served.token}
        arguments = ("submit", "--image", "busybox:test", "--follow", "--", "sh", "-c", script)
        followed = Terminal([*PROGRAM, *arguments], environment(tmp_path, **place), tmp_path)
        followed.shows("line 50\n")
        served.kill()
    with Served(tmp_path, *serve) as served:
        followed.shows("line 150\n", 30)
        os.kill(served.process.pid, signal.SIGTERM)
        served.process.wait(15)
    with Served(tmp_path, *serve):
        assert followed.ends(60) == 7
    assert re.findall(r"^line (\d+)$", followed.text, re.MULTILINE) == [str(number) for number in range(1, 301)]
    followed.close()


def test_follow_needs_one_job(run: Run) -> None:
    done = run("submit", "-f", "-", "--follow", input="[{image: a}, {image: b}]")
    assert (done.exit_code, "use --wait for several" in done.stderr) == (2, True)


def test_help_names_every_command(tmp_path: Path) -> None:
    shown = command(tmp_path, "--help").stdout
    assert all(f"\n  {name} " in shown for name in main.commands)


# ---------------------------------------------------------------- agents


async def test_an_agent_finds_out_why_a_job_waits_and_what_would_help(
    run: Run, variables: dict[str, str], tmp_path: Path
) -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    assert (await asyncio.to_thread(run, *NEVER)).exit_code == 0
    (shown,) = json.loads(blocks("agents.md", "json")[0])["mcpServers"].values()
    assert shown["env"].keys() <= variables.keys()
    server = StdioServerParameters(
        command=str(Path(sys.executable).with_name(shown["command"])), args=shown["args"], env=variables, cwd=tmp_path
    )
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert tools.keys() == {"job", "jobs", "explain", "why_not", "queue", "hosts", "logs", "plan", "events"}
        assert all(tool.annotations.read_only_hint for tool in tools.values())

        async def ask(tool: str, **arguments: object) -> str:
            answer = await session.call_tool(tool, arguments)
            return "".join(part.text for part in answer.content)

        assert "No host could ever take this job" in await ask("job", job="giant")
        assert "4096 MiB" in await ask("why_not", job="giant", host="small")
        assert '"decisions"' in await ask("explain", job="giant")
        assert "NEVER" in await ask("queue")
        assert '"small"' in await ask("hosts")
        assert "giant" in await ask("jobs", status=["PENDING"], name="gia")
        assert "JOB_REFUSED" in await ask("events", job="giant")
        planned = await ask("plan", drain=["small"], weights={"sim": 5}, jobs=[{"image": "x", "memory_limit_mb": 16}])
        assert '"sim"' in planned
        assert "There is no job" in await ask("job", job="nothing")
        number = (
            await asyncio.to_thread(run, "submit", "--image", "busybox", "--wait", "--json", "--", "echo told; exit 0")
        ).stdout
        assert "told" in await ask("logs", job=json.loads(number)["id"])
    writing = StdioServerParameters(command=server.command, args=[*server.args, "--write"], env=variables, cwd=tmp_path)
    async with stdio_client(writing) as streams, ClientSession(*streams) as session:
        await session.initialize()
        done = await session.call_tool(
            "submit", {"image": "busybox", "command": ["exit 1"], "options": {"name": "asked"}}
        )
        assert not done.is_error
        await session.call_tool("drain", {"host": "small"})
        assert (
            "draining" in (await asyncio.to_thread(run, "hosts")).stdout
            or "empty" in (await asyncio.to_thread(run, "hosts")).stdout
        )
        await session.call_tool("resume", {"host": "small"})
        await session.call_tool("cancel", {"job": "giant"})
        assert json.loads((await asyncio.to_thread(run, "job", "giant", "--json")).stdout)["status"] == "CANCELLED"
        await session.call_tool("retry", {"job": "giant"})
        assert json.loads((await asyncio.to_thread(run, "job", "giant", "--json")).stdout)["attempt"] == 2
        await session.call_tool("cancel", {"job": "giant"})
