"""Runs in the SSM command: fetches the tools, checks them, starts the host process detached. Prints only what failed.

Self-contained and for any Python from 3.6 on (Amazon Linux 2023 has 3.9): it is sent as text, with PARAMETERS defined.
"""

import base64
import email.utils
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile

# S3 refuses a signature that is 15 minutes off; a clock that is wrong by a third of it is said while it can be.
CLOCK_SECONDS = 300
SYNC = "sync it (chronyd or systemd-timesyncd, with 169.254.169.123 as its server), or use an image that does"


def bootstrap(parameters, environ):
    """0 when the host process runs. Raises when it cannot be started, and when one that was started has ended."""
    order = parameters["order"]
    base = environ.get("RUNCTL_HOST_DIR") or "/var/lib/runctl"
    directory = os.path.join(base, "runs", order["run_id"], str(order["attempt"]))
    os.makedirs(os.path.join(base, "tools"), exist_ok=True)
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    had_tools = os.path.exists(os.path.join(base, "tools", parameters["uv_sha256"], "uv.zip"))
    package = fetch(parameters["package_url"], parameters["package_sha256"], os.path.join(base, "tools"), "host.pyz")
    archive = fetch(parameters["uv_url"], parameters["uv_sha256"], os.path.join(base, "tools"), "uv.zip")
    if had_tools:
        check_clock_alone(parameters["package_url"])
    tools = os.path.dirname(archive)
    for name, data in (("uv", archive), ("requirements.txt", package)):
        unpack(data, name, os.path.join(tools if name == "uv" else os.path.dirname(package), name))
    try:
        os.mkdir(directory, 0o700)  # whoever makes it starts the run: a repeated command finds it there
    except FileExistsError:
        check_alive(directory)
        return 0
    try:
        with open(os.path.join(directory, "order.json"), "w") as file:
            json.dump(order, file)
        start(environ, base, directory, tools, package, order)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return 0


def fetch(url, sha256, tools, name):
    """The file at `url`, kept below its own hash; anything else than that hash is refused, whoever left it there."""
    path = os.path.join(tools, sha256, name)
    if os.path.exists(path) and hash_of(path) == sha256:
        return path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = path + "." + str(os.getpid())
    found = hashlib.sha256()
    with ask(url) as answer, open(partial, "wb") as file:
        for chunk in iter(lambda: answer.read(1 << 20), b""):
            found.update(chunk)
            file.write(chunk)
    if found.hexdigest() != sha256:
        os.unlink(partial)
        raise ValueError("%s is not what was ordered: sha256 %s" % (name, found.hexdigest()))
    os.replace(partial, path)
    return path


def hash_of(path):
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            found.update(chunk)
    return found.hexdigest()


def ask(url, timeout=60, first_byte_only=False):
    """The answer. Raises when S3's clock, in it or in its refusal, is not the host's."""
    request = urllib.request.Request(url, headers={"Range": "bytes=0-0"} if first_byte_only else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        check_clock(error.headers.get("Date"), time.time())
        raise
    except urllib.error.URLError as error:
        # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED: far off, no answer is to be had.
        if getattr(error.reason, "verify_code", 0) in (9, 10):
            shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            raise ValueError("%s; this host's clock says %s: %s" % (error.reason, shown, SYNC))
        raise
    check_clock(answer.headers.get("Date"), time.time())
    return answer


def check_clock(date, now):
    """Raises when `now` (seconds since the epoch) is far from an answer's Date."""
    try:
        seconds = now - email.utils.parsedate_to_datetime(date).timestamp()
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError):
        return  # there is none
    if abs(seconds) > CLOCK_SECONDS:
        way = "ahead" if seconds > 0 else "behind"
        raise ValueError(
            "this host's clock is %d minutes %s of S3's, and S3 refuses what is signed more than 15 minutes "
            "off: %s" % (round(abs(seconds) / 60), way, SYNC)
        )


def check_clock_alone(url):
    """For a host that had its tools: one byte of one of them, for the answer's Date alone."""
    try:
        ask(url, timeout=5, first_byte_only=True).close()
    except OSError:
        return  # what is not known is no reason not to train


def unpack(archive, name, path):
    """Anew each time: what is there may have been changed by a training, on a host that has had one."""
    partial = path + "." + str(os.getpid())
    with zipfile.ZipFile(archive) as opened, opened.open(name) as member, open(partial, "wb") as file:
        shutil.copyfileobj(member, file, 1 << 20)
    os.chmod(partial, os.stat(partial).st_mode | stat.S_IXUSR)
    os.replace(partial, path)


def start(environ, base, directory, tools, package, order):
    """Detached from the SSM agent: by systemd where it runs, else on our own."""
    env = {
        "PATH": tools + ":" + environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        "LANG": environ.get("LANG", "C.UTF-8"),
        "HOME": environ.get("HOME") or base,
        "AWS_REGION": order["region"],
        "AWS_DEFAULT_REGION": order["region"],
        "UV_CACHE_DIR": environ.get("UV_CACHE_DIR") or os.path.join(base, "cache"),
        "UV_PYTHON_INSTALL_DIR": environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(base, "python"),
        "UV_NO_PROGRESS": "1",
        # botocore asks IMDS once, for a second, and that client never again: a busy host would have no credentials.
        "AWS_METADATA_SERVICE_TIMEOUT": "5",
        "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "10",
    }
    keep = ("RUNCTL_HOST_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
    for name, value in environ.items():
        if name in keep or name.startswith(("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_", "UV_", "PIP_")):
            env.setdefault(name, value)
        if name.lower().endswith("_proxy"):
            env[name] = value
    requirements = os.path.join(os.path.dirname(package), "requirements.txt")
    command = ["uv", "run", "--quiet", "--no-project", "--no-config", "--python", ">=3.11"]
    command += ["--with-requirements", requirements, "python", package, os.path.join(directory, "order.json")]
    log = os.path.join(directory, "host.log")
    if os.path.isdir("/run/systemd/system") and shutil.which("systemd-run"):
        name = "runctl-%s-%s" % (order["run_id"], order["attempt"])
        unit = ["systemd-run", "--quiet", "--collect", "--unit=" + name]
        for setting in ("OOMPolicy=continue", "TasksMax=infinity", "LimitMEMLOCK=infinity", "KillMode=mixed"):
            unit.append("--property=" + setting)
        unit += ["--property=StandardOutput=append:" + log, "--property=StandardError=append:" + log]
        unit += ["--setenv=%s=%s" % item for item in sorted(env.items())]
        # systemd looks for the program before --setenv applies.
        command[0] = os.path.join(tools, "uv")
        if subprocess.call(unit + command, stdin=subprocess.DEVNULL) == 0:
            note_process(directory, "unit", name)
            return
        command[0] = "uv"
    daemonise(command, env, log)


def check_alive(directory):
    """Raises, with the end of its log, when the host process was started and is gone: it never said so itself."""
    try:
        with open(os.path.join(directory, "process")) as file:
            kind, name = file.read().split()
    except (FileNotFoundError, ValueError):
        return  # it is being started at this very moment
    if kind == "unit":
        alive = subprocess.call(["systemctl", "is-active", "--quiet", name], stdin=subprocess.DEVNULL) == 0
    else:
        try:
            os.kill(int(name), 0)
            alive = True
        except ProcessLookupError:
            alive = False
    if not alive:
        said = end_of_log(directory) or "nothing"
        raise RuntimeError("the host process has ended without a word to S3; its log says: " + said)

    # For whoever waits for a heartbeat: what keeps it from coming is there.
    print(end_of_log(directory))


def end_of_log(directory):
    try:
        with open(os.path.join(directory, "host.log"), "rb") as file:
            return file.read()[-1500:].decode("utf-8", "replace").strip()
    except OSError as error:
        return str(error)


def note_process(directory, kind, name):
    with open(os.path.join(directory, "process"), "w") as file:
        file.write("%s %s" % (kind, name))


def daemonise(command, env, log):
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.closerange(3, 256)
    os.chdir("/")
    note_process(os.path.dirname(log), "pid", os.getpid())
    try:
        os.execvpe(command[0], command, env)
    except OSError as error:
        sys.stderr.write("cannot start %s: %s\n" % (command[0], error))
    os._exit(1)


def main(encoded):
    try:
        return bootstrap(json.loads(base64.b64decode(encoded).decode()), os.environ)
    except Exception as error:
        sys.stderr.write("runctl bootstrap: %s: %s\n" % (type(error).__name__, error))
        return 1
