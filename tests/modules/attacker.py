"""What somebody who can write to Redis would like a worker to import and to call."""

import os
from pathlib import Path

Path(os.environ["ATTACKED"]).write_text("imported")


def called(*_: object) -> None:
    """Leaves a file that says it ran."""
    Path(os.environ["ATTACKED"]).write_text("called")
