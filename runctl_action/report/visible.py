"""Text of others, as it may be shown to people. Pure, and cheap to import: a push waits for it."""

from __future__ import annotations

import unicodedata


def visible(text: str) -> str:
    """`text` on one line: control and direction-changing characters, line ends and undecodable bytes as escapes."""
    return text if text.isprintable() else "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    category = unicodedata.category(character)
    if category in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character != "\N{ZERO WIDTH JOINER}":
        if code < 0x100:
            return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character, f"\\x{code:02x}")
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character
