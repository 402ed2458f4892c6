from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from botocore.stub import Stubber

from runctl_action.cloud import session as cloud_session
from runctl_action.cloud.session import Session

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@pytest.fixture(scope="session")
def session() -> Iterator[Session]:
    """A real session: what its clients would send is checked against AWS's own service models."""
    made = cloud_session.connect(KEYS, "eu-west-1")
    yield made
    made.close()


@pytest.fixture
def stub(session: Session) -> Iterator[Callable[[str], Stubber]]:
    """`stub(service)` answers in place of AWS, in the order told; what was told and not asked fails the test."""
    with ExitStack() as stack:
        stubbers: dict[str, Stubber] = {}

        def for_service(service: str, *, is_retried: bool = True) -> Stubber:
            key = f"{service} {is_retried}"
            if key not in stubbers:
                stubbers[key] = stack.enter_context(Stubber(session.client(service, is_retried=is_retried)))
            return stubbers[key]

        yield for_service
        for stubber in stubbers.values():
            stubber.assert_no_pending_responses()
