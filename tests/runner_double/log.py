"""What the runner makes of a step's output: commands are executed, masks are applied, the rest is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

_COMMAND = re.compile(r"::(?P<name>[\w-]+)(?: (?P<properties>[^:]*))?::(?P<message>.*)")


@dataclass(frozen=True)
class Annotation:
    level: str
    message: str
    properties: dict[str, str]


@dataclass
class Read:
    """`text` is what people read in the log. `printed` is what was written while a mask was not known yet."""

    text: str = ""
    annotations: list[Annotation] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)

    def of(self, level: str) -> list[Annotation]:
        return [annotation for annotation in self.annotations if annotation.level == level]


def read_log(written: str) -> Read:
    """Masks hold from where they are said on, so a secret that comes before its mask is in `text`."""
    read, stopped_by = Read(), ""
    for line in written.splitlines():
        found = _COMMAND.match(line)
        if stopped_by:
            if line == f"::{stopped_by}::":
                stopped_by = ""
                continue
        elif found and found["name"] == "stop-commands":
            stopped_by = found["message"]
            continue
        elif found and found["name"] == "add-mask":
            read.masks.append(unquote(found["message"]))
            continue
        elif found and found["name"] in {"error", "warning", "notice"}:
            pairs = (pair.split("=", 1) for pair in (found["properties"] or "").split(","))
            properties = {name.strip(): unquote(value) for name, value in pairs}
            read.annotations.append(Annotation(found["name"], _masked(unquote(found["message"]), read), properties))
        read.text += _masked(line, read) + "\n"
    return read


def _masked(line: str, read: Read) -> str:
    for secret in read.masks:
        line = line.replace(secret, "***")
    return line
