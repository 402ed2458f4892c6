"""What is new to a remote, from git's own list of changes."""

from __future__ import annotations

from runctl_action.hook.listing import Listing, _count

OLD, NEW, SAME, NOTHING = "a" * 40, "b" * 40, "c" * 40, "0" * 40


def changes(*lines: tuple[str, str, str, str, bytes]) -> bytes:
    return b"".join(
        b":100644 %s %s %s %s\0%s\0" % (m.encode(), o.encode(), n.encode(), s.encode(), p) for m, o, n, s, p in lines
    )


def test_changed_and_added_files_are_new_and_removed_ones_are_not():
    out = changes(
        ("100644", OLD, NEW, "M", b"changed"),
        ("100644", NOTHING, "d" * 40, "A", b"added"),
        ("000000", "e" * 40, NOTHING, "D", b"gone"),
    )
    assert _count(out, Listing({b"changed": 5, b"added": 7, b"other": 100})) == (2, 12)


def test_a_file_that_only_moved_is_not_new():
    out = changes(("000000", SAME, NOTHING, "D", b"a"), ("100644", NOTHING, SAME, "A", b"b"))
    assert _count(out, Listing({b"b": 5})) == (0, 0)


def test_of_a_submodule_all_files_are_new():
    out = changes(("160000", OLD, NEW, "M", b"sub"))
    assert _count(out, Listing({b"sub/a": 5, b"sub/b": 7, b"subs": 1})) == (2, 12)
    assert _count(b"", Listing({b"a": 1})) == (0, 0)
