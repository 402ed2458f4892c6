"""The pack: a zstd-compressed ustar archive of regular files, each named by its content id.

Python's tarfile spends ~60 us a member on features that a pack does not have; headers are read and written here.
Member name: the content id with its colon as a hyphen (`git-<oid>`, `sha256-<hex>`), never a path.
"""

from __future__ import annotations

import re
from typing import Protocol

BLOCK = 512
END = b"\0" * (2 * BLOCK)
# 8 GiB - 1 is what an octal size field of 11 digits holds; larger contents use GNU's base-256 form.
_OCTAL_LIMIT = 8**11
_OCTAL = re.compile(rb"[0-7]+\0")  # int() would take signs, spaces and underscores too: a negative size
_NAME = re.compile(rb"(git|sha256)-([0-9a-f]{40}|[0-9a-f]{64})\Z")


class PackError(ValueError):
    """The bytes are not a pack of ours."""


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def member_header(content: str, size: int) -> bytes:
    """The 512-byte header of a member."""
    name = content.replace(":", "-", 1).encode()
    field = b"%011o\0" % size if size < _OCTAL_LIMIT else b"\x80" + size.to_bytes(11, "big")
    head = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + field + b"00000000000\0" + b" " * 8 + b"0"
    head = head.ljust(257, b"\0") + b"ustar\x0000"
    head = head.ljust(BLOCK, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def padding(size: int) -> int:
    """Bytes of zeros that follow `size` bytes of content."""
    return -size % BLOCK


def read_member(stream: Readable) -> tuple[str, int] | None:
    """The next member's (content id, size); None at the end. Raises PackError for what is not a plain member."""
    head = stream.read(BLOCK)
    if head.count(0) == len(head):
        return None
    if len(head) != BLOCK:
        raise PackError("the pack ends within a header")
    if _octal(head[148:155]) != sum(head[:148]) + 256 + sum(head[156:]):
        raise PackError("a header's checksum is wrong")
    name = _NAME.match(head[:100].rstrip(b"\0"))
    if name is None or head[156:157] != b"0":
        raise PackError(f"not a member of a pack: {head[:100].rstrip(bytes(1))!r}, type {head[156:157]!r}")
    field = head[124:136]
    size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    return f"{name[1].decode()}:{name[2].decode()}", size


def _octal(field: bytes) -> int:
    if not _OCTAL.fullmatch(field):
        raise PackError(f"a header's number is damaged: {field!r}")
    return int(field[:-1], 8)
