"""The shop with a service that runs in the same process, as it does under ASGI."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core import management
from django.db import transaction
from django.test import Client, TransactionTestCase

from container_manager.embed import asubmit, lifespan, submit
from container_manager.errors import Conflict, ValidationFailed
from container_manager.models import ContainerJob, ExecutorHost, OutboxEntry
from container_manager.service import Service
from container_manager.signals import job_ended
from container_manager.store.transaction import Actor
from orders.models import Order
from orders.tasks import report, total

SIMULATED = {"name": "sim", "executor_type": "simulated", "config": {"accept": "any", "launch_ms": 0, "run_ms": 1}}


async def eventually(condition: Callable[[], Any]) -> Any:
    """The first true value of a condition that reads the database."""
    deadline = time.monotonic() + 20
    while not (value := await sync_to_async(condition)()):
        if time.monotonic() > deadline:
            raise AssertionError("not within 20 s")
        await asyncio.sleep(0.02)
    return value


async def with_host(service: Service) -> None:
    """A host that takes every job."""
    await service.hosts.create(SIMULATED, Actor("test"))


class ShopTest(TransactionTestCase):
    """Orders, invoices, tasks and the admin."""

    async def test_an_order_gets_its_invoice(self) -> None:
        async with lifespan() as service:
            await with_host(service)
            answer = await self.async_client.post("/orders/", {"article": "tea"})
            order = answer.json()["order"]
            await eventually(lambda: Order.objects.get(pk=order).invoice == "succeeded")
            answer = await self.async_client.get(f"/orders/{order}/")
            self.assertEqual(answer.json(), {"article": "tea", "invoice": "succeeded"})

    async def test_a_job_is_submitted_with_the_transaction_of_its_caller(self) -> None:
        def rolled_back() -> Any:
            with transaction.atomic():
                job = submit("shop:1", name="never")
                transaction.set_rollback(True)
            return job

        def committed() -> Any:
            with transaction.atomic():
                job = submit("shop:1", ["exit 0"], name="once", environment={"A": "b"})
                self.assertIsNotNone(job.waiting())
                self.assertIsNone(job.job())
            return job

        # No service runs here yet, as in a worker of WSGI or a command.
        never = await sync_to_async(rolled_back)()
        once = await sync_to_async(committed)()
        async with lifespan() as service:
            await with_host(service)
            job = await eventually(once.job)
            await eventually(lambda: ContainerJob.objects.get(pk=job.pk).status == "succeeded")
            same = await asubmit("shop:1", ["exit 0"], idempotency_key=once.key, name="once", environment={"A": "b"})
            self.assertEqual((await same.ajob()).pk, job.pk)
        self.assertIsNone(await never.ajob())
        self.assertEqual(await ContainerJob.objects.acount(), 1)
        self.assertEqual(job.submitted_by, "project")

    def test_what_cannot_be_a_job_is_refused_at_once(self) -> None:
        with self.assertRaisesMessage(ValidationFailed, "image: is not an image reference"):
            submit("A B")
        with self.assertRaisesMessage(ValidationFailed, "memory"):
            submit("shop:1", memory=3)
        with self.assertRaisesMessage(ValidationFailed, "command: must be a list, such as ['echo', 'hi']"):
            submit("shop:1", "echo hi")
        with self.assertRaisesMessage(ValidationFailed, "actor: must have 1 to 100"):
            submit("shop:1", actor="a" * 101)
        submit("shop:1", idempotency_key=None)
        submit("shop:1", idempotency_key="k")
        submit("shop:1", idempotency_key="k")
        with self.assertRaises(Conflict):
            submit("shop:1", ["other"], idempotency_key="k")

    async def test_one_bad_entry_keeps_no_other_up(self) -> None:
        def committed() -> Any:
            bad, good = submit("shop:1", name="bad"), submit("shop:1", ["exit 0"], name="good")
            OutboxEntry.objects.filter(key=OutboxEntry.objects.order_by("pk")[0].key).update(job={"image": "lacks all"})
            return bad, good

        bad, good = await sync_to_async(committed)()
        async with lifespan() as service:
            await with_host(service)
            job = await eventually(good.job)
            await eventually(lambda: ContainerJob.objects.get(pk=job.pk).status == "succeeded")
            await eventually(lambda: OutboxEntry.objects.exclude(fault="").count() == 1)
            self.assertIsNone(await bad.ajob())
            # A key that was used is known also when its job is no longer in the outbox.
            with self.assertRaises(Conflict):
                await asubmit("shop:1", ["other"], idempotency_key=good.key, name="good")

    async def test_a_receiver_that_fails_is_called_again_and_the_others_are_not(self) -> None:
        called: list[str] = []

        def fails_once(**_: Any) -> None:
            called.append("fails once")
            if called.count("fails once") == 1:
                raise LookupError("once")

        def succeeds(**_: Any) -> None:
            called.append("succeeds")

        job_ended.connect(fails_once)
        job_ended.connect(succeeds)
        try:
            async with lifespan() as service:
                await with_host(service)
                await asubmit("shop:1", ["exit 0"])
                await eventually(lambda: len(called) == 3)
                self.assertEqual(sorted(called), ["fails once", "fails once", "succeeds"])
        finally:
            job_ended.disconnect(fails_once)
            job_ended.disconnect(succeeds)

    async def test_a_task_is_a_job(self) -> None:
        async with lifespan() as service:
            await with_host(service)
            result = await total.aenqueue([1, 2, 3])
            self.assertEqual(result.status, "READY")
            job = await eventually(lambda: ContainerJob.objects.filter(name="total").first())
            self.assertEqual(job.command[:3], ["python", "manage.py", "run_container_task"])
            self.assertEqual((job.image, job.labels), ("shop:1", {"task": "total", "queue": "default"}))
            # The simulator runs nothing, so the task tells no result.
            await eventually(lambda: ContainerJob.objects.get(pk=job.pk).finished_at)
            await result.arefresh()
            self.assertEqual((result.status, result.attempts), ("FAILED", 1))
            self.assertIn("has told no result", result.errors[0].traceback)

    async def test_what_a_container_tells_is_the_result_of_its_task(self) -> None:
        from container_manager.tasks import MARK

        with self.settings(TASKS=told_by(f'echo {MARK}{{"value": 6}}')):
            async with lifespan() as service:
                await with_host(service)
                result = await total.aenqueue([1, 2, 3])

                def ended() -> bool:
                    result.refresh()
                    return result.is_finished

                await eventually(ended)
                self.assertEqual((result.status, result.return_value), ("SUCCESSFUL", 6))
                self.assertEqual(result.worker_ids, ["sim"])

    def test_the_command_of_a_container_runs_a_task(self) -> None:
        from io import StringIO

        from container_manager.tasks import MARK

        out = StringIO()
        call = '{"args": [[1, 2]], "kwargs": {}}'
        management.call_command("run_container_task", total.module_path, call, stdout=out)
        self.assertEqual(out.getvalue().splitlines()[-1], f'{MARK}{{"value": 3}}')
        out, call = StringIO(), '{"args": ["x"], "kwargs": {}}'
        with self.assertRaises(SystemExit):
            management.call_command("run_container_task", report.module_path, call, stdout=out, stderr=StringIO())
        self.assertIn('"error": "builtins.LookupError"', out.getvalue())

    async def test_the_projects_admin_changes_hosts(self) -> None:
        async with lifespan() as service:
            await with_host(service)
            await sync_to_async(self._drain)()
            host = await ExecutorHost.objects.aget(name="sim")
            self.assertTrue(host.is_draining)
            (entry, *_) = await service.tokens.audit_log(1, _anything())
            self.assertEqual((entry.actor, entry.action), ("boss", "drainHost"))

    def _drain(self) -> None:
        client = Client()
        client.force_login(User.objects.create_superuser("boss"))
        host = ExecutorHost.objects.get(name="sim")
        chosen = {"action": "drain", "_selected_action": [host.pk]}
        answer = client.post("/admin/container_manager/executorhost/", chosen, follow=True)
        self.assertContains(answer, "1 of 1 were changed.")


def _anything() -> Any:
    from django.db.models import Q

    return Q()


def told_by(command: str) -> dict[str, Any]:
    """Settings with which a task's container does this instead."""
    options = {"image": "shop:1", "command": [f"{command};", "#"]}
    return {"default": {"BACKEND": "container_manager.tasks.ContainerBackend", "OPTIONS": options}}
