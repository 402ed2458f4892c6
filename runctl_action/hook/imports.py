"""Modules that a script imports and a push would leave behind: they are on this disk, and not in the commit."""

from __future__ import annotations

import ast
import os
import posixpath
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence

# What is looked at, at most: a project's own imports are seldom more, and a push waits for it.
_MOST_MODULES = 500
_MOST_BYTES = 2_000_000
_MOST_PARTS = 20
# `import a.a.a…`: Python's parser takes the square of its length, and nothing can interrupt it.
_ENDLESS = re.compile(rb"(?:\.[\s\\]*[\w\x80-\xff]+[\s\\]*){100}")


def untracked_modules(
    script: str,
    tracked: Collection[bytes],
    read: Callable[[Sequence[str]], Sequence[bytes]],
    is_on_disk: Callable[[str], bool],
) -> tuple[str, ...]:
    """The paths, from the root, of modules that `script` or a tracked module of its own imports, and that are not
    tracked. `read(paths)` gives the contents of tracked files. Looked for beside the script, and from the root."""
    found: dict[str, None] = {}
    seen, left = {script}, _MOST_BYTES
    layer = [script] if script.endswith(".py") else []
    bases = tuple(dict.fromkeys((posixpath.dirname(script), "")))
    while layer and len(seen) <= _MOST_MODULES:
        following: dict[str, None] = {}
        for path, text in zip(layer, read(layer), strict=True):
            if (left := left - len(text)) < 0:
                return tuple(found)
            for candidates in _imported(path, text, bases):
                for candidate in candidates:
                    if os.fsencode(candidate) in tracked:
                        following[candidate] = None
                        break
                    if is_on_disk(candidate):
                        found[candidate] = None
                        break
        layer = [path for path in following if path not in seen]
        seen.update(layer)
    return tuple(found)


def _imported(path: str, text: bytes, bases: Sequence[str]) -> Iterator[list[str]]:
    """For each module that is imported, the files that it may be, in the order in which Python looks."""
    if _ENDLESS.search(text):
        return
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # the training says so itself
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(bases, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            where = bases
            if node.level:
                folder = posixpath.dirname(path)
                for _ in range(node.level - 1):
                    folder = posixpath.dirname(folder)
                where = (folder,)
            yield from _files(where, parts)
            for alias in node.names:
                yield from _files(where, [*parts, alias.name])


def _files(bases: Sequence[str], parts: Sequence[str]) -> Iterator[list[str]]:
    """Of `a.b`, the module `a` and the module `a.b`."""
    for count in range(1, min(len(parts), _MOST_PARTS) + 1):
        names = [posixpath.join(base, *parts[:count]) for base in bases]
        yield [file for name in names for file in (f"{name}/__init__.py", f"{name}.py")]
