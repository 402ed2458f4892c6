"""Which commands the runner executes of what a step writes."""

from __future__ import annotations

import re

COMMANDS = {
    "error", "warning", "notice", "debug", "group", "endgroup", "add-mask", "set-output", "set-env", "add-path",
    "save-state", "echo", "add-matcher", "remove-matcher", "stop-commands",
}  # fmt: skip


class Runner:
    """What the runner makes of a step's output: a model of its OutputManager and ActionCommandManager."""

    def __init__(self, written):
        self.executed, self.shown = [], []
        self._stopped_by = None
        *lines, unfinished = re.split(r"\r\n|\r|\n", written)
        assert not unfinished
        for line in lines:
            self._read(line)

    def names(self):
        return [name for name, _, _ in self.executed]

    def _read(self, line):
        found = self._new_style(line) or self._old_style(line)
        if found is None:
            self.shown.append(line)
        elif self._stopped_by is not None:
            if found[0].lower() == self._stopped_by.lower():
                self._stopped_by = None
            else:
                self.shown.append(line)
        elif found[0].lower() == "stop-commands":
            assert found[2]
            self._stopped_by = found[2]
        else:
            self.executed.append(found)

    def _new_style(self, line):
        line = line.lstrip()
        if not line.startswith("::") or (end := line.find("::", 2)) < 0:
            return None
        name, _, properties = line[2:end].partition(" ")
        pairs = [pair.split("=", 1) for pair in properties.split(",") if "=" in pair]
        return self._registered(name, {k.strip(): self._unescaped(v, ":,\r\n%") for k, v in pairs}, line[end + 2 :])

    def _old_style(self, line):
        start = line.find("##[")
        if start < 0 or (end := line.find("]", start)) < 0:
            return None
        return self._registered(line[start + 3 : end].split(" ")[0], {}, line[end + 1 :])

    def _registered(self, name, properties, data):
        known = COMMANDS | ({self._stopped_by.lower()} if self._stopped_by else set())
        return (name, properties, self._unescaped(data, "\r\n%")) if name.lower() in known else None

    @staticmethod
    def _unescaped(text, characters):
        for character in characters:
            text = text.replace(f"%{ord(character):02X}", character)
        return text
