"""How fast a source gets into the bucket and out of it again, beside the programs that one would use instead.

All figures come from one run on one generated repository, against the emulator's S3, which is a process of its own.
Every measured piece of Python has a fresh process: its time counts after imports, with the S3 client made and its
connection open (a launcher and a host have both by then), and its peak memory is its own. Product and peer take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

AWS_SYNC_ROUNDS = 2
RESTORES_PER_ROUND = 3
_GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.invalid", "-c", "gc.auto=0")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync", description="Measures sync and restore.")
    parser.add_argument("--files", type=int, default=5000, help="files of the generated repository (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the table has their medians (%(default)s)")
    parser.add_argument("--skip-aws-sync", action="store_true", help="leave out `aws s3 sync`, which takes a minute")
    parser.add_argument("--no-judge", action="store_true", help="exit with 0 even when a target is missed")
    given = parser.parse_args()
    figures = measure(given.files, given.rounds, aws_sync_rounds=0 if given.skip_aws_sync else AWS_SYNC_ROUNDS)
    rows = compare(figures)
    print(table(rows))
    return 0 if given.no_judge or all(row.is_met for row in rows) else 1


Figures = Mapping[str, list[float]]


def measure(files: int, rounds: int, aws_sync_rounds: int) -> Figures:
    """What was seen, by name, at least one value a round: seconds, bytes, or a number of packs."""
    seen: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="runctl-bench-") as made:
        directory = Path(made)
        environ = _clean_environ(directory)
        project = directory / "project"
        size = generate(project, files, environ)
        print(f"{files} files, {size / 1e6:.1f} MB, {rounds} rounds", flush=True)
        with _emulator(environ) as emulated:
            for turn in range(rounds):
                _round(seen, turn, directory, project, environ | emulated, with_aws_sync=turn < aws_sync_rounds)
                print(f"round {turn + 1} of {rounds} done", flush=True)
    return seen


@dataclass(frozen=True)
class Row:
    name: str
    figure: str
    beside: str
    target: str
    is_met: bool


def compare(figures: Figures) -> list[Row]:
    """The medians beside their targets; what was not measured has no row."""
    median = {name: statistics.median(values) for name, values in figures.items()}

    def slower(name: str, figure: str, peer: str, limit: float) -> Row:
        ratio = median[figure] / median[peer]
        beside = f"{ratio:.2f} x {peer} ({median[peer]:.3f} s)"
        return Row(name, f"{median[figure]:.3f} s", beside, f"<= {limit:g} x", ratio <= limit)

    def faster(name: str, figure: str, peer: str, limit: float) -> Row:
        ratio = median[peer] / median[figure]
        beside = f"{ratio:.1f} x faster than {peer} ({median[peer]:.1f} s)"
        return Row(name, f"{median[figure]:.3f} s", beside, f">= {limit:g} x", ratio >= limit)

    def memory(name: str, figure: str) -> Row:
        peak = max(figures[figure])
        return Row(name, f"{peak / 1e6:.0f} MB", "the largest of all rounds", "< 200 MB", peak < 200e6)

    aws = "aws s3 sync"
    packs = max(figures["packs added by an unchanged sync"])
    return [
        slower("first sync", "first sync", "git archive | zstd, one upload", 2),
        *([faster("first sync", "first sync", aws, 10)] if aws in median else []),
        Row("one file changed", f"{median['changed']:.3f} s", "", "<= 0.3 s", median["changed"] <= 0.3),
        Row("nothing changed", f"{median['unchanged']:.3f} s", f"{packs:g} packs added", "0 packs", packs == 0),
        slower("restore and verify", "restore", "tar x", 2.5),
        memory("memory of a sync", "sync memory"),
        memory("memory of a restore", "restore memory"),
    ]


def table(rows: list[Row]) -> str:
    lines = [("", "median", "", "target", "")]
    lines += [(row.name, row.figure, row.beside, row.target, "✓" if row.is_met else "✗") for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def generate(project: Path, files: int, environ: Mapping[str, str]) -> int:
    """A repository with one commit, the same at every call; the bytes of its files."""
    chance = random.Random(20)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 11))) for _ in range(4000)]
    # Few words are frequent, most are rare, as in any text: it compresses about as well as source code does.
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    total = 0
    for number in range(files):
        folders = [f"{chance.choice(words[:4])}{level}" for level in range(chance.randint(0, 4))]
        path = project.joinpath(*folders, f"{words[number % len(words)]}_{number}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        size = min(int(chance.lognormvariate(8.3, 1.4)), 2_000_000)
        if number % 12 == 0:
            data = chance.randbytes(size)
        else:
            text = chance.choices(words, weights, k=size // 5 + 1)
            ends = chance.choices(
                (" ", "_", "(", ")\n    ", " = ", ".", ":\n        "), (6, 2, 1, 1, 1, 2, 1), k=len(text)
            )
            data = "".join(part for pair in zip(text, ends, strict=True) for part in pair).encode()[:size]
        path.write_bytes(data)
        path.chmod(0o755 if number % 50 == 0 else 0o644)
        # Files as old as git's index are read again by every `git status`; a checkout is not that young.
        os.utime(path, (1.7e9, 1.7e9))
        total += len(data)
    for command in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "first"), ("repack", "-adq")):
        _git(project, environ, *command)
    return total


def _round(
    seen: dict[str, list[float]],
    turn: int,
    directory: Path,
    project: Path,
    environ: dict[str, str],
    with_aws_sync: bool,
) -> None:
    prefix = f"round-{turn}"

    def upload_at_once() -> None:
        seen["git archive | zstd, one upload"].append(_fresh("_single_upload", environ, project, prefix)["seconds"])

    def sync(name: str) -> dict[str, Any]:
        done = _fresh("_sync", environ, project, prefix)
        seen[name].append(done["seconds"])
        seen["sync memory"].append(done["peak_bytes"])
        return done

    first, _ = _in_turn(turn, lambda: sync("first sync"), upload_at_once)
    unchanged = sync("unchanged")
    seen["packs added by an unchanged sync"].append(
        len(unchanged["added"]) + bool(unchanged["packs"]["uploaded_bytes"])
    )

    archive = directory / f"archive-{turn}.tar"
    _git(project, environ, "archive", "-o", str(archive), "HEAD")
    order = (prefix, first["packs"], first["manifest_bytes"])
    # Often, and nothing is deleted before the end: ext4 creates files ten times slower for a minute after many were.
    for again in range(RESTORES_PER_ROUND):
        restored, extracted = directory / f"restored-{turn}-{again}", directory / f"extracted-{turn}-{again}"
        extracted.mkdir()
        restore, tar_seconds = _in_turn(
            turn + again,
            partial(_fresh, "_restore", environ, restored, *order),
            partial(_run_timed, ["tar", "xf", str(archive)], extracted, environ),
        )
        seen["restore"].append(restore["seconds"])
        seen["restore memory"].append(restore["peak_bytes"])
        seen["tar x"].append(tar_seconds)

    if with_aws_sync:
        command = [sys.executable, "-m", "awscli", "s3", "sync", ".", f"s3://{environ['RUNCTL_BUCKET']}/aws-{turn}/"]
        options = ["--exclude", ".git/*", "--only-show-errors"]
        seen["aws s3 sync"].append(_run_timed(command + options, project, environ))

    path = sorted(project.glob("**/*.py"))[turn]
    path.write_bytes(b"# changed\n" + path.read_bytes())
    _git(project, environ, "commit", "-q", "-a", "-m", f"change {turn}")
    changed = sync("changed")
    assert changed["packs"]["uploaded_files"] == 1, changed


def _in_turn(turn: int, product: Callable[[], Any], peer: Callable[[], Any]) -> tuple[Any, Any]:
    """Both answers; who goes first changes from round to round."""
    if turn % 2:
        second = peer()
        return product(), second
    return product(), peer()


def _sync(project: str, prefix: str) -> dict[str, Any]:
    from runctl_action.cloud.session import connect
    from runctl_action.cloud.store import Store
    from runctl_action.contract.layout import Layout
    from runctl_action.source.packs import upload_source
    from runctl_action.source.repository import open_repository, read_source

    session = connect(os.environ, None)
    store, layout = Store(session, os.environ["RUNCTL_BUCKET"]), Layout(prefix=prefix)
    before = {found.key for found in store.list(f"{prefix}/packs/")}
    start = time.perf_counter()
    source = read_source(open_repository(Path(project), os.environ))
    packs = upload_source(source, store, layout)
    seconds = time.perf_counter() - start
    peak_bytes = _peak_bytes()
    added = [found.key for found in store.list(f"{prefix}/packs/") if found.key not in before]
    session.close()
    return {
        "seconds": seconds,
        "peak_bytes": peak_bytes,
        "added": added,
        "packs": packs.model_dump(),
        "manifest_bytes": len(source.manifest.canonical()),
    }


def _restore(directory: str, prefix: str, packs: dict[str, Any], manifest_bytes: int) -> dict[str, Any]:
    """As the host process does it."""
    from runctl_action.contract.documents import Order, Packs
    from runctl_action.host.bucket import HostBucket
    from runctl_action.host.workspace import open_manifest, restore

    wanted = Packs.model_validate(packs)
    bucket = HostBucket(
        Order(
            run_id="bench",
            attempt=1,
            bucket=os.environ["RUNCTL_BUCKET"],
            region=os.environ["AWS_REGION"],
            prefix=prefix,
            userid="AROABENCH:i-0",
            digest=wanted.digest,
            spec_sha256="",
        )
    )
    bucket.get("opens the connection")
    start = time.perf_counter()
    compressed = bucket.get(bucket.layout.manifest(wanted.digest))
    assert compressed is not None
    manifest = open_manifest(compressed, wanted.digest, manifest_bytes)
    restore(manifest, wanted.packs, lambda pack: bucket.open(bucket.layout.pack(pack.sha256)), Path(directory))
    return {"seconds": time.perf_counter() - start, "peak_bytes": _peak_bytes()}


def _single_upload(project: str, prefix: str) -> dict[str, Any]:
    """`git archive HEAD | zstd`, both as they come, and one request with the result."""
    import zstandard

    from runctl_action.cloud.session import connect

    session = connect(os.environ, None)
    s3, bucket = session.client("s3"), os.environ["RUNCTL_BUCKET"]
    s3.head_bucket(Bucket=bucket)
    start = time.perf_counter()
    with tempfile.TemporaryFile() as file:
        with subprocess.Popen(["git", "archive", "HEAD"], cwd=project, stdout=subprocess.PIPE) as archive:
            assert archive.stdout is not None
            zstandard.ZstdCompressor().copy_stream(archive.stdout, file)
        assert archive.returncode == 0
        file.seek(0)
        s3.put_object(Bucket=bucket, Key=f"{prefix}-single.tar.zst", Body=file)
    seconds = time.perf_counter() - start
    session.close()
    return {"seconds": seconds}


def _emulated() -> dict[str, str]:
    """Serves until its input ends."""
    from runctl_action.emulator.server import Emulator

    with tempfile.TemporaryDirectory(prefix="runctl-bench-") as directory, Emulator(Path(directory)) as emulator:
        print(json.dumps(emulator.environ), flush=True)
        sys.stdin.read()
    return {}


_IN_PROCESS: Mapping[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function for function in (_sync, _restore, _single_upload, _emulated)
}


def in_process(name: str, arguments: str) -> None:
    """What a measured process runs."""
    print(json.dumps(_IN_PROCESS[name](*json.loads(arguments))))


def _command(name: str, *arguments: object) -> list[str]:
    program = "import sys; from benchmarks.sync import in_process; in_process(*sys.argv[1:])"
    return [sys.executable, "-c", program, name, json.dumps(arguments, default=str)]


def _fresh(name: str, environ: Mapping[str, str], *arguments: object) -> dict[str, Any]:
    done = subprocess.run(_command(name, *arguments), env=environ, check=True, stdout=subprocess.PIPE)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextlib.contextmanager
def _emulator(environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Another process, so that the server's time and memory are not in the figures; what points others to it."""
    with subprocess.Popen(_command("_emulated"), env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        variables: dict[str, str] = json.loads(process.stdout.readline())
        # The AWS CLI reads this name only.
        yield variables | {"AWS_DEFAULT_REGION": variables["AWS_REGION"]}
        process.communicate()


def _run_timed(command: list[str], cwd: Path, environ: Mapping[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=environ, check=True)
    return time.perf_counter() - start


def _peak_bytes() -> int:
    # In kilobytes, except on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _clean_environ(home: Path) -> dict[str, str]:
    """Nothing of the user's AWS or git configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GIT_", "RUNCTL_"))}
    return kept | {"HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}


def _git(project: Path, environ: Mapping[str, str], *arguments: str) -> None:
    subprocess.run([*_GIT, *arguments], cwd=project, env=environ, check=True)


if __name__ == "__main__":
    sys.exit(main())
