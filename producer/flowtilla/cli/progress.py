"""Shows how a run gets on: a bar per stage on a terminal, else a line whenever something changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from flowtilla.cli.record import items

if TYPE_CHECKING:
    from rich import progress as rich_progress
    from rich.console import Console

    from flowtilla.record import RunRecord


class Progress(Protocol):
    """Shows a run at one moment after another."""

    def show(self, record: "RunRecord") -> None:
        """Shows the run as it is now."""


@contextmanager
def progress_on(screen: "Console", wanted: bool) -> Iterator[Progress]:
    """Yields what shows progress on a console, or shows nothing when it is not wanted."""
    if not wanted:
        yield _Nothing()
    elif not screen.is_terminal:
        yield _Lines(screen)
    else:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[said]}"))
        with RichProgress(*columns, console=screen) as bars:
            yield _Bars(bars)


class _Nothing:
    def show(self, record: "RunRecord") -> None:
        pass


class _Lines:
    def __init__(self, screen: "Console") -> None:
        self._screen = screen
        self._said: dict[str | None, str] = {}

    def show(self, record: "RunRecord") -> None:
        for stage in record.stages.values():
            counts = f" {items(stage)}" if stage.state.ended else ""
            self._say(stage.name, f"{stage.name} {stage.state}{counts}")
        self._say(None, f"{record.workflow} {record.state}")

    def _say(self, about: str | None, text: str) -> None:
        if self._said.get(about) != text:
            self._said[about] = text
            self._screen.print(text)


class _Bars:
    """A bar for the run's stages, and one for the items of each stage that has begun."""

    def __init__(self, bars: "rich_progress.Progress") -> None:
        self._bars = bars
        self._tasks: dict[str | None, rich_progress.TaskID] = {}

    def show(self, record: "RunRecord") -> None:
        done, total = record.progress
        self._move(None, record.workflow, done, total, f"{done}/{total} stages, {record.state}")
        for stage in record.stages.values():
            ended = stage.done + stage.failed
            self._move(stage.name, f"  {stage.name}", ended, stage.total, f"{items(stage)} {stage.state}".strip())

    def _move(self, about: str | None, name: str, done: int, total: int | None, said: str) -> None:
        if about not in self._tasks:
            self._tasks[about] = self._bars.add_task(name, total=total, said=said)
        self._bars.update(self._tasks[about], completed=done, total=total, said=said)
