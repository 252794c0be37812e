"""Reads a Dockerfile, so that tests can hold it against what it promises and run its steps."""

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """One build stage.

    Args:
        name: what others call it.
        base: the image or the stage it begins with.
        steps: its instructions, in order: the keyword and the rest.
    """

    name: str
    base: str
    steps: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Dockerfile:
    """All stages, by name."""

    stages: dict[str, Stage]

    @classmethod
    def read(cls, path: Path) -> "Dockerfile":
        """Returns what the file says; every stage must have a name."""
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        text = re.sub(r"\\\n\s*", "", "\n".join(lines))
        stages: dict[str, Stage] = {}
        for block in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
            head, *body = [line for line in block.splitlines() if line.strip()]
            base, name = re.fullmatch(r"(\S+) AS (\S+)", head).groups()
            steps = tuple((line.partition(" ")[0], line.partition(" ")[2]) for line in body)
            stages[name] = Stage(name, base, steps)
        return cls(stages)

    @property
    def images(self) -> set[str]:
        """The images it begins with."""
        return {stage.base for stage in self.stages.values()} - set(self.stages)

    def steps(self, name: str) -> list[tuple[str, str]]:
        """Returns a stage's instructions, after those of the stages it builds on."""
        stage = self.stages[name]
        inherited = self.steps(stage.base) if stage.base in self.stages else []
        return [*inherited, *stage.steps]

    def last(self, name: str, keyword: str) -> str:
        """Returns what the last instruction of a kind says, which is the one that holds."""
        return [rest for found, rest in self.steps(name) if found == keyword][-1]

    def command(self, name: str) -> list[str]:
        """Returns the words of a stage's CMD."""
        words: list[str] = json.loads(self.last(name, "CMD"))
        return words


def sources(copy: str) -> list[str]:
    """Returns what a COPY takes from the context: nothing when it takes from another stage."""
    return [] if copy.startswith("--from") else copy.split()[:-1]


def variables(rest: str) -> dict[str, str]:
    """Returns what an ENV or ARG of the form `NAME=value ...` sets."""
    return dict(word.split("=", 1) for word in rest.split())
