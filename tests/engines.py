"""Docker engines of the tests' own, each in namespaces of its own, and Podman."""

import base64
import io
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import bcrypt
import httpx
from google.protobuf.any_pb2 import Any

from tests.eventually import eventually_sync

IMAGE = "busybox:test"
APPLETS = (
    "printf",
    "sh",
    "echo",
    "sleep",
    "cat",
    "true",
    "false",
    "id",
    "env",
    "head",
    "tail",
    "seq",
    "kill",
    "dd",
    "tr",
    "date",
    "ls",
    "grep",
    "pwd",
    "touch",
    "chown",
)


def missing() -> str | None:
    """Why no engine can be started here, in a sentence; None when one can."""
    if os.geteuid() != 0:
        return "Starting a Docker engine needs root."
    for program in ("docker", "dockerd", "nsenter", "unshare"):
        if shutil.which(program) is None:
            return f"A Docker engine needs {program} (Debian: docker.io, util-linux)."
    if shutil.which("docker-registry") is None:
        return "Pulling needs a registry (Debian: docker-registry)."
    if not Path("/bin/busybox").exists():
        return "The test image needs a static /bin/busybox (Debian: busybox-static)."
    return None


class EngineApi:
    """An engine's API behind a unix socket, and what a person at the host would do with it."""

    def __init__(self, prefix: str, disk_mb: int = 0) -> None:
        # Short, because a unix socket's path is.
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        self.data = self.folder / "data"
        self.data.mkdir()
        self._has_own_disk = bool(disk_mb)
        if disk_mb:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk_mb}m", "tmpfs", self.data], check=True)
        self.socket = self.folder / "d.sock"
        self._process: subprocess.Popen[bytes] | None = None
        transport = httpx.HTTPTransport(uds=str(self.socket))
        self._client = httpx.Client(transport=transport, base_url="http://engine", timeout=30)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def free_mb(self) -> int:
        """What is free on the disk of the engine's data."""
        return shutil.disk_usage(self.data).free // 2**20

    def _remove_folder(self) -> None:
        if self._has_own_disk:
            subprocess.run(["umount", "--lazy", self.data], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_and_load_image(self) -> None:
        eventually_sync(self.answers, 60, f"the engine does not answer: {(self.folder / 'log').read_text()[-500:]}")
        archive = io.BytesIO()
        _image(archive)
        params = {"fromSrc": "-", "repo": "busybox", "tag": "test"}
        made = self._client.post("/images/create", params=params, content=archive.getvalue()).json()["status"]
        # Podman ignores the tag.
        self._client.post(f"/images/{made}/tag", params={"repo": "busybox", "tag": "test"}).raise_for_status()

    def _listens(self) -> bool:
        # Connected by hand first: httpx leaves its socket open when the engine does not listen.
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def answers(self) -> bool:
        return self._listens() and self._client.get("/_ping").status_code == 200

    def make_events(self, count: int) -> None:
        """Let the engine record so many events of other containers."""
        for _ in range(count // 2):
            settings = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
            made = self._client.post("/containers/create", json=settings).json()
            self._client.delete(f"/containers/{made['Id']}").raise_for_status()

    def kill_container(self, container: str, signal: str = "KILL") -> None:
        """As a person at the host would."""
        self._client.post(f"/containers/{container}/kill", params={"signal": signal}).raise_for_status()

    def stop_container(self, container: str, grace: int = 10) -> None:
        """As a person at the host would."""
        self._client.post(f"/containers/{container}/stop", params={"t": grace}).raise_for_status()

    def restart_container(self, container: str) -> None:
        """As a person at the host would."""
        self._client.post(f"/containers/{container}/restart", params={"t": 1}).raise_for_status()

    def create_container(self, name: str, command: list[str], **labels: str) -> str:
        """A container that is not the service's; its id."""
        settings = {"Image": IMAGE, "Cmd": command, "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
        return self._client.post("/containers/create", params={"name": name}, json=settings).json()["Id"]

    def remove_containers(self) -> None:
        """Remove all of them, also those that run."""
        for container in self.containers():
            self._client.delete(f"/containers/{container['Id']}", params={"force": "1"})

    def inspect(self, container: str) -> dict:
        """What the engine says about a container."""
        return self._client.get(f"/containers/{container}/json").raise_for_status().json()

    def tag(self, image: str) -> None:
        """Give the test image another name."""
        repository, _, tag = image.rpartition(":")
        self._client.post(f"/images/{IMAGE}/tag", params={"repo": repository, "tag": tag}).raise_for_status()

    def untag(self, image: str) -> None:
        """Forget that name."""
        self._client.delete(f"/images/{image}").raise_for_status()

    def running(self) -> list[dict]:
        """The containers that run, as far as the engine says so."""
        try:
            return self._client.get("/containers/json").json() if self._listens() else []
        except httpx.HTTPError:
            return []

    def containers(self) -> list[dict]:
        """All containers, also those that do not run."""
        return self._client.get("/containers/json", params={"all": "1"}).json()


class Engine(EngineApi):
    """One dockerd with its own data, socket, and process, mount and network namespace."""

    def __init__(self, disk_mb: int = 0, *options: str) -> None:
        super().__init__("cme-", disk_mb)
        self._options = options
        self._helpers: list[subprocess.Popen[bytes]] = []

    def start(self) -> "Engine":
        # Started again when it ends, as a service manager would; what it ran may survive it.
        command = [
            "unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc",
            "sh", "-c", 'while true; do rm -f "$0"; "$@"; done', self.folder / "pid",
            "dockerd", "--host", self.url, "--data-root", self.data, "--exec-root", self.folder / "exec",
            "--pidfile", self.folder / "pid", "--bridge", "none", "--iptables=false", "--storage-driver", "vfs",
            *self._options,
        ]  # fmt: skip
        with (self.folder / "log").open("wb") as log:
            # Podman's monitor leaves files in its working directory.
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        self._wait_and_load_image()
        return self

    @contextmanager
    def journal(self) -> Iterator[Path]:
        """A file that gets the name of each container as it is started: what really happened."""
        path = self.folder / "journal"
        arguments = ["--filter", "event=start", "--format", "{{.Actor.Attributes.name}}"]
        with path.open("wb") as out:
            process = subprocess.Popen(["docker", "--host", self.url, "events", *arguments], stdout=out)
        try:
            yield path
        finally:
            process.kill()
            process.wait(10)

    def pause(self, program: str = "dockerd") -> None:
        """Stop the engine as SIGSTOP does: it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP, program)

    def resume(self, program: str = "dockerd") -> None:
        self._signal(signal.SIGCONT, program)

    @contextmanager
    def without_network(self) -> Iterator[None]:
        """No container can be started: the engine's own hook for its network does not reach it."""
        (socket_file,) = (self.folder / "exec" / "libnetwork").glob("*.sock")
        elsewhere = socket_file.rename(socket_file.with_suffix(".gone"))
        yield
        elsewhere.rename(socket_file)

    def hear_of_start(self, container: str) -> None:
        """Publish the late start event of a process that has ended: what an engine gets that was killed during a start."""
        # The container's 64 digits, and a number that no process has.
        started = b"\x0a\x40" + container.encode() + b"\x10\xff\xff\xff\x01"
        event = Any(type_url="containerd.events.TaskStart", value=started).SerializeToString()
        address = self.folder / "exec" / "containerd" / "containerd.sock"
        publish = ["publish", "--namespace", "moby", "--topic", "/tasks/start"]
        subprocess.run(["containerd", "--address", address, *publish], input=event, check=True, timeout=20)

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the engine; it is started again at once."""
        self._signal(how)

    def wait_until_up(self) -> None:
        eventually_sync(self.answers, 60, "the engine does not answer")

    def _signal(self, number: int, program: str = "dockerd") -> None:
        for pid in _descendants(self._process.pid):
            if _name(pid) == program:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def serve_registry(self, port: int, login: str = "") -> str:
        """Start a registry that only this engine reaches, by its own loopback; its name. `login` is NAME:PASSWORD."""
        configuration = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.folder}/registry-{port}}}}}\n"
        configuration += f"http: {{addr: '127.0.0.1:{port}'}}\n"
        if login:
            name, _, password = login.partition(":")
            digest = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
            (self.folder / "htpasswd").write_text(f"{name}:{digest}\n")
            configuration += f"auth: {{htpasswd: {{realm: test, path: {self.folder}/htpasswd}}}}\n"
        path = self.folder / f"registry-{port}.yml"
        path.write_text(configuration)
        self._inside("busybox", "ip", "link", "set", "lo", "up").wait(10)
        self._inside("docker-registry", "serve", path)
        name = f"127.0.0.1:{port}"
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5).close()"
        eventually_sync(lambda: self._inside(sys.executable, "-S", "-c", connect).wait(10) == 0, 20)
        return name

    def push(self, name: str, login: dict[str, str] | None = None, ballast: int = 0) -> None:
        """Push the test image under another name, with so many random bytes in it, and forget it here."""
        repository, _, tag = name.rpartition(":")
        if ballast:
            with tempfile.TemporaryFile() as file:
                _image(file, ballast)
                file.seek(0)
                params = {"fromSrc": "-", "repo": repository, "tag": tag}
                self._client.post("/images/create", params=params, content=file, timeout=120).raise_for_status()
        else:
            self._client.post(f"/images/{IMAGE}/tag", params={"repo": repository, "tag": tag}).raise_for_status()
        header = base64.urlsafe_b64encode(json.dumps(login or {}).encode()).decode()
        pushed = self._client.post(
            f"/images/{repository}/push", params={"tag": tag}, headers={"X-Registry-Auth": header}, timeout=120
        )
        assert '"error"' not in pushed.text, pushed.text
        self._client.delete(f"/images/{name}").raise_for_status()

    def _inside(self, *command: object) -> subprocess.Popen[bytes]:
        dockerd = next(pid for pid in _descendants(self._process.pid) if _name(pid) == "dockerd")
        nsenter = ["nsenter", "--target", str(dockerd), "--net"]
        process = subprocess.Popen([*nsenter, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._helpers.append(process)
        return process

    def stop(self) -> None:
        for helper in self._helpers:
            helper.kill()
            helper.wait(10)
        self._client.close()
        if self._process is not None:
            self.resume()
            for pid in reversed(_descendants(self._process.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(30)
        self._remove_folder()


# What the kernel answers of a process that has just ended.
GONE = (FileNotFoundError, ProcessLookupError)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except GONE:
        return ""


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with suppress(*GONE):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
    return found


def _image(archive: IO[bytes], ballast: int = 0) -> None:
    with tarfile.open(fileobj=archive, mode="w") as tar:
        folder = tarfile.TarInfo("bin")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        tar.add("/bin/busybox", "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        if ballast:
            info = tarfile.TarInfo("ballast")
            info.size = ballast
            with open("/dev/urandom", "rb") as random:
                tar.addfile(info, random)


def podman_missing() -> str | None:
    """Why no Podman can be started here, in a sentence; None when one can."""
    if os.geteuid() != 0:
        return "Starting Podman with limits of resources needs root."
    for program in ("podman", "runc", "conmon"):
        if shutil.which(program) is None:
            return f"Podman needs {program} (Debian: podman, runc, conmon, catatonit)."
    if not Path("/bin/busybox").exists():
        return "The test image needs a static /bin/busybox (Debian: busybox-static)."
    return None


class Podman(EngineApi):
    """One Podman that answers as a Docker engine does, with its own data and socket."""

    def __init__(self, disk_mb: int = 0) -> None:
        super().__init__("cmp-", disk_mb)
        # As a machine without systemd and without the capability to raise limits needs it.
        processes = min(resource.getrlimit(resource.RLIMIT_NPROC)[1], 90_000) // 3
        (self.folder / "containers.conf").write_text(
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
            f'[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc={processes}:{processes}"]\n'
        )
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{self.folder}/run"\ngraphroot = "{self.data}"\n'
        )
        variables = {"CONTAINERS_CONF": "containers.conf", "CONTAINERS_STORAGE_CONF": "storage.conf"}
        self._variables = {**os.environ, **{name: str(self.folder / file) for name, file in variables.items()}}

    def start(self) -> "Podman":
        self.serve()
        self._wait_and_load_image()
        return self

    def serve(self) -> None:
        """Start the service; the containers do not need it."""
        command = ["podman", "system", "service", "--time=0", self.url]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._variables, stdout=log, stderr=log, start_new_session=True
            )

    def restart(self) -> None:
        """Stop the service and start it again. Killed in the middle of a call it would leave its own locks behind."""
        self._process.terminate()
        self._process.wait(20)
        self.socket.unlink(missing_ok=True)
        self.serve()
        eventually_sync(self.answers, 60, "Podman does not answer")

    def stop(self) -> None:
        self._client.close()
        subprocess.run(
            ["podman", "rm", "--all", "--force", "--time=0"],
            env=self._variables,
            timeout=60,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
        self._remove_folder()
