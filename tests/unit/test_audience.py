"""Live events for subscribers: what each of them gets, whatever the others do."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from container_manager.events import audience as audience_module
from container_manager.events.audience import Audience, Subscriber
from container_manager.store.events import Event
from tests.eventually import eventually

AT = datetime(2026, 11, 27, tzinfo=UTC)


def events(*ids: int, kind: str = "job_routed") -> list[Event]:
    return [Event(id_, kind, AT, "", None, None, "", "", None) for id_ in ids]


def received(subscriber: Subscriber) -> list[int]:
    return [event.id for batch in subscriber.take() for event in batch]


def is_even(event: Event) -> bool:
    return event.id % 2 == 0


def subscribed(audience: Audience, wanted: audience_module.Wanted | None = None) -> Subscriber:
    subscriber = Subscriber(wanted)
    audience.subscribers.add(subscriber)
    return subscriber


# ------------------------------------------------------------------ one subscriber


async def test_a_subscriber_gets_its_events_once_and_in_order() -> None:
    subscriber = Subscriber(None)
    subscriber.offer(events(1, 2))
    subscriber.offer(events(3))
    assert subscriber.waiting == 3
    assert received(subscriber) == [1, 2, 3]
    assert received(subscriber) == []
    assert subscriber.waiting == 0


async def test_a_subscriber_gets_only_what_it_wants() -> None:
    subscriber = Subscriber(is_even)
    subscriber.offer(events(1, 2, 3, 4))
    assert subscriber.waiting == 2
    assert received(subscriber) == [2, 4]


async def test_a_subscriber_wakes_for_events_that_it_wants_alone() -> None:
    subscriber = Subscriber(is_even)
    waiting = asyncio.create_task(subscriber.woken())
    await asyncio.sleep(0)
    subscriber.offer(events(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    subscriber.offer(events(2))
    await asyncio.wait_for(waiting, 10)
    # With events in the queue there is nothing to wait for.
    await asyncio.wait_for(subscriber.woken(), 10)


async def test_a_subscriber_can_be_woken_without_an_event() -> None:
    subscriber = Subscriber(None)
    waiting = asyncio.create_task(subscriber.woken())
    await asyncio.sleep(0)
    subscriber.wake()
    await asyncio.wait_for(waiting, 10)
    # Nothing waits: that is no error.
    subscriber.wake()


async def test_rejected_events_move_the_position_of_an_idle_subscriber() -> None:
    """It must not read them again, because they may have been deleted by then."""
    subscriber = Subscriber(is_even)
    subscriber.offer(events(1, 3))
    assert subscriber.passed == 3
    subscriber.offer(events(4))
    subscriber.offer(events(5))
    # Event 4 has not been taken yet.
    assert subscriber.passed == 3
    assert received(subscriber) == [4]


async def test_a_subscriber_that_is_too_slow_is_emptied_and_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience_module, "QUEUE_LIMIT", 3)
    subscriber = Subscriber(None)
    subscriber.offer(events(1, 2, 3))
    assert not subscriber.overflowed
    subscriber.offer(events(4))
    assert subscriber.overflowed
    assert received(subscriber) == []
    await asyncio.wait_for(subscriber.woken(), 10)
    # It reads on from the table, so further live events are not kept.
    subscriber.offer(events(5))
    assert received(subscriber) == []


async def test_unwanted_events_do_not_count_towards_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience_module, "QUEUE_LIMIT", 2)
    subscriber = Subscriber(is_even)
    subscriber.offer(events(1, 2, 3, 4, 5))
    assert received(subscriber) == [2, 4]


# ------------------------------------------------------------------ an audience


async def test_without_preparation_events_are_handed_out_at_once() -> None:
    audience = Audience(None, 0)
    first, second = subscribed(audience), subscribed(audience, is_even)
    audience.offer(events(1, 2))
    assert received(first) == [1, 2]
    assert received(second) == [2]


async def test_preparation_is_done_once_for_all_and_before_the_events_arrive() -> None:
    prepared: list[list[int]] = []

    async def prepare(batch: Sequence[Event]) -> None:
        await asyncio.sleep(0)
        assert all(subscriber.waiting == 0 for subscriber in subscribers)
        prepared.append([event.id for event in batch])

    audience = Audience(prepare, 0)
    subscribers = [subscribed(audience) for _ in range(3)]
    audience.offer(events(1, 2))
    await eventually(lambda: all(subscriber.waiting == 2 for subscriber in subscribers))
    assert prepared == [[1, 2]]


async def test_only_events_that_a_subscriber_wants_are_prepared() -> None:
    prepared: list[list[int]] = []

    async def prepare(batch: Sequence[Event]) -> None:
        prepared.append([event.id for event in batch])

    audience = Audience(prepare, 0)
    subscriber = subscribed(audience, is_even)
    audience.offer(events(1, 2, 3, 4))
    await eventually(lambda: subscriber.waiting == 2)
    audience.offer(events(5))
    await eventually(lambda: subscriber.waiting == 2)
    assert prepared == [[2, 4]]


async def test_events_that_come_during_preparation_follow_in_one_batch() -> None:
    go_on = asyncio.Event()
    prepared: list[list[int]] = []

    async def prepare(batch: Sequence[Event]) -> None:
        prepared.append([event.id for event in batch])
        await go_on.wait()

    audience = Audience(prepare, 0)
    subscriber = subscribed(audience)
    audience.offer(events(1))
    await eventually(lambda: prepared)
    audience.offer(events(2))
    audience.offer(events(3))
    go_on.set()
    await eventually(lambda: subscriber.waiting == 3)
    assert prepared == [[1], [2, 3]]
    assert received(subscriber) == [1, 2, 3]


async def test_events_arrive_although_their_preparation_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def prepare(_: Sequence[Event]) -> None:
        raise RuntimeError("the query failed")

    audience = Audience(prepare, 0)
    subscriber = subscribed(audience)
    audience.offer(events(1))
    await eventually(lambda: subscriber.waiting)
    await eventually(lambda: "preparing events" in caplog.text)


async def test_events_arrive_although_their_preparation_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audience_module, "PREPARE_SECONDS", 0.01)
    go_on = asyncio.Event()

    async def prepare(_: Sequence[Event]) -> None:
        await go_on.wait()
        raise RuntimeError("failed in the end")

    audience = Audience(prepare, 0)
    subscriber = subscribed(audience)
    audience.offer(events(1))
    await eventually(lambda: subscriber.waiting)
    # An error that comes later is logged, too.
    go_on.set()
    await eventually(lambda: "'preparing events' failed" in caplog.text)


async def test_an_audience_with_a_rate_collects_events() -> None:
    audience = Audience(None, 0.05)
    subscriber = subscribed(audience)
    audience.offer(events(1))
    await eventually(lambda: subscriber.waiting == 1)
    audience.offer(events(2))
    audience.offer(events(3))
    assert subscriber.waiting == 1
    await eventually(lambda: subscriber.waiting == 3)
    assert [len(batch) for batch in subscriber.take()] == [1, 2]


async def test_when_preparation_cannot_keep_up_all_subscribers_read_on_from_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audience_module, "QUEUE_LIMIT", 2)
    go_on = asyncio.Event()
    preparing: list[Sequence[Event]] = []

    async def prepare(batch: Sequence[Event]) -> None:
        preparing.append(batch)
        await go_on.wait()

    audience = Audience(prepare, 0)
    subscribers = [subscribed(audience), subscribed(audience, is_even)]
    audience.offer(events(1))
    await eventually(lambda: preparing)
    audience.offer(events(2, 3, 4))
    assert all(subscriber.overflowed for subscriber in subscribers)
    go_on.set()


async def test_a_filter_that_fails_costs_no_other_subscriber_its_events() -> None:
    def broken(_: Event) -> bool:
        raise RuntimeError("a bug")

    audience = Audience(None, 0)
    failing, other = subscribed(audience, broken), subscribed(audience)
    audience.offer(events(1))
    assert failing.overflowed
    assert received(other) == [1]


async def test_a_filter_that_fails_before_the_preparation_leaves_no_gap() -> None:
    """All subscribers read the events from the table, and the next ones are delivered again."""

    def broken(_: Event) -> bool:
        raise RuntimeError("a bug")

    async def prepare(_: Sequence[Event]) -> None:
        await asyncio.sleep(0)

    audience = Audience(prepare, 0)
    failing, other = subscribed(audience, broken), subscribed(audience, is_even)
    # No other subscriber wants this event, so every filter is asked.
    audience.offer(events(1))
    await eventually(lambda: other.overflowed)
    audience.subscribers -= {failing, other}
    again = subscribed(audience)
    audience.offer(events(3))
    await eventually(lambda: received(again) == [3])
