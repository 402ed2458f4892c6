"""Secrets: the training has them, and nothing that is uploaded as text has."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_9tK2vQ8zL4mN7pR3sX6wB1cD5eF0gH-in-the-log"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END PRIVATE KEY-----\n"
PASSWORD = 'correct horse "battery" staple'

LEAKS = """
import base64, json, os, sys, urllib.parse
from pathlib import Path
token, key, password = (os.environ[name] for name in ("HF_TOKEN", "DEPLOY_KEY", "DB_PASSWORD"))
assert not any(token in argument for argument in sys.argv)
print("whole", token, flush=True)
for piece in (token[:11], token[11:30], token[30:]):
    print(piece, end="", flush=True)
print("", flush=True)
for byte in token:
    sys.stderr.write(byte)
    sys.stderr.flush()
print("\\nkey:", key, flush=True)
print(key.splitlines()[1], json.dumps({"password": password}), repr(password), urllib.parse.quote(password))
print(base64.b64encode(token.encode()).decode(), base64.b64encode(b"user:" + token.encode()).decode())
Path("metrics.jsonl").write_text(json.dumps({"epoch": 1, "token": token, password: [key]}) + "\\n" + token)
folder = Path(os.environ["RUNCTL_CHECKPOINT_DIR"])
(folder / "model.bin").write_bytes(b"weights " + token.encode())
(folder / f"model-{token}.bin").write_bytes(b"weights")
print("has", json.dumps([len(token), len(key), len(password)]), flush=True)
sys.exit(f"failed with {token}")
"""

SETTINGS = """
[secrets]
HF_TOKEN = "ssm:/team/hf"
DEPLOY_KEY = "secretsmanager:team/deploy"
DB_PASSWORD = "secretsmanager:team/db#password"
"""


@pytest.fixture(scope="module")
def _secrets(aws: Any) -> Iterator[None]:
    ssm, manager = aws.client("ssm"), aws.client("secretsmanager")
    ssm.put_parameter(Name="/team/hf", Value=TOKEN, Type="SecureString")
    manager.create_secret(Name="team/deploy", SecretString=KEY)
    manager.create_secret(Name="team/db", SecretString=json.dumps({"user": "trainer", "password": PASSWORD}))
    manager.create_secret(Name="others/db", SecretString=TOKEN)
    yield
    for client in (ssm, manager):
        client.close()


def forms() -> list[bytes]:
    lines = [line for line in KEY.splitlines() if line]
    texts = [TOKEN, PASSWORD, *lines, json.dumps(PASSWORD)[1:-1], base64.b64encode(TOKEN.encode()).decode()]
    # Of what stands within something else, all but the characters at both ends.
    return [text.encode() for text in (*texts, base64.b64encode(b"user:" + TOKEN.encode()).decode()[8:-4])]


@pytest.mark.usefixtures("_secrets")
def test_a_training_that_prints_its_secrets_leaves_them_in_nothing_but_its_checkpoints(
    project: Any, stored: Any, tmp_path: Path
) -> None:
    (project.root / "runctl.toml").write_text(SETTINGS)
    report = tmp_path / "report.md"
    # An installation runs what nobody here has read: it does not get them.
    said = project.train(LEAKS, "--report", str(report), RUNCTL_INSTALL="echo install: ${HF_TOKEN:-has none}")
    assert said.ending == (1, "failed", "exit")
    assert "install: has none" in said.err
    assert said.told("has") == [len(TOKEN), len(KEY), len(PASSWORD)]
    assert "whole ***" in said.err
    assert "failed with ***" in said.err
    assert "HF_TOKEN (ssm:/team/hf)" in said.err
    assert said.report["metrics"] == [{"epoch": 1, "token": "***", "***": ["***\n"]}]
    objects = stored(said.report["run_id"]) | stored("/packs/") | stored("/tools/")
    texts = {key: data for key, data in objects.items() if "/checkpoints/" not in key}
    assert {key.rsplit("/", 1)[-1] for key in texts} >= {"spec.json", "report.json", "status.json", "result.json"}
    assert any(key.startswith("runctl/hosts/") and "/log/" in key for key in texts)
    places = {**texts, "stderr": said.err.encode(), "stdout": said.out.encode(), "--report": report.read_bytes()}
    places |= {f"key {key}": key.encode() for key in objects}
    for place, data in places.items():
        for form in forms():
            assert form not in data, place
    # What a training writes into a checkpoint is kept as it is; one with a secret in its name is not kept.
    assert [b"weights " + TOKEN.encode()] == [data for key, data in objects.items() if key.endswith("/model.bin")]
    assert any("there is a secret in its name" in warning for warning in said.report["warnings"])


@pytest.mark.usefixtures("_secrets")
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("ssm:/team/gone", "cannot be read: there is none of that name in this region"),
        ("secretsmanager:others/db", "cannot be read: secretsmanager:GetSecretValue is not allowed to the host's role"),
    ],
)
def test_one_that_cannot_be_had_is_named_and_nothing_is_trained(
    project: Any, named_secrets_only: Any, where: str, expected: str
) -> None:
    with named_secrets_only():
        said = project.train("print('trained')", "--secrets", f"HF_TOKEN={where}")
    assert said.ending == (4, "failed", "cloud")
    assert said.report["message"].startswith(f"the secret HF_TOKEN ({where}) {expected}")
    assert said.report["exit_code"] is None
    assert "trained\n" not in said.err
    assert "training" not in said.report["phases"]
