"""Settings: values of any setting, whole files, and variables of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date


def _nested(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


# What a flag, a variable or a file can hold.
VALUES: Mapping[str, object] = {
    "nothing": "",
    "space": " \t\n",
    "true": True,
    "words for true": "yes please",
    "zero": 0,
    "negative": -1,
    "negative text": "-1",
    "huge": 2**63,
    "huge text": "9" * 5_000,
    "fraction": 1.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "nan text": "NaN",
    "inf text": "-Infinity",
    "exponent": "1e999999999",
    "small exponent": "1e-999999999",
    "underscores": "1_000",
    "hexadecimal": "0x10",
    "arabic digits": "\u0663\u0664",
    "fullwidth digits": "\uff11\uff12",
    "superscript": "\u00b2",
    "kelvin": "1\u212aB",
    "date": date(2026, 1, 1),
    "list": [],
    "list of lists": [[["a"]]],
    "list of anything": ["a", 1, True, 1.5, None, {"a": 1}],
    "table": {},
    "table of tables": _nested(7),
    "object": object(),
    "nul": "a\0b",
    "nul in a list": ["a\0b"],
    "nul in a variable": {"A": "a\0b"},
    "newline": "a\nb",
    "not utf-8": "caf\udce9",
    "half a pair": "\ud800",
    "escape": "\x1b]0;owned\x07",
    "right to left": "\u202e",
    "quotes": "'\"",
    "open quote": "--name 'a",
    "backslash": "a\\",
    "comma": ",,,",
    "ten megabytes": "x" * 10_000_000,
    "variable without a name": "=a",
    "variable with a space": "A B=c",
    "variable with a newline": {"A\nB": "c"},
    "variable with an equals sign": {"A=B": "c"},
    "variable with a nul": {"A\0": "c"},
    "variable of another alphabet": {"\u00c4": "c"},
    "variable that is a flag": {"-e": "c"},
    "up": "../../../etc",
    "shell": "$(touch pwned) `touch pwned`; touch pwned",
    "ssm": "{{ssm:/prod/password}}",
    "url": "https://user:password@evil.example/",
}

# Whole files that cannot be used.
TOML: Mapping[str, bytes] = {
    "not toml": b"\x00\x01",
    "not utf-8": b'script = "\xff"',
    "byte order": b"\xff\xfes\x00",
    "byte order mark": b"\xef\xbb\xbfscript = 'a'",
    "key twice": b"script = 'a'\nscript = 'b'",
    "table twice": b"[env]\n[env]",
    "dotted and a table": b"env.a = 1\n[env]\nb = 1",
    "dotted key of no table": b"script.a = 1",
    "quoted key": b'"script\\u0000" = 1',
    "key with a newline": b'"a\\n  runctl.toml: script: all is well" = 1',
    "key that plays with the terminal": b'"\\u001b]0;owned\\u0007\\u202e" = 1',
    "empty key": b'"" = 1',
    "prototype": b"__proto__ = 1\n__class__ = 2\nmodel_config = 3\nmodel_fields = 4",
    "hook of another type": b"hook = 3",
    "hook of hooks": b"[hook.hook]\nmode = 'train'",
    "hook twice": b'"hook.mode" = "off"\n[hook]\nmode = 3',
    "arrays without end": b"args = " + b"[" * 20_000 + b"]" * 20_000,
    "arrays of 900": b"args = " + b"[" * 900 + b"]" * 900,
    "arrays of 200": b"args = " + b"[" * 200 + b"]" * 200,
    "tables without end": b"env = " + b"{a = " * 20_000 + b"1" + b"}" * 20_000,
    "dots without end": b"args." + b".".join([b"a"] * 2_000) + b" = 1",
    "a header without end": b"[script." + b".".join([b"a"] * 2_000) + b"]\na = 1",
    "digits without end": b"max-attempts = " + b"9" * 5_000,
    "hexadecimal without end": b"max-attempts = 0x" + b"f" * 20_000,
    "hexadecimal as text": b"script = 0x" + b"f" * 20_000,
    "hexadecimal in a list": b"args = [0x" + b"f" * 20_000 + b"]",
    "nan": b"max-cost = nan",
    "inf": b"volume-size = inf",
    "a date": b"args = 2026-01-01",
    "a time": b"name = 01:02:03",
    "an open quote": b'script = "' + b"a" * 1_000_000,
    "of another tool": b"[tool.runctl]\nscript = 'a'",
}

# Variables that begin as ours do, and whose names are no names.
VARIABLES: Mapping[str, str] = {
    "newline": "RUNCTL_A\nB",
    "escape": "RUNCTL_\x1b]0;owned\x07",
    "right to left": "RUNCTL_\u202e",
    "not utf-8": "RUNCTL_\udcff",
    "nothing": "RUNCTL_",
    "long": "RUNCTL_" + "A" * 100_000,
    "dunder": "RUNCTL___CLASS__",
    "hook": "RUNCTL_HOOK.MODE",
}
