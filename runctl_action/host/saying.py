"""What the host process says of itself: on stderr, which is host.log on the host's own disk."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """One line. A disk that is full must not end whoever wanted to say something."""
    with contextlib.suppress(OSError, ValueError):
        print(text.encode("ascii", "backslashreplace").decode(), file=sys.stderr, flush=True)
