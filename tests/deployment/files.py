"""The compose file and the Dockerfile, read as their programs read them, as far as these two go."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def compose(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """docker-compose.yml with its variables filled in."""
    return _filled(yaml.safe_load((ROOT / "docker-compose.yml").read_text()), variables or {})


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda match: variables.get(match[1]) or match[2] or "", value)


@dataclass
class Stage:
    """One stage of the Dockerfile, with what it inherits: instructions as (name, argument)."""

    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [argument for name, argument in self.instructions if name == instruction]

    def last(self, instruction: str) -> str | None:
        return (self.all(instruction) or [None])[-1]

    def words(self, instruction: str) -> list[str]:
        """The exec form of ENTRYPOINT or CMD, which hands signals on, where a shell would not."""
        return json.loads(self.last(instruction) or "[]")

    @property
    def healthcheck(self) -> list[str]:
        argument = self.last("HEALTHCHECK")
        return json.loads(argument.partition("CMD ")[2]) if argument else []

    @property
    def environment(self) -> dict[str, str]:
        words = (word for line in self.all("ENV") for word in shlex.split(line))
        return dict(word.split("=", 1) for word in words)


def stages() -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    stage = Stage("")
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        name, _, argument = line.strip().partition(" ")
        if name == "FROM":
            parent, _, alias = argument.partition(" AS ")
            inherited = found[parent].instructions if parent in found else []
            stage = found[alias] = Stage(alias, list(inherited))
        elif name:
            stage.instructions.append((name, argument.strip()))
    return found
