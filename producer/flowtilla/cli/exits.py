"""Exit codes, which scripts can use, and how errors end a command."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from flowtilla import errors

#: The run failed or was cancelled, or a worker could not go on.
FAILED = 1
#: The command line, a file, a name or the configuration is wrong.
BAD_INPUT = 2
#: No such run, artifact, object, worker or queue.
NOT_FOUND = 3
#: Redis or the storage cannot be reached, or refuses, or as many runs wait as may.
UNAVAILABLE = 4
#: The run had not ended when the wait was over.
TIMED_OUT = 5
#: Ctrl-C.
INTERRUPTED = 130

# The first that fits.
_CODES: list[tuple[tuple[type[errors.FlowtillaError], ...], int]] = [
    ((errors.RunNotFound, errors.ArtifactNotFound, errors.ObjectNotFound), NOT_FOUND),
    ((errors.WorkerNotFound, errors.QueueNotFound), NOT_FOUND),
    ((errors.RunNotFinished,), TIMED_OUT),
    ((errors.RunFailed, errors.RunCancelled), FAILED),
    ((errors.QueueUnavailable, errors.QueueFull, errors.StorageError), UNAVAILABLE),
    ((errors.ConfigurationError, errors.WorkflowError, errors.MessageError, errors.RunError), BAD_INPUT),
]


def code_of(error: errors.FlowtillaError) -> int:
    """Returns the exit code of an error."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), FAILED)


class Commands(TyperGroup):
    """Commands whose errors of ours end in one sentence and an exit code; any other shows its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except errors.FlowtillaError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(code_of(error)) from error
