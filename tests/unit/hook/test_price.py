"""The price in a check: kept, asked for meanwhile, or none; a push waits for it no longer than it has patience."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from runctl_action.cloud.cache import Cache
from runctl_action.hook import price
from runctl_action.settings import FileSettings

NOW = datetime(2026, 1, 2, tzinfo=UTC)
REGION = FileSettings(region="eu-west-1")
NAME = "eu-west-1-on-demand-t3.medium"


class Asking:
    """Stands in for the process that asks: `then` is what it does before it ends; without, it does not end in time."""

    def __init__(self, then=None):
        self.words = []
        self.returncode = None
        self._then = then

    def start(self, words, environ):
        self.words.append(words)
        return self

    def wait(self, seconds):
        self.waited = seconds
        if self._then is None:
            raise price.subprocess.TimeoutExpired("x", seconds)
        self._then()


@pytest.fixture
def environ(tmp_path):
    return {"XDG_CACHE_HOME": str(tmp_path)}


def keep(tmp_path, as_of=NOW, endpoint=None):
    of = hashlib.sha256(f"{NAME} {endpoint}".encode()).hexdigest()
    figures = price._Figures(version=1, of=of, as_of=as_of, usd={"eu-west-1": Decimal("0.0456")})
    Cache(tmp_path / "runctl-action/prices").put(NAME, figures)


@pytest.fixture
def asking(monkeypatch):
    def made(then=None):
        found = Asking(then)
        monkeypatch.setattr(price, "_start", found.start)
        return found

    return made


def test_a_price_that_is_kept_is_taken_and_nobody_is_asked(environ, tmp_path, asking):
    process = asking()
    keep(tmp_path, NOW - timedelta(hours=23))
    assert price.ask(REGION, environ, NOW)() == price.Price(Decimal("0.0456"), NOW - timedelta(hours=23))
    assert process.words == []


def test_one_that_comes_in_time_is_shown(environ, tmp_path, asking):
    process = asking(lambda: keep(tmp_path, NOW + timedelta(seconds=1)))
    assert price.ask(REGION, environ, NOW)() == price.Price(Decimal("0.0456"), NOW + timedelta(seconds=1))
    assert process.words == [["price", "eu-west-1", "t3.medium"]]
    assert 0 <= process.waited <= 1


def test_one_that_does_not_is_none_and_is_not_asked_for_again_soon(environ, asking):
    process = asking()
    assert price.ask(REGION, environ, NOW)() is None
    assert price.ask(REGION, environ, NOW + timedelta(minutes=9))() is None
    assert len(process.words) == 1
    assert price.ask(REGION, environ, NOW + timedelta(minutes=11))() is None
    assert len(process.words) == 2


def test_of_another_aws_and_an_old_one_are_none(environ, tmp_path, asking):
    asking()
    keep(tmp_path, NOW - timedelta(hours=25))
    assert price.ask(REGION, environ, NOW)() is None
    keep(tmp_path)
    assert price.ask(REGION, environ | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, NOW)() is None


@pytest.mark.parametrize(
    "settings",
    [FileSettings(), FileSettings(region="x", instance_type=["cheapest"]), FileSettings(region="x", instance_id="i-1")],
)
def test_where_there_is_nothing_to_ask_for_nobody_is_asked(environ, asking, settings):
    process = asking()
    assert price.ask(settings, environ, NOW)() is None
    assert process.words == []


def test_the_region_is_the_settings_the_variables_or_the_profiles(tmp_path):
    config = tmp_path / "config"
    config.write_text("[default]\nregion = a\n[profile other]\nregion = b\n[profile none]\n")
    environ = {"AWS_CONFIG_FILE": str(config)}
    assert price._region(environ) == "a"
    assert price._region(environ | {"AWS_PROFILE": "other"}) == "b"
    assert price._region(environ | {"AWS_PROFILE": "none"}) is None
    assert price._region(environ | {"AWS_PROFILE": "other", "AWS_DEFAULT_REGION": "c"}) == "c"
    assert price._region(environ | {"AWS_DEFAULT_REGION": "c", "AWS_REGION": "d"}) == "d"
    config.write_bytes(b"\xff no configuration")
    assert price._region(environ) is None
    assert price._region({"HOME": str(tmp_path)}) is None
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[default]\nregion = e\n")
    assert price._region({"HOME": str(tmp_path)}) == "e"
