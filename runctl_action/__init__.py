"""Push code, train it on your own AWS account, read the answer in the pull request."""

__version__ = "0.1.0"
