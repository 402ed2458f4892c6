"""A GitHub of one repository, over HTTP, held to GitHub's own description of its API.

To import it, a conftest.py puts the folder `tests` on sys.path: another distribution owns the name `tests`.
"""

from github_double.clock import Clock
from github_double.server import BOT, Comment, GitHub, Pull

__all__ = ["BOT", "Clock", "Comment", "GitHub", "Pull"]
