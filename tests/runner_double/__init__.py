"""GitHub's runner, as far as a container action sees it: what it sets, what it reads, how it cancels.

To import it, a conftest.py puts the folder `tests` on sys.path: another distribution owns the name `tests`.
"""

from runner_double.checkout import Checkout
from runner_double.commands import Runner
from runner_double.log import Read, read_log
from runner_double.payloads import comment, pull_request, push
from runner_double.runner import ROOT, Job, Step

__all__ = ["ROOT", "Checkout", "Job", "Read", "Runner", "Step", "comment", "pull_request", "push", "read_log"]
