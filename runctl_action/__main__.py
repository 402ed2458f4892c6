"""`runctl-action` and `python -m runctl_action`."""

import sys


def main() -> None:
    from runctl_action.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
