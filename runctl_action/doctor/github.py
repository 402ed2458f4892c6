"""Whether the token may post. What a token may write, GitHub does not say to who only asks: that shows when it does."""

from __future__ import annotations

from runctl_action.doctor.checkup import Facts, NotNeeded
from runctl_action.hook.place import Place, place_of

_SECONDS = 20


def token(facts: Facts) -> str:
    secret = facts.settings.github_token
    if secret is None:
        raise NotNeeded("there is no github-token: nothing is posted from here")
    place = _place(facts)
    if place is None:
        raise NotNeeded("the remote `origin` is not on GitHub (of another server: set GITHUB_SERVER_URL)")
    from runctl_action.github.connection import Connection, Forbidden

    connection = Connection(place.repository, secret, api_url=place.api_url)
    scopes = connection.may_read_pull_requests(connection.patience(_SECONDS))
    if scopes is None:
        # Of GITHUB_TOKEN and fine-grained tokens.
        return f"reads {place.repository}; whether it may write (`pull-requests: write`) shows when it does"
    if not {"repo", "public_repo"} & set(scopes):
        raise Forbidden(
            f"the token has the scopes {', '.join(scopes) or '(none)'}: with these it cannot comment",
            "give it the scope repo (public_repo for a public repository), or take a fine-grained token with "
            "`Pull requests: Read and write`",
        )
    return f"reads {place.repository}, and has the scopes {', '.join(scopes)}"


def _place(facts: Facts) -> Place | None:
    environ = facts.environ
    repository = environ.get("GITHUB_REPOSITORY")
    if repository and (api_url := environ.get("GITHUB_API_URL")):
        return Place(repository, environ.get("GITHUB_SERVER_URL", ""), api_url)
    return place_of([facts.repository.origin_url()], environ)
