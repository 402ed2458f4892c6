"""What a push that trains says when it is cancelled."""

from __future__ import annotations

import pytest

from runctl_action.hook import training
from runctl_action.hook.pushed import Pushed
from runctl_action.hook.selection import Selected
from runctl_action.source.repository import Repository


def test_a_push_that_is_cancelled_says_that_its_run_is_not(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    repository = Repository(tmp_path, "", tmp_path, "sha1", "", {"PATH": "/nowhere"})
    asked = [Selected("a" * 40, (Pushed("a" * 40, "refs/heads/x", None),), {}, is_trained=True, is_strict=False)]
    monkeypatch.setattr(training, "_launch", lambda *_: None)
    monkeypatch.setattr(training, "_await", interrupted)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        training.train(repository, asked, "x", is_strict=False, tell=said.extend)
    assert said == ["the push is cancelled, what it asked for is not: runctl-action list, then runctl-action stop RUN"]
