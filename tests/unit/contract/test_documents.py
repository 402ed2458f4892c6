from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runctl_action.contract import documents
from runctl_action.contract.documents import (
    Checkpoint,
    Document,
    Offer,
    OfferTried,
    Order,
    Result,
    Resume,
    Spec,
    Status,
    Stop,
    TrainingSettings,
)
from runctl_action.contract.reports import Report, Synced

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
AWKWARD = ["", "a b", "\udcff", "caf\udce9/\n", "😀", '{"base64": "x"}', "\udcf0\udc9f😀"]

os_text = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def spec(**fields: Any) -> Spec:
    defaults: dict[str, Any] = {
        "run_id": "train-1", "requested_at": NOW, "repository": "o/r", "name": "train", "commit": "c" * 40, "tree": "t" * 40,
        "digest": "d" * 64, "files": 1, "bytes": 1, "manifest_bytes": 1, "script": "train.py", "training": TrainingSettings(),
    }  # fmt: skip
    return Spec(**(defaults | fields))


def again(document: Document) -> Document:
    return type(document).model_validate_json(document.to_json())


@given(st.lists(os_text))
def test_what_the_operating_system_gave_survives_json(texts):
    training = TrainingSettings(
        resume_args=tuple(texts), env={"A": "-".join(texts)}, checkpoints=tuple(texts), metrics=tuple(texts)
    )
    written = spec(
        args=tuple(texts),
        dirty=tuple(texts),
        script="-".join(texts),
        name="-".join(texts),
        branch="-".join(texts),
        training=training,
    )
    assert again(written) == written


@pytest.mark.parametrize("text", AWKWARD)
def test_a_checkpoints_path_survives_json(text):
    kept = Checkpoint(path=text, bytes=1, sha256="a" * 64, key="k", modified_at=NOW, uploaded_at=NOW)
    result = Result(run_id="r", attempt=1, outcome="succeeded", at=NOW, checkpoints=(kept,))
    resume = Resume(run_id="r", checkpoints=(kept,))
    assert again(result) == result
    assert again(resume) == resume
    assert again(spec(resume=resume)) == spec(resume=resume)


def test_an_order_names_what_to_resume_from_by_its_hash():
    order = Order(
        run_id="r", attempt=2, bucket="b", region="r", prefix="p", userid="u", digest="d", spec_sha256="s",
        resume_sha256="a" * 64,
    )  # fmt: skip
    assert again(order) == order
    assert Order.model_validate_json(json.dumps(json.loads(order.to_json()) | {"resume_from": {"path": "x"}})) == order


def test_a_checkpoint_of_an_older_writer_was_not_removed():
    kept = Checkpoint(path="p", bytes=1, sha256="a" * 64, key="k", modified_at=NOW, uploaded_at=NOW, removed=True)
    assert Checkpoint.model_validate_json(kept.model_dump_json()).removed
    assert not Checkpoint.model_validate_json(kept.model_dump_json(exclude={"removed"})).removed


def test_text_that_is_text_stays_readable_in_the_bucket():
    assert json.loads(spec(args=("é", "a b")).to_json())["args"] == ["é", "a b"]
    assert json.loads(spec(args=("\udcff",)).to_json())["args"] == [{"base64": "/w=="}]


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        (Stop(by="me", attempt=1, reason="a \udcff", at=NOW), "a \\udcff"),
        (Status(run_id="r", attempt=1, beat=1, phase="training", at=NOW, detail="d \udcff", warnings=("a \udcff",)), "a \\udcff"),
        (Result(run_id="r", attempt=1, outcome="failed", at=NOW, message="a \udcff", warnings=("w \udcff",)), "a \\udcff"),
        (
            Report(
                run_id="r", repository="o/r", name="\udcff", commit="c", tree="t", script="\udcff", requested_at=NOW,
                manifest=Synced(digest="d", files=1, bytes=1), log_tail=("a \udcff",), hint="\udcff", branch="\udcff", dirty=("\udcff",),
            ),
            "a \\udcff",
        ),
    ],
)  # fmt: skip
def test_a_sentence_that_names_an_undecodable_path_is_written_and_shows_it(document, shown):
    assert shown in json.dumps(json.loads(document.to_json()), ensure_ascii=False).replace("\\\\", "\\")


@pytest.mark.parametrize(
    "wrong", [{"base64": 3}, {"base64": "é"}, {"base64": "a"}, {"base64": "/w==", "b": 1}, 3, ["a"], None]
)
def test_a_document_with_damaged_text_is_refused_as_a_document(wrong):
    data = json.loads(spec().to_json()) | {"script": wrong}
    with pytest.raises(ValidationError):
        Spec.model_validate_json(json.dumps(data))


def test_fields_of_a_newer_writer_are_ignored():
    data = json.loads(spec().to_json()) | {"priority": 3}
    data["training"]["gpu"] = True
    assert Spec.model_validate_json(json.dumps(data)) == spec()


def test_fields_of_an_older_writer_have_their_defaults():
    data = json.loads(spec().to_json())
    for name in ("args", "dirty", "launch", "branch", "source"):
        del data[name]
    assert Spec.model_validate_json(json.dumps(data)) == spec()


@pytest.mark.parametrize("version", [0, 2, "2", None])
def test_another_version_of_a_document_is_refused(version):
    data = json.loads(spec().to_json()) | {"version": version}
    with pytest.raises(ValidationError):
        Spec.model_validate_json(json.dumps(data))


def test_every_document_says_its_version():
    kinds = [kind for kind in vars(documents).values() if isinstance(kind, type) and issubclass(kind, Document)]
    assert len(kinds) > 10
    for kind in kinds:
        assert kind.model_fields["version"].default == 1


def test_no_secret_has_a_place_in_a_spec():
    names = {*Spec.model_fields, *TrainingSettings.model_fields}
    assert not [name for name in names if "token" in name or "password" in name or "credential" in name]
    # The names of secrets, never their values.
    with pytest.raises(ValueError, match="Names, never values") as caught:
        TrainingSettings(secrets={"TOKEN": "hunter2hunter2"})
    assert "hunter2" not in str(caught.value)
    assert TrainingSettings(secrets={"TOKEN": "ssm:/team/hf"}).secrets == {"TOKEN": "ssm:/team/hf"}
    assert b"ghp_secret" not in Spec(**spec().model_dump() | {"github_token": "ghp_secret"}).to_json()


def test_money_survives_json_to_the_last_digit():
    tried = OfferTried(
        offer=Offer(market="spot", instance_type="a", usd_per_hour=Decimal("0.0104")), token="t", parameters={}, at=NOW
    )
    assert OfferTried.model_validate_json(tried.to_json()).offer.usd_per_hour == Decimal("0.0104")
    assert json.loads(tried.to_json())["offer"]["usd_per_hour"] == "0.0104"


def test_times_are_read_with_their_zone():
    assert json.loads(spec().to_json())["requested_at"] == "2026-07-01T12:00:00Z"
    assert again(spec()).requested_at.tzinfo is not None  # type: ignore[attr-defined]


def test_a_document_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        spec().commit = "d" * 40  # type: ignore[misc]


@pytest.mark.parametrize(
    "spoilt",
    [{"at": "2026-07-01T12:00:00"}, {"at": "9999-12-31T23:59:59Z"}, {"at": "0001-01-01T00:00:00Z"},
     {"phases": [{"phase": "training", "started_at": "2026-07-01T12:00:00Z", "seconds": "NaN"}]},
     {"phases": [{"phase": "training", "started_at": "2026-07-01T12:00:00Z", "seconds": 1e308}]}, {"beat": -1},
     {"log_segments": 10**30}],
)  # fmt: skip
def test_a_time_that_could_not_be_reckoned_with_makes_no_document(spoilt):
    good = {"run_id": "r", "attempt": 1, "beat": 1, "phase": "training", "at": "2026-07-01T12:00:00Z"}
    Status.model_validate_json(json.dumps(good))
    with pytest.raises(ValidationError):
        Status.model_validate_json(json.dumps(good | spoilt))
