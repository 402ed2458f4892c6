"""What git and pre-commit say of a push. RUNCTL_TEST_EXAMPLES sets how many inputs the long searches try."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runctl_action.errors import UsageError
from runctl_action.hook import pre_push
from runctl_action.hook.pushed import Pushed, read_lines, read_variables

EXAMPLES = int(os.environ.get("RUNCTL_TEST_EXAMPLES", "0")) or 200
# The limit of one test is for the few inputs of every day.
LONG = pytest.mark.timeout(180 + EXAMPLES / 10)
A, B, NOTHING = "a" * 40, "b" * 40, "0" * 40


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"refs/heads/x {A} refs/heads/x {NOTHING}", [Pushed(A, "refs/heads/x", None)]),
        (f"refs/heads/x {A} refs/heads/y {B}", [Pushed(A, "refs/heads/y", B)]),
        (f"HEAD~3 {A} refs/heads/y {B}", [Pushed(A, "refs/heads/y", B)]),
        (f":/two words {A} refs/heads/y {B}", [Pushed(A, "refs/heads/y", B)]),
        (f"(delete) {NOTHING} refs/heads/x {A}", []),
        (f"refs/tags/v1 {A} refs/tags/v1 {NOTHING}", [Pushed(A, "refs/tags/v1", None)]),
        (f"x {'a' * 64} refs/heads/x {'0' * 64}", [Pushed("a" * 64, "refs/heads/x", None)]),
        ("", []),
    ],
)
def test_a_line_of_gits_is_read(line, found):
    assert list(read_lines(line.encode())) == found
    assert list(read_lines(f"{line}\n".encode())) == found


def test_several_refs_keep_their_order():
    lines = f"x {A} refs/heads/x {NOTHING}\n(delete) {NOTHING} refs/heads/z {A}\ny {B} refs/heads/y {A}\n"
    assert [ref.name for ref in read_lines(lines.encode())] == ["x", "y"]


@pytest.mark.parametrize("line", ["x", f"x {A} y", f"x {A[:39]} y {B}", f"x {A} y {B}z", f"x {A.upper()} y {B}"])
def test_what_is_no_line_of_gits_is_refused(line):
    with pytest.raises(UsageError, match="no line of git's"):
        read_lines(line.encode())


def test_a_branch_is_told_from_other_refs():
    branch, tag = Pushed(A, "refs/heads/a/b", None), Pushed(A, "refs/tags/v1", None)
    assert (branch.is_branch, branch.name) == (True, "a/b")
    assert (tag.is_branch, tag.name) == (False, "refs/tags/v1")


def test_pre_commit_says_it_in_variables():
    said = {
        "PRE_COMMIT_LOCAL_BRANCH": "refs/heads/x",
        "PRE_COMMIT_REMOTE_BRANCH": "refs/heads/y",
        "PRE_COMMIT_TO_REF": A,
        "PRE_COMMIT_FROM_REF": B,
    }
    assert read_variables(said) == (Pushed(A, "refs/heads/y", B),)


def test_of_the_first_push_to_an_empty_remote_pre_commit_names_the_branch_alone():
    said = {"PRE_COMMIT_LOCAL_BRANCH": "refs/heads/x", "PRE_COMMIT_REMOTE_BRANCH": "refs/heads/y"}
    assert read_variables(said) == (Pushed("refs/heads/x", "refs/heads/y", None),)
    assert read_variables({}) == ()


_OIDS = st.sampled_from([A, B, NOTHING, "c" * 64, "0" * 64])
# What git allows in a ref's name, and what it does not.
_REFS = st.text(st.characters(exclude_characters="\n "), min_size=1, max_size=60)
_LOCAL = st.text(st.characters(exclude_characters="\n"), max_size=60)


@given(st.binary(max_size=300))
@example(b"\xff\xfe \x00")
@settings(max_examples=EXAMPLES)
@LONG
def test_any_bytes_are_read_or_refused(data):
    try:
        found = read_lines(data)
    except UsageError:
        return
    assert all(len(ref.local) in {40, 64} for ref in found)


@given(st.lists(st.tuples(_LOCAL, _OIDS, _REFS, _OIDS), max_size=5))
@settings(max_examples=EXAMPLES)
@LONG
def test_whatever_a_ref_is_called_it_is_read_as_it_is(refs):
    lines = "".join(f"{local} {oid} {ref} {known}\n" for local, oid, ref, known in refs)
    found = read_lines(lines.encode("utf-8", "surrogatepass"))
    kept = [
        (oid, os.fsdecode(ref.encode("utf-8", "surrogatepass")), known) for _, oid, ref, known in refs if oid.strip("0")
    ]
    assert [
        (ref.local, ref.remote_ref, ref.known or known) for ref, (*_, known) in zip(found, kept, strict=True)
    ] == kept


@given(st.lists(st.tuples(_LOCAL, _OIDS, _REFS, _OIDS), max_size=3), st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=EXAMPLES)
@LONG
def test_no_name_stops_a_push_and_none_reaches_git_but_as_an_object_id(refs, remote, url):
    asked = []

    def git(arguments, stdin):
        asked.append((tuple(arguments), stdin))
        return b"".join(name + b" missing\n" for name in stdin.splitlines())

    lines = "".join(f"{local} {oid} {ref} {known}\n" for local, oid, ref, known in refs)
    out = io.StringIO()
    stdin = io.BytesIO(lines.encode("utf-8", "surrogatepass"))
    assert pre_push.run([remote, url], {}, stdin, out, git=git) == 0
    assert out.getvalue() == ""
    for arguments, sent in asked:
        assert arguments == ("cat-file", "--batch")
        assert set(sent.split(b"\n")) <= {
            f"{oid}{rest}".encode()
            for _, oid, _, _ in refs
            for rest in ("^{commit}", ":runctl.toml", ":pyproject.toml")
        } | {b""}


@given(st.binary(max_size=200))
@settings(max_examples=EXAMPLES)
@LONG
def test_no_input_stops_a_push(data):
    def git(arguments, stdin):
        return b"".join(name + b" missing\n" for name in stdin.split(b"\n")[:-1])

    out = io.StringIO()
    assert pre_push.run(["origin", "x"], {}, io.BytesIO(data), out, git=git) == 0
    assert "a defect" not in out.getvalue()
    assert "Traceback" not in out.getvalue()


def test_a_defect_of_ours_is_told_and_lets_the_push_through():
    def git(arguments, stdin):
        raise ZeroDivisionError("of ours")

    out = io.StringIO()
    lines = f"x {A} refs/heads/x {NOTHING}\n".encode()
    assert pre_push.run(["origin", "x"], {}, io.BytesIO(lines), out, git=git) == 0
    assert "a defect of ours, sorry: ZeroDivisionError('of ours')" in out.getvalue()
    assert "Traceback" not in out.getvalue()
    assert out.getvalue().endswith("the push goes on\n")
