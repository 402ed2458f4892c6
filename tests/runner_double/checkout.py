"""What actions/checkout leaves in the workspace."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from runner_double.payloads import pull_request
from runner_double.runner import Job


@dataclass
class Checkout:
    """A repository in the workspace of `job`, on its branch `main`."""

    job: Job

    def __post_init__(self) -> None:
        self.job.workspace.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("")

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", f"safe.directory={self.job.workspace}", *arguments]
        ran = subprocess.run(command, cwd=self.job.workspace, check=True, capture_output=True, text=True)
        return ran.stdout.strip()

    def commit(self, script: str, message: str = "x") -> str:
        (self.job.workspace / "train.py").write_text(script)
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def of_pull_request(self, script: str, *, head: str = "acme/digits") -> str:
        """The merge of a pull request into a `main` that went on, and its event. Gives back the head."""
        self.git("checkout", "--quiet", "-b", "topic")
        head_sha = self.commit(script, "topic")
        self.git("checkout", "--quiet", "main")
        self.git("commit", "--quiet", "--allow-empty", "-m", "main went on")
        self.git("merge", "--quiet", "--no-ff", "-m", "merge", "topic")
        merge = self.git("rev-parse", "HEAD")
        self.job.event("pull_request", merge, pull_request(head_sha, head=head), ref="refs/pull/7/merge")
        return head_sha
