"""Keeps what a run's stages made: small values with the commit, large ones in storage; publishes their artifacts."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from flowtilla.errors import StorageError
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactRecord, ArtifactStore
from flowtilla.storage.checkpoints import load_checkpoint, save_checkpoint
from flowtilla.storage.results import own_reference, store_result
from flowtilla.untrusted import from_json
from flowtilla_executors import MISSING, Failure, Literal
from flowtilla_worker.engine.calls import Caller
from flowtilla_worker.engine.value import Parents, Value
from flowtilla_worker.plan.plan import PlannedStage

#: The most bytes of JSON that are kept in Redis, for a value and for a result.
INLINE = 64 * 1024

#: Seconds between tries to publish what was committed while the storage is away: a minute in all.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


_log = logging.getLogger("flowtilla.worker")


class NotKept(Exception):
    """A value could not be stored; the failure says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Keeper:
    """Keeps what one attempt's stages made.

    Args:
        storage: where to.
        namespace, run_id: whose they are.
    """

    def __init__(self, storage: StorageSettings, namespace: str, run_id: str) -> None:
        self.references: dict[str, Mapping[str, Any]] = {}
        self._storage = storage
        self._namespace, self._run_id = namespace, run_id

    async def keep(self, caller: Caller, planned: PlannedStage, value: Value, *, final: bool) -> str | None:
        """Keeps a stage's value, if it must or can be kept.

        Args:
            caller: makes the call that stores a value where it is, in the cluster.
            planned: the stage.
            value: its value.
            final: whether it belongs to the run's result, which must be kept.

        Returns:
            The value or where it is, as JSON for the commit; None when it is not kept.

        Raises:
            NotKept: it must be kept and cannot be stored.
        """
        if (text := inline_json(value)) is not None:
            return f'{{"value":{text}}}'
        if final:
            return json.dumps({"reference": await self.refer(caller, planned, value)})
        if planned.options.checkpoint:
            record = await self._store(caller, save_checkpoint, planned.name, (planned.name,), value)
            return json.dumps({"checkpoint": record, "indexes": value.indexes and list(value.indexes)})
        return None

    async def refer(self, caller: Caller, planned: PlannedStage, value: Value) -> Mapping[str, Any]:
        """Stores a final stage's value and returns the reference to it.

        Raises:
            NotKept: it cannot be stored.
        """
        self.references[planned.name] = await self._store(caller, store_result, planned.name, (), value)
        return self.references[planned.name]

    async def restore(self, caller: Caller, stage: str, text: bytes) -> Value:
        """Returns a value that `keep` kept.

        Raises:
            NotKept: its checkpoint cannot be read any more.
            StorageError: what was kept is another run's.
        """
        kept = from_json(text)
        if "reference" in kept:
            self.references[stage] = own_reference(self._storage, self._namespace, self._run_id, kept["reference"])
            return Value()
        if "value" in kept:
            value = kept["value"]
            length = len(value) if isinstance(value, (list, str)) else None
            return Value(None, None, value, length, isinstance(value, (list, str, dict)), type(value).__name__)
        own = (self._storage.model_dump(mode="json"), self._namespace, self._run_id)
        call = caller.internal_call(load_checkpoint, stage, *map(Literal, (*own, kept["checkpoint"])))
        ended = await caller.run(call, ())
        if ended.outcome.failure is not None:
            raise NotKept(ended.outcome.failure)
        outcome = ended.outcome
        return Value(ended.handle, None, outcome.value, outcome.length, outcome.iterable, outcome.kind, kept["indexes"])

    async def publish(self, artifacts: Sequence[Mapping[str, Any]]) -> None:
        """Makes artifacts of a committed stage visible; doing it again is harmless.

        Raises:
            StorageError: the storage has been away for a while, and is.
        """
        for one in artifacts:
            record = ArtifactRecord.model_validate(one)
            if record.run_id != self._run_id:
                raise StorageError(f"{record.namespace}/{record.name} is not published: this run did not store it")
            await self._publish(record)

    async def discard(self, artifacts: Sequence[Mapping[str, Any]]) -> None:
        """Removes artifacts that will never be published."""
        for one in artifacts:
            record = ArtifactRecord.model_validate(one)
            await asyncio.to_thread(self._artifacts.discard, record.namespace, record.name, record.version)

    async def _publish(self, record: ArtifactRecord) -> None:
        for pause in _PAUSES:
            try:
                await asyncio.to_thread(self._artifacts.publish, record)
                return
            except StorageError as error:
                _log.warning("run %s: %s; trying again in %g s", self._run_id, error, pause)
                await asyncio.sleep(pause)
        await asyncio.to_thread(self._artifacts.publish, record)

    @cached_property
    def _artifacts(self) -> ArtifactStore:
        return ArtifactStore(self._storage)

    async def _store(
        self, caller: Caller, function: Any, stage: str, extra: tuple[str, ...], value: Value
    ) -> dict[str, Any]:
        parents = Parents()
        known = [
            Literal(part) for part in (self._storage.model_dump(mode="json"), self._namespace, self._run_id, *extra)
        ]
        call = caller.internal_call(function, stage, *known, parents.argument(value))
        outcome = (await caller.run(call, parents.handles)).outcome
        if outcome.failure is not None:
            raise NotKept(outcome.failure)
        stored: dict[str, Any] = outcome.value
        return stored


def inline_json(value: Value) -> str | None:
    """Returns a value at hand as JSON, or None when it is not at hand or too large to stay in Redis."""
    if value.inline is MISSING:
        return None
    text = json.dumps(value.inline, separators=(",", ":"))
    return text if len(text) <= INLINE else None
