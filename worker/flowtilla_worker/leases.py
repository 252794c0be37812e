"""Renewing the leases of a worker's runs."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from redis.exceptions import NoScriptError
from rq.utils import utcformat

from flowtilla import keys
from flowtilla_worker.scripts import RENEW

#: How many leases the worker's record in RQ outlives its last beat.
_RECORD_LEASES = 6

#: Run id and token of each run in hand.
Held = Sequence[tuple[str, str]]


def renew(
    redis: Any, worker: str, lease: float, held: Held, fields: Mapping[str, str] = MappingProxyType({})
) -> tuple[bool, Held, Held]:
    """Renews the leases of a worker's runs, and RQ's record of the worker.

    Args:
        redis: a blocking connection.
        worker: the worker's name.
        lease: seconds that a lease lasts.
        held: run id and token of each run in hand.
        fields: further fields of the record.

    Returns:
        Whether there is such a record, and which of the runs in hand are lost, and which are to be cancelled.
    """
    args = (
        round(lease * 1000),
        max(1, round(lease * _RECORD_LEASES)),
        utcformat(datetime.now(UTC)),
        keys.job(""),
        2 * len(fields),
        *(part for pair in fields.items() for part in pair),
        *(part for pair in held for part in pair),
    )
    names = (keys.LEASES, keys.worker(worker))
    try:
        known, lost, cancelled = redis.evalsha(RENEW.sha, len(names), *names, *args)
    except NoScriptError:
        known, lost, cancelled = redis.eval(RENEW.text, len(names), *names, *args)
    return bool(known), _of(held, lost), _of(held, cancelled)


def _of(held: Held, run_ids: Sequence[bytes]) -> Held:
    named = {run_id.decode() for run_id in run_ids}
    return [one for one in held if one[0] in named]
