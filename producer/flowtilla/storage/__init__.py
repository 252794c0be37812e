"""Where artifacts, results, logs, objects and checkpoints are kept, over any fsspec file system."""

from flowtilla.storage.artifact import Artifact
from flowtilla.storage.record import ArtifactRecord
from flowtilla.storage.store import ArtifactStore

__all__ = ["Artifact", "ArtifactRecord", "ArtifactStore"]
