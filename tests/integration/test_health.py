"""/health with the real `noojee-agi check` of an installation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from lab.site import Site

from noojee_agi.config import Config
from noojee_agi.recordings import rejected, spool
from noojee_agi.web.health import Health


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def asked(site: Site) -> tuple[int, dict[str, Any]]:
    return asyncio.run(Health(str(site.programs), str(site.conf)).answer())


def failed(body: dict[str, Any]) -> list[str]:
    return [stage["name"] for stage in body["stages"] if stage["state"] == "failed"]


def test_an_installation_that_is_well_is_healthy_as_check_says(site: Site) -> None:
    status, body = asked(site)

    assert (status, body["ok"], failed(body)) == (200, True, [])
    assert {"configuration", "database", "spool", "server"} <= {stage["name"] for stage in body["stages"]}


def test_what_fails_is_named_and_no_secret_file_or_person_with_it(site: Site) -> None:
    known = Config.load(str(site.conf))
    spool.append(known.spool_directory)
    rejected.set_aside(known.spool_directory, b'{"login": "Fred"}', "Fred", "started-0e5f6b1c")
    away = "postgresql+psycopg2://operator:hunter2@127.0.0.1:1/noojee"
    site.configure({"database.url": away, "manager.username": "Fred", "manager.secret": "s3cret"})
    site.conf.chmod(0o640)

    status, body = asked(site)

    assert (status, body["ok"]) == (503, False)
    assert {"database", "rejected"} <= set(failed(body))
    assert all(set(stage) == {"name", "state"} for stage in body["stages"])
    for word in ("hunter2", "operator", "s3cret", "Fred", "0e5f6b1c", site.key, str(site.folder)):
        assert word not in str(body)
