"""Writes docs/fault-matrix.md from the cells of the fault matrix, which the tests run. `make docs` runs it; with
--check it writes nothing, and fails when the file is another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "integration" / "run"))

from fault_cells import CELLS, Cell  # noqa: E402

PAGE = ROOT / "docs" / "fault-matrix.md"

INTRODUCTION = """\
# The fault matrix

What becomes of a run when something fails: every fault of the [emulator](faults.md), at every phase in which it can
strike. This page is generated (`make docs`) from the list that the tests run, so it says what happens and not what is
hoped for: `make test` runs a representative part of it, `make matrix` all of it, in less than an hour. Where we know
that something is not yet as it has to be, its line says so.

For every line these hold too, and are tested with it:

- `succeeded` is said exactly when the training ran to its end, on the files that were pushed.
- Every checkpoint in the report is in the bucket, to the byte.
- A message names the cause, and a hint the next thing to do. Nothing ends in a traceback.
- Afterwards no instance of the run is alive. Where we are not allowed to terminate it, that is said, and it ends by its
  lease.

## How to read it

**Fault** is what `--fault` takes; several in a line strike together. A fault that is marked ● was set while the run was
training. **Outcome** and [**cause**](failures.md) are the report's, the **exit code** is the command's. **Survives** is
what the report still has: `up to the end` means all that was written, `up to seconds before` all but what was written
in the last seconds before the host was gone (a checkpoint is uploaded once it has not changed for two). **Said** is a
part of the message, for what is survived a part of the warnings.

## How to try a line

```sh
runctl-action train --emulate --fault die:phase=training,after=7 examples/digits/train.py -- --epochs 20 --pause 1
```

A fault marked ● is sent to an emulator that stays, while the run is training:

```sh
runctl-action emulator --port 5050
curl -d 'expired:who=launcher' $AWS_ENDPOINT_URL/_runctl/faults
curl -X DELETE $AWS_ENDPOINT_URL/_runctl/faults
```
"""

PHASES = {
    "preparing": "Before anything is launched. What is refused here costs nothing, and leaves no run behind.",
    "launching": "From the first RunInstances to an instance.",
    "booting": "From the instance to the host's first sign of life, by SSM.",
    "syncing": "The host fetches the source, and verifies it.",
    "installing": "The dependencies are installed.",
    "training": "The script runs.",
    "collecting": "The script has ended; what is left is uploaded, then the result.",
    "following": "The launcher, while the host trains.",
}
_OUTCOMES = {"no run": "refused", "open": "launcher ends, run waits", "goes on": "launcher ends, run goes on"}


def main(argv: list[str]) -> int:
    text = page()
    if "--check" not in argv:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE} is not what the fault matrix says: make docs", file=sys.stderr)
    return 1


def page() -> str:
    """The whole file."""
    assert {cell.phase for cell in CELLS} == set(PHASES)
    return INTRODUCTION + "".join(
        f"\n## {phase.capitalize()}\n\n{about}\n\n" + "\n".join(_table(phase)) + "\n" for phase, about in PHASES.items()
    )


def _table(phase: str) -> Iterator[str]:
    yield "| fault | outcome | cause | exit code | survives | said |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for cell in CELLS:
        if cell.phase == phase:
            outcome, cause, code = _ending(cell)
            yield f"| {_fault(cell)} | {outcome} | {cause} | {code} | {_survives(cell)} | {_said(cell)} |"


def _fault(cell: Cell) -> str:
    shown = " ".join(f"`{fault}`" for fault in cell.each) + (" ●" if cell.since_training else "")
    if flags := [flag for flag in cell.flags if flag != "SUBNET"]:
        words = " ".join(f"'{flag}'" if " " in flag else flag for flag in flags)
        shown += f" with `{words.replace('--subnets', '--subnets …')}`"
    return shown + (", then `runctl-action stop`" if cell.stops else "")


def _ending(cell: Cell) -> tuple[str, str, str]:
    """Outcome, cause, exit code; with those of the same command later, where it is tried."""
    outcome = _OUTCOMES.get(cell.ending.outcome, cell.ending.outcome)
    cause = f"`{cell.ending.cause}`" if cell.ending.cause else ""
    code = str(cell.ending.code)
    if cell.later:
        outcome += f"; the same command later: {cell.later.outcome}"
        code += f", later {cell.later.code}"
    outcome += "; the lease ends the instance" if cell.ends_by_lease else ""
    outcome += f"; takes {cell.takes}" if cell.takes else ""
    outcome += f" (not tested: {cell.unreached})" if cell.unreached else ""
    return outcome, cause, code


def _survives(cell: Cell) -> str:
    if cell.ending.outcome in _OUTCOMES:
        return "everything" if cell.ending.outcome == "goes on" else "nothing was launched"
    left = cell.left
    if left.log == "none":
        return "the uploaded source; nothing was trained"
    how = {
        "all": "checkpoints and log up to the end",
        "uploaded": "checkpoints and log up to seconds before",
        "before": "checkpoints and log up to the cut",
    }
    shown = how.get(left.checkpoints, "the log up to the end, no checkpoint")
    shown += ", metrics" if left.has_metrics else ""
    if cell.attempts > 1:
        shown += f"; attempt {cell.attempts} goes on from the last checkpoint" if cell.script == "steady" else ""
        shown += f"; attempt {cell.attempts} begins anew" if cell.script != "steady" else ""
    return shown


def _said(cell: Cell) -> str:
    return f"“{cell.says}”" if cell.says else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
