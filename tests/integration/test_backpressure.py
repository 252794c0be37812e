"""How many runs may wait, and what whoever submits more hears."""

import asyncio
from typing import Any

import pytest
from hands import with_hands
from redis import Redis

import flowtilla
from fleet import Fleet
from flowtilla.aio import AsyncClient
from flowtilla.errors import QueueFull
from flowtilla.settings import LimitsSettings

FLOW = {"kind": "workflow", "metadata": {"name": "one"}, "spec": {"stages": [{"name": "s", "target": "m.echo"}]}}


def client(fleet: Fleet, **limits: Any) -> flowtilla.Client:
    """Returns a client of somebody who heeds limits."""
    return flowtilla.Client(
        settings=fleet.settings.model_copy(update={"limits": LimitsSettings.model_validate(limits)})
    )


def fill(limited: flowtilla.Client, count: int, **options: Any) -> list[flowtilla.Run]:
    """Submits so many runs one by one."""
    return [limited.submit(FLOW, **options) for _ in range(count)]


def test_a_full_queue_refuses(fleet: Fleet) -> None:
    """The error says which queue, how many, and what to do; nothing was queued; there is room when one has begun."""
    with client(fleet, queues={"default": {"max_queued": 3}}) as limited:
        fill(limited, 2, namespace="a")
        fill(limited, 1)

        with pytest.raises(QueueFull) as caught:
            limited.submit(FLOW, run_id="fourth", namespace="b")

        assert str(caught.value) == (
            "run b--fourth was not queued: queue 'default' has 3 runs waiting, as many as may "
            "(limits.queues.default.max_queued): submit it again when some have begun, or add workers"
        )
        assert (caught.value.queue, caught.value.namespace, caught.value.queued) == ("default", "b", [])
        assert len(limited.records()) == 3
        limited.submit(FLOW, queue="another")

        with_hands(fleet, lambda hands: hands.take(1))
        limited.submit(FLOW, run_id="fourth", namespace="b")


def test_a_full_namespace_refuses(fleet: Fleet) -> None:
    """The others have room all the same; `*` is each that is not named."""
    limits = {"crowded": {"max_queued": 2}, "*": {"max_queued": 1}}
    with client(fleet, namespaces=limits) as limited:
        fill(limited, 2, namespace="crowded")
        fill(limited, 1, namespace="other")
        fill(limited, 1)

        for namespace, most in (("crowded", 2), ("other", 1), ("default", 1)):
            with pytest.raises(
                QueueFull, match=f"namespace '{namespace}' has, in queue 'default', {most} runs? waiting"
            ):
                limited.submit(FLOW, namespace=namespace)


def test_runs_that_wait_for_a_limit_of_concurrency_wait(fleet: Fleet) -> None:
    """They count, though a worker has looked at them already."""
    with client(fleet, queues={"default": {"max_queued": 3}}, namespaces={"a": {"max_queued": 2}}) as limited:
        fill(limited, 2, concurrency={"k": 1}, namespace="a")
        with_hands(fleet, lambda hands: hands.take(10))
        fill(limited, 1, namespace="a")

        with pytest.raises(QueueFull, match="namespace 'a'"):
            limited.submit(FLOW, namespace="a")
        fill(limited, 1)
        with pytest.raises(QueueFull, match="queue 'default'"):
            limited.submit(FLOW)


def test_a_run_that_is_there_is_returned(fleet: Fleet) -> None:
    """To submit one again that was queued already asks for no room."""
    with client(fleet, queues={"*": {"max_queued": 1}}) as limited:
        run = limited.submit(FLOW, idempotency_key="today")

        assert limited.submit(FLOW, idempotency_key="today").id == run.id


def test_of_many_those_that_fit_are_queued(fleet: Fleet) -> None:
    """The error names them; the others can be submitted again."""
    runs = [{"workflow": FLOW, "run_id": f"run-{number}"} for number in range(5)]
    with client(fleet, queues={"default": {"max_queued": 3}}) as limited:
        with pytest.raises(QueueFull) as caught:
            limited.submit_many(runs)

        assert caught.value.queued == [f"default--run-{number}" for number in range(3)]
        with_hands(fleet, lambda hands: hands.take(3))
        assert len(limited.submit_many(runs)) == 5
        assert len(limited.records()) == 5


def test_the_asyncio_client_hears_the_same(fleet: Fleet) -> None:
    """From `submit` and `submit_many`."""
    limits = LimitsSettings.model_validate({"queues": {"default": {"max_queued": 1}}})

    async def submit() -> None:
        async with AsyncClient(settings=fleet.settings.model_copy(update={"limits": limits})) as limited:
            await limited.submit(FLOW)
            with pytest.raises(QueueFull):
                await limited.submit(FLOW)
            with pytest.raises(QueueFull):
                await limited.submit_many([{"workflow": FLOW}])

    asyncio.run(submit())


@pytest.mark.parametrize("key", ["rq:queue:default@a", "flowtilla:held:default", "flowtilla:turns:default"])
def test_what_cannot_be_counted_keeps_nobody_from_submitting(fleet: Fleet, redis: Redis, key: str) -> None:
    """Somebody put something else where runs wait: others are queued all the same."""
    redis.set(key, "x")
    with client(fleet, queues={"default": {"max_queued": 3}}, namespaces={"b": {"max_queued": 2}}) as limited:
        fill(limited, 2, namespace="b")

        with pytest.raises(QueueFull):
            limited.submit(FLOW, namespace="b")
