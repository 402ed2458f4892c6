"""Every way in which a run can go wrong before, around or because of us; one class per way of failing.

    RunctlError                   exit 70 unless the class says otherwise
    ├── UsageError                2   the command line is not one of ours
    ├── SettingsError             2   unknown key, bad value, missing value
    ├── SourceError               3   what is to be trained
    │   ├── NotARepository            no git repository here
    │   ├── ScriptOutsideRoot         the script is not below the detected root
    │   ├── ScriptNotTracked          the script is not in the commit
    │   ├── UnsafeSymlink             a tracked link leaves the root
    │   ├── LfsObjectMissing          an LFS pointer without its object
    │   ├── SubmoduleMissing          a submodule that is not checked out
    │   └── FileTooLarge              over max-file-bytes
    ├── CloudError                4   where it is to be trained
    │   ├── CredentialsError          none, expired, or the wrong account
    │   ├── PermissionDenied          the one action that is missing is named
    │   ├── Unavailable               no answer, or "later": worth asking again
    │   ├── BucketError               no such bucket, wrong region
    │   ├── NoCapacity                every offer was refused
    │   ├── WrongInstanceState        the state is named, and the next command
    │   ├── InstanceBusy              another run is on it
    │   └── NotReady                  SSM did not answer in time
    ├── SyncError                 5   upload failed, or the digest differs on the host
    ├── InstallError              5   dependency installation failed
    ├── TrainingFailed            1   the training's own end
    ├── Interrupted               6   attempts used up, timed out, hung, over budget
    ├── Lost                      7   the host vanished without a result
    └── Cancelled                 130

A message says what happened and what was seen; a hint says what to do next, as a command where there is one.
"""

from __future__ import annotations


class RunctlError(Exception):
    """The base; `str(error)` is what happened, `error.hint` what to do (may be empty), `exit_code` for the shell."""

    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(RunctlError):
    exit_code = 2


class SettingsError(RunctlError):
    exit_code = 2


class SourceError(RunctlError):
    exit_code = 3


class NotARepository(SourceError):
    pass


class ScriptOutsideRoot(SourceError):
    pass


class ScriptNotTracked(SourceError):
    pass


class UnsafeSymlink(SourceError):
    pass


class LfsObjectMissing(SourceError):
    pass


class SubmoduleMissing(SourceError):
    pass


class FileTooLarge(SourceError):
    pass


class CloudError(RunctlError):
    exit_code = 4


class CredentialsError(CloudError):
    pass


class PermissionDenied(CloudError):
    pass


class Unavailable(CloudError):
    pass


class BucketError(CloudError):
    pass


class NoCapacity(CloudError):
    pass


class WrongInstanceState(CloudError):
    pass


class InstanceBusy(CloudError):
    pass


class NotReady(CloudError):
    pass


class SyncError(RunctlError):
    exit_code = 5


class InstallError(RunctlError):
    exit_code = 5


class TrainingFailed(RunctlError):
    exit_code = 1


class Interrupted(RunctlError):
    exit_code = 6


class Lost(RunctlError):
    exit_code = 7


class Cancelled(RunctlError):
    exit_code = 130
