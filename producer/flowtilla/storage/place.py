"""Where code that names neither storage nor namespace keeps things: the run's place, or the configuration's."""

from flowtilla.context import current
from flowtilla.errors import StorageError
from flowtilla.settings import Settings
from flowtilla.storage.store import ArtifactStore


def store_here(area: str) -> ArtifactStore:
    """Returns the store of the stage that is running; outside one, of the configuration.

    Raises:
        StorageError: the run has no storage.
    """
    context = current()
    if context is None:
        return ArtifactStore(_configuration().storage, area)
    if context._storage is None:
        raise StorageError(f"run {context.run_id} has no storage: set storage in the worker's configuration")
    return ArtifactStore(context._storage, area)


def namespace_here(namespace: str | None) -> str:
    """Returns the namespace given, or else that of the stage that is running, or else the configuration's default."""
    if namespace is not None:
        return namespace
    context = current()
    return context.namespace if context else _configuration().services.compute.default_namespace


def _configuration() -> Settings:
    # Here, since a stage's process needs no configuration.
    from flowtilla.config import load

    return load()
