"""What every executor owes: the same tests on real engines, a local Cloud Run, the simulator and an example."""

import sys

import pytest

from container_manager.executors.base import ContainerExecutor
from container_manager.executors.cloudrun import CloudRunExecutor
from container_manager.executors.docker import DockerExecutor
from container_manager.executors.simulated import SimulatedExecutor
from container_manager.testing import ExecutorContract, Make, settings
from tests.cloudrun import CloudRun, hurry
from tests.engines import Engine, Podman
from tests.eventually import eventually
from tests.processes import ROOT


class Watching(ExecutorContract):
    """Executors that watch their host by a stream."""

    async def watched(self, executor: ContainerExecutor) -> None:
        await super().watched(executor)
        await eventually(lambda: executor.watcher.is_watching)


class TestDocker(Watching):
    unreachable = {"url": "tcp://127.0.0.1:1"}

    @pytest.fixture
    def make(self, engine: Engine) -> Make:
        return lambda **more: DockerExecutor(settings({"url": engine.url}, **more))


class TestPodman(Watching):
    unreachable = {"url": "tcp://127.0.0.1:1"}

    @pytest.fixture
    def make(self, podman: Podman) -> Make:
        return lambda **more: DockerExecutor(settings({"url": podman.url}, **more))


class TestCloudRun(Watching):
    unreachable = CloudRun().config(endpoint="127.0.0.1:1")

    @pytest.fixture
    def make(self, cloudrun: CloudRun, monkeypatch: pytest.MonkeyPatch) -> Make:
        hurry(monkeypatch)
        return lambda **more: CloudRunExecutor(settings(cloudrun.config(), **more))


class TestSimulated(ExecutorContract):
    survives = refuses_images = False
    unreachable = {"healthy": False}

    @pytest.fixture
    def make(self) -> Make:
        return lambda **more: SimulatedExecutor(settings({"accept": "any", "launch_ms": 0}, **more))


class TestExample(ExecutorContract):
    survives = refuses_images = False
    unreachable = {"folder": "/does/not/exist"}

    @pytest.fixture
    def make(self, monkeypatch: pytest.MonkeyPatch) -> Make:
        monkeypatch.setattr(sys, "path", [str(ROOT / "examples/executor"), *sys.path])
        from process_executor import ProcessExecutor

        return lambda **more: ProcessExecutor(settings({}, **more))
