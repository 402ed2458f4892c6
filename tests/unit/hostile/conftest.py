"""Puts the folder `tests` on sys.path: the corpus and the double of the runner are packages there."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
