"""What has to go on for ever goes on, whatever it raises."""

import asyncio
import json
import logging

import pytest
from redis.exceptions import ConnectionError, ResponseError

from flowtilla.errors import StorageError
from flowtilla_worker.trouble import for_ever, tried

ERRORS = (
    ConnectionError("away"),
    ResponseError("WRONGTYPE"),
    StorageError("no room"),
    OSError("no disk"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    KeyError("ours"),
    RecursionError(),
)


def test_nothing_that_is_raised_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    """Each error is logged, with a traceback when it is a fault of ours, and the next time comes."""
    left = list(ERRORS)

    async def work() -> None:
        if left:
            raise left.pop(0)
        raise asyncio.CancelledError

    with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError):
        asyncio.run(for_ever(work, "working", 0.001))

    assert [record.exc_info is not None for record in caplog.records] == [False] * 4 + [True] * 3
    assert caplog.messages[1] == "working failed, it is tried again: ResponseError: WRONGTYPE"


def test_what_fails_for_all_is_not_tried_for_each() -> None:
    """One damaged key keeps nothing else from being done; a Redis that is away does."""

    async def fails(error: Exception) -> None:
        raise error

    async def works() -> int:
        return 3

    assert asyncio.run(tried(works(), "working")) == 3
    assert asyncio.run(tried(fails(json.JSONDecodeError("no", "x", 0)), "working")) is None
    with pytest.raises(ConnectionError):
        asyncio.run(tried(fails(ConnectionError("away")), "working"))
