"""What is on this machine: the repository, the settings, the script."""

from __future__ import annotations

from runctl_action.contract.layout import Layout
from runctl_action.doctor.checkup import Facts, NotNeeded
from runctl_action.run.request import require_bucket, required_profile, required_types
from runctl_action.source import repository as source_repository


def git_root(facts: Facts) -> str:
    facts.repository = source_repository.open_repository(facts.cwd, facts.environ)
    return f"{facts.repository.root} ({facts.repository.how})"


def settings(facts: Facts) -> str:
    facts.settings, facts.environ = facts.load()
    found = facts.settings
    require_bucket(found, facts.repository.root)
    if found.instance_id:
        where = f"instance {found.instance_id}"
    else:
        required_profile(found)
        where = ", ".join(required_types(found))
    facts.layout = Layout(prefix=found.prefix)
    return f"bucket {found.bucket}, prefix {found.prefix or '(none)'}, {where}, spot: {found.spot}"


def source(facts: Facts) -> str:
    found = facts.settings
    if not found.script:
        raise NotNeeded("no script is set, or named after `doctor`")
    script = source_repository.find_script(facts.repository, facts.cwd, found.script, facts.revision)
    read = source_repository.read_source(facts.repository, facts.revision, found.source, found.max_file_bytes)
    dirty = f"; {len(read.dirty)} uncommitted changes" if read.dirty else ""
    return f"{script} at {read.commit[:12]}, {len(read.manifest.entries)} files{dirty}"
