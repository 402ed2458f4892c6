"""What a push shows on the terminal: at most ten lines when all is well. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from runctl_action.errors import RunctlError
from runctl_action.hook.check import Checked
from runctl_action.hook.selection import Selected
from runctl_action.parsing import show_duration
from runctl_action.report.visible import visible

# Of a push of many commits each gets a line, and the rest is counted.
_MOST_LINES = 8
_SPOT = {"never": "on demand", "prefer": "spot preferred", "require": "spot only"}


def accepted(found: Sequence[tuple[Selected, Checked]], remote: str, now: datetime) -> list[str]:
    """All about one commit; of several, a line each."""
    if len(found) == 1:
        (selected, checked) = found[0]
        return [f"{_subject(selected)}: a run of it would be accepted", *_details(checked, remote, now)]
    lines = [
        f"{_subject(selected)}: accepted: {visible(checked.script)}, {_files(checked.files, checked.bytes)}"
        for selected, checked in found
    ]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES - 1 :] = [f"and {len(lines) - _MOST_LINES + 1} more commits: accepted"]
    return lines


def warnings(checked: Checked) -> list[str]:
    """What would not stop a run, and surprise who asked for it."""
    if not checked.untracked:
        return []
    names = ", ".join(map(visible, checked.untracked[:5]))
    more = f" and {len(checked.untracked) - 5} more" if len(checked.untracked) > 5 else ""
    return [f"warning: imported by the script, on this disk, and not in the commit: {names}{more}; git add them"]


def refused(selected: Selected, error: RunctlError) -> list[str]:
    """Why a push is blocked, and the ways on."""
    said = [f"{_subject(selected)}: a run of it would be refused", *str(error).split("\n")]
    hint = [f"→ {error.hint}"] if error.hint else []
    return [*said, *hint, "→ mend it, commit and push again; to push as it is: git push --no-verify, or RUNCTL_SKIP=1"]


def started(run_id: str, log: str, *, is_new: bool) -> list[str]:
    """How to follow a run, and how to end it."""
    what = "training: run" if is_new else "there is a run of this commit already, attached to it:"
    # Of one that is there already, an earlier push may have been accepted.
    end = "end it, should the remote reject this push" if is_new else "end it"
    return [
        f"{what} {run_id}",
        f"follow it:  runctl-action logs {run_id} -f",
        f"{end}:  runctl-action stop {run_id}",
        f"its launcher goes on in the background: {log}",
    ]


def size(count: int) -> str:
    """Bytes as people say them: 999 B, 1.2 kB, 3.4 GB."""
    if count < 1000:
        return f"{count} B"
    number = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        number /= 1000
        if number < 999.95 or unit == "TB":
            break
    return f"{number:.1f} {unit}"


def _subject(selected: Selected) -> str:
    names = [visible(ref.name) for ref in selected.refs]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} ({selected.commit[:12]})"


def _details(checked: Checked, remote: str, now: datetime) -> list[str]:
    settings = checked.settings
    compared = f"{_files(*checked.new)} new to the branch at {visible(remote)}" if checked.is_compared else "all new"
    where = f"on {settings.instance_id}" if settings.instance_id else f"{settings.instance_type[0]}"
    if not settings.instance_id:
        where += f", {_SPOT[settings.spot]}, {show_duration(settings.max_duration)} at most"
    return [
        f"  script  {visible(shlex.join((checked.script, *checked.args)))}",
        f"  source  {_files(checked.files, checked.bytes)}; {compared}",
        f"  host    {where}{_price(checked, now)}",
    ]


def _files(count: int, total: int) -> str:
    return f"{count} file{'s' * (count != 1)}, {size(total)}"


def _price(checked: Checked, now: datetime) -> str:
    if checked.price is None:
        return ""
    most = checked.price.usd * checked.settings.max_duration / 3600
    hours = max(0, int((now - checked.price.as_of).total_seconds() // 3600))
    usd = f"{checked.price.usd.normalize():f}"
    return f"; {usd} USD/h on demand, {most.quantize(Decimal('0.01'))} USD at most (list price, {hours} h old)"
