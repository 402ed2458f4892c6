"""Which GitHub repository a push goes to."""

from __future__ import annotations

import pytest

from runctl_action.hook.place import Place, place_of

HERE = Place("acme/nets", "https://github.com", "https://api.github.com")


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/acme/nets",
        "https://github.com/acme/nets.git",
        "https://github.com/acme/nets/",
        "https://x-access-token:secret@github.com/acme/nets.git",
        "git@github.com:acme/nets.git",
        "github.com:acme/nets",
        "ssh://git@github.com/acme/nets.git",
        "ssh://git@ssh.github.com:443/acme/nets.git",
        "HTTPS://GitHub.com/acme/nets",
    ],
)
def test_github_is_known_in_every_form_of_its_urls(url):
    assert place_of([url], {}) == HERE


@pytest.mark.parametrize(
    "url",
    ["", "/srv/git/nets.git", "file:///srv/acme/nets", "https://gitlab.com/acme/nets", "https://github.com.evil/a/b",
     "https://evil/github.com/acme/nets", "git@github.com:nets", "https://github.com/a/b/c", "https://github.com/../..",
     "https://github.com/a/..", "https://github.com/a/..git", "git@github.com:a/..", "git@github.com:../a"],
)  # fmt: skip
def test_other_remotes_are_not_github(url):
    assert place_of([url], {}) is None
    assert place_of([url, "git@github.com:acme/nets"], {}) == HERE


def test_an_own_server_is_named_by_the_variables_of_a_workflow():
    environ = {"GITHUB_SERVER_URL": "https://git.acme.example"}
    found = Place("acme/nets", "https://git.acme.example", "https://git.acme.example/api/v3")
    assert place_of(["git@git.acme.example:acme/nets"], environ) == found
    assert place_of(["git@github.com:acme/nets"], environ) is None
    api = {"GITHUB_API_URL": "http://127.0.0.1:1"}
    assert place_of(["git@git.acme.example:acme/nets"], environ | api) == found._replace(api_url="http://127.0.0.1:1")
