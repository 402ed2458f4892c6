"""A bucket that somebody has rewritten, and contents that were damaged, are refused before anything is trained."""

from __future__ import annotations

import json
from typing import Any

import pytest
import zstandard

from runctl_action.contract.packing import END, member_header, padding, read_member


@pytest.fixture
def pushed(train: Any, s3: Any, bucket: str, commit: Any) -> tuple[dict[str, Any], str, str]:
    """A trained commit; the key of its pack and of its hint. A later commit will rely on both."""
    commit({"data.txt": "the data"})
    said = train("print('first')")
    packs = json.loads(
        s3.get_object(Bucket=bucket, Key=f"runctl/runs/{said.report['run_id']}/packs.json")["Body"].read()
    )
    hints = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix="runctl/sources/")["Contents"]]
    hint = next(
        key
        for key in hints
        if packs["packs"][0]["sha256"].encode() in s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    )
    return said.report, f"runctl/packs/{packs['packs'][0]['sha256']}.tar.zst", hint


def test_a_damaged_pack_is_refused(pushed: Any, train: Any, s3: Any, bucket: str) -> None:
    _, pack, _ = pushed
    data = bytearray(s3.get_object(Bucket=bucket, Key=pack)["Body"].read())
    data[len(data) // 2] ^= 1
    s3.put_object(Bucket=bucket, Key=pack, Body=bytes(data))
    said = train("print('second')")
    assert said.ending == (5, "failed", "sync")
    assert said.report["exit_code"] is None
    assert "second\n" not in said.err


def test_hints_and_packs_that_an_attacker_rewrote_are_refused(pushed: Any, train: Any, s3: Any, bucket: str) -> None:
    _, pack, hint = pushed
    forged = _with_content(s3.get_object(Bucket=bucket, Key=pack)["Body"].read(), b"the data", b"EVIL now")
    s3.put_object(Bucket=bucket, Key=pack, Body=forged)
    latest = json.loads(s3.get_object(Bucket=bucket, Key=hint)["Body"].read())
    latest["pack_bytes"] = {sha: len(forged) for sha in latest["pack_bytes"]}
    s3.put_object(Bucket=bucket, Key=hint, Body=json.dumps(latest).encode())
    said = train("print(open('data.txt').read())")
    assert said.ending == (5, "failed", "sync")
    assert "EVIL" not in said.err


def test_what_was_damaged_is_uploaded_afresh_when_the_run_is_opened_again(
    pushed: Any, train: Any, runctl: Any, s3: Any, bucket: str
) -> None:
    _, pack, _ = pushed
    s3.put_object(Bucket=bucket, Key=pack, Body=b"x" * len(s3.get_object(Bucket=bucket, Key=pack)["Body"].read()))
    assert train("print('second')").ending == (5, "failed", "sync")
    said = runctl("train", "--json", "--again", "train.py")
    assert said.ending == (0, "succeeded", None)
    assert "second\n" in said.err


def _with_content(pack: bytes, old: bytes, new: bytes) -> bytes:
    """The same pack with one content replaced, its name and size kept."""
    reader = zstandard.ZstdDecompressor().stream_reader(pack)
    out = b""
    while (member := read_member(reader)) is not None:
        content, size = member
        data = reader.read(size)
        reader.read(padding(size))
        out += member_header(content, size) + (new if data == old else data) + bytes(padding(size))
    return zstandard.ZstdCompressor().compress(out + END)
