"""A report without the secrets that got into it: the last time that anybody looks, after the host has. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from runctl_action.contract.reports import Report
from runctl_action.report.wording import log_line

_REDACTED = "***"
# What the shortest part of a secret is, that its lines are looked for: shorter ones are in every text (the host's too).
_SHORTEST = 4
# Never to be printed, whoever's they are: access keys of AWS, tokens of GitHub, and AWS's secret key where it is named.
_SHAPES = (
    r"(?:AKIA|ASIA)[A-Z0-9]{16,}"
    r"|gh[pousr]_[A-Za-z0-9_.-]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}"
    r"|(?i:secret_?access_?key)[\"']?\s?[=:]\s?[\"']?[A-Za-z0-9/+]{40}"
)
# Words of the contract, that other words are looked up by; nobody's text.
_WORDS = frozenset({"outcome", "cause", "phase", "market", "version"})


def redacted(report: Report, secrets: Sequence[str] = ()) -> Report:
    """`report` with *** for each of `secrets`, each line of one that has several, and what looks like a key or a token.
    Log lines are cleaned as well: a secret with a colour in its middle would come together again."""
    parts = {line.strip() for secret in secrets for line in (secret, *secret.splitlines())}
    known = sorted((part for part in parts if len(part) >= _SHORTEST), key=len, reverse=True)
    pattern = re.compile("|".join([*map(re.escape, known), _SHAPES]))
    cleaned = tuple(log_line(pattern.sub(_REDACTED, line)) for line in report.log_tail)
    found: Report = _without(report.model_copy(update={"log_tail": cleaned}), pattern)
    return found


def _without(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(_REDACTED, value)
    if isinstance(value, BaseModel):
        fields = {name: _without(field, pattern) for name, field in value if name not in _WORDS}
        return value.model_copy(update=fields)
    if isinstance(value, dict):
        return {_without(key, pattern): _without(item, pattern) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without(item, pattern) for item in value)
    return value
