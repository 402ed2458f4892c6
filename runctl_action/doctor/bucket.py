"""The bucket: that it is there, and does what runs rely on."""

from __future__ import annotations

import hashlib

from runctl_action.doctor.checkup import Facts
from runctl_action.errors import BucketError

# The only thing that a doctor leaves behind: tools are named by their content, and expire like them.
PROBE = b"Written by runctl-action doctor, to see whether it can be.\n"
PROBE_NAME = "doctor.txt"


def bucket(facts: Facts) -> str:
    facts.store.check()
    return f"{facts.store.bucket} is in {facts.session.region}"


def encryption(facts: Facts) -> str:
    found = facts.inspection.encryption(facts.store.bucket)
    if found is None:
        raise BucketError(
            f"the bucket {facts.store.bucket} does not encrypt what is written to it",
            f"aws s3api put-bucket-encryption --bucket {facts.store.bucket} --server-side-encryption-configuration "
            """'{"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}'""",
        )
    return f"new objects are encrypted: {found}"


def writing(facts: Facts) -> str:
    key = _key(facts)
    facts.store.put(key, PROBE, content_type="text/plain")
    stored = facts.store.get(key)
    if stored is None or stored.data != PROBE:
        raise BucketError(
            f"{facts.store.uri(key)} was written, and something else was read back",
            "use a bucket of S3 itself, which nothing in between caches",
        )
    return f"{PROBE_NAME} was written below {facts.layout.tools_prefix()}, and read back"


def conditional_writing(facts: Facts) -> str:
    key = _key(facts)
    if facts.store.put(key, PROBE, if_none_match=True, content_type="text/plain") is not None:
        raise BucketError(
            f"{facts.store.uri(key)} was there, and was written again with If-None-Match: *; two launchers could both "
            "believe that a run is theirs",
            "use a bucket of S3 itself: what answers here does not know conditional writes",
        )
    return "If-None-Match: * is refused where there is an object"


def _key(facts: Facts) -> str:
    return facts.layout.tool(hashlib.sha256(PROBE).hexdigest(), PROBE_NAME)
