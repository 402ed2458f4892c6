"""`runctl-action` and `python -m runctl_action`."""

import os
import sys


def main() -> None:
    if sys.argv[1:3] == ["hook", "run"] and "--help" not in sys.argv:
        # Every push waits for it: what the other commands import takes longer than all that it does.
        from runctl_action.hook import pre_push

        sys.exit(pre_push.run(sys.argv[3:], os.environ, sys.stdin.buffer if sys.stdin else None, sys.stderr))
    from runctl_action.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
