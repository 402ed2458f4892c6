"""IAM as the template grants it, and as the suite has seen it asked for."""

from iam import reference
from iam.documents import Grant, actions, grants, lacking, listed, without
from iam.recording import Asked, Recorded
from iam.stack import TEMPLATE, Stack, deploy
from iam.token import job_token

__all__ = [
    "TEMPLATE", "Asked", "Grant", "Recorded", "Stack", "actions", "deploy", "grants", "job_token", "lacking", "listed",
    "reference", "without",
]  # fmt: skip
