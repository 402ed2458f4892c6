"""What somebody would write who means harm, by the place where it comes in. docs/hostile-input.md names the tests.

To import it, a conftest.py puts the folder `tests` on sys.path. RUNCTL_TEST_EXAMPLES sets how many inputs the searches
beside it try.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import settings

from hostile.documents import RESULTS
from hostile.names import NAMES
from hostile.output import MARKERS, OUTPUT
from hostile.payloads import FORKS, PAYLOADS
from hostile.values import TOML, VALUES, VARIABLES

__all__ = [
    "FORKS",
    "MARKERS",
    "NAMES",
    "OUTPUT",
    "PAYLOADS",
    "RESULTS",
    "TOML",
    "VALUES",
    "VARIABLES",
    "each",
    "searched",
]

# Read when it is imported: the tests' own environment is cleared of our variables.
EXAMPLES = int(os.environ.get("RUNCTL_TEST_EXAMPLES", "0")) or 100

searched = settings(max_examples=EXAMPLES)


def each(corpus: Mapping[str, object], but: Iterable[str] = ()) -> list[object]:
    """The values as parameters of a test, by their labels: most are no text for a test's name."""
    return [pytest.param(value, id=label) for label, value in corpus.items() if label not in but]
