"""What would power a host off, or start services on it: shims in its PATH, and what they do in the real ones' place."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# What must never reach the real machine. The shims come first in PATH, and a host does not start unless they do.
SHIMS = ("shutdown", "poweroff", "halt", "reboot", "systemd-run", "systemctl", "init", "telinit")
AGENT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"

# A shim hands its words over in a file of its own and waits for the supervisor's exit code: whatever follows it in a
# script sees the timer armed, or not.
_SHIM = """#!/bin/sh
# This is an emulated host: the real machine is never powered off. The host's supervisor does what was asked for.
asked='{asked}'/$$
mkfifo "$asked.answer" || exit 1
printf '%s\\0' {name} "$@" > "$asked"
echo $$ > '{asked}'/requests
read -r code < "$asked.answer"
rm -f "$asked" "$asked.answer"
exit "$code"
"""
_ASKED = "power"


def write_shims(directory: Path) -> Path:
    """Puts a shim for every dangerous command into `directory`/shims, which is returned."""
    shims = directory / "shims"
    shims.mkdir(parents=True, exist_ok=True)
    for name in SHIMS:
        shim = shims / name
        shim.write_text(_SHIM.format(name=name, asked=directory / _ASKED))
        shim.chmod(0o755)
    return shims


class Power:
    """`say("power-off")` or `say("reboot")` is what becomes of the host; `start(argv, environment, log)` starts a
    service's process, and gives back what tells whether it still runs."""

    def __init__(
        self,
        directory: Path,
        *,
        say: Callable[[str], None],
        start: Callable[[Sequence[str], Mapping[str, str], str], Callable[[], bool]],
    ) -> None:
        self._directory = directory
        self._path = f"{directory / 'shims'}:{AGENT_PATH}"
        self._say = say
        self._start = start
        self._timers: dict[str, threading.Timer] = {}
        self._services: dict[str, Callable[[], bool]] = {}
        self.seconds_per_minute = 60.0

    def unsafe(self) -> Iterator[tuple[str, str | None]]:
        """Each dangerous command that is not a shim of this host, and what it is instead."""
        for name in SHIMS:
            found = shutil.which(name, path=self._path)
            if found is None or Path(found).parent != self._directory / "shims":
                yield name, found

    def listen(self) -> None:
        """Answers shims from now on."""
        asked = self._directory / _ASKED
        shutil.rmtree(asked, ignore_errors=True)
        asked.mkdir()
        os.mkfifo(asked / "requests")
        # Opened for both, so that there is never an end of file between two writers.
        requests = os.open(asked / "requests", os.O_RDWR)
        threading.Thread(target=self._answer, args=(requests,), daemon=True).start()

    def _answer(self, requests: int) -> None:
        held = ""
        while True:
            held += os.read(requests, 65536).decode()
            *lines, held = held.split("\n")
            for line in lines:
                asked = self._directory / _ASKED / line
                words = asked.read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
                code = self._do(words[0], words[1:])
                with contextlib.suppress(OSError), open(f"{asked}.answer", "w") as answer:
                    answer.write(f"{code}\n")

    def _do(self, name: str, args: Sequence[str]) -> int:
        """What the real command would do to the host; its exit code."""
        try:
            if name == "shutdown":
                self._shutdown(args)
            elif name == "reboot":
                self._say("reboot")
            elif name == "systemctl":
                return self._systemctl([word for word in args if not word.startswith("-")])
            elif name == "systemd-run":
                self._systemd_run(args)
            elif name != "halt":  # which stops the system and leaves the power on
                self._say("power-off")
        except (OSError, ValueError) as error:
            print(f"{name} {args}: {error}", file=sys.stderr)
            return 1
        return 0

    def _shutdown(self, args: Sequence[str]) -> None:
        if "-c" in args:
            self._cancel("shutdown")
            return
        event = "reboot" if "-r" in args or "--reboot" in args else "power-off"
        when = next((word for word in args if not word.startswith("-")), "+1")
        minutes = 0 if when == "now" else int(when.lstrip("+"))
        self._arm("shutdown", minutes * self.seconds_per_minute, lambda: self._say(event))

    def _systemctl(self, words: Sequence[str]) -> int:
        if words[:1] == ["stop"]:
            for unit in words[1:]:
                self._cancel(unit.rsplit(".", 1)[0])
        elif words[:1] == ["is-active"]:
            return 0 if all(self._is_active(unit) for unit in words[1:]) else 3
        elif words[:1] == ["reboot"]:
            self._say("reboot")
        elif words[:1] == ["poweroff"]:
            self._say("power-off")
        return 0

    def _is_active(self, unit: str) -> bool:
        name, _, kind = unit.rpartition(".")
        if kind == "timer":
            return name in self._timers
        service = self._services.get(name if kind == "service" else unit)
        return service is not None and service()

    def _systemd_run(self, args: Sequence[str]) -> None:
        env: dict[str, str] = {}
        options: dict[str, str] = {}
        command: Sequence[str] = []
        for index, word in enumerate(args):
            if not word.startswith("--"):
                command = args[index:]
                break
            key, _, value = word[2:].partition("=")
            if key in {"setenv", "property"}:
                key, _, value = value.partition("=")
            (env if word.startswith("--setenv=") else options)[key] = value
        path = env.get("PATH") or self._path
        program = shutil.which(command[0], path=self._path) if command else None
        if program is None:
            raise ValueError(f"Failed to find executable {command[:1]}")
        log = options.get("StandardOutput", "").partition("append:")[2] or os.devnull

        def launch() -> None:
            running = self._start([program, *command[1:]], {"LANG": "C.UTF-8", **env, "PATH": path}, log)
            self._services[options.get("unit", "run")] = running

        if "on-active" in options:
            seconds = float(options["on-active"].removesuffix("s")) / 60 * self.seconds_per_minute
            self._arm(options.get("unit", "run"), seconds, launch)
        else:
            launch()

    def _arm(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        """A new timer of the same name replaces the old one: armed first, then the old is cancelled."""

        def elapsed() -> None:
            if self._timers.get(name) is timer:
                del self._timers[name]
            action()

        timer = threading.Timer(max(0, seconds), elapsed)
        timer.daemon = True
        old, self._timers[name] = self._timers.get(name), timer
        timer.start()
        if old is not None:
            old.cancel()

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
