"""Ten thousand legs are asked for by HTTP, and nobody else waits for them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from lab import web
from lab.served import Served
from lab.site import Site

from integration.test_long_list import put_legs
from noojee_agi.database.store import Store

LEGS = 10_000
QUESTION = "/njadmin/rest/RecordingAPI/retrieveMetaData?tag=INV-22&apiKey="


@pytest.mark.alone
def test_ten_thousand_legs_hold_no_other_request_up(tmp_path: Path, tell: Callable[[str], None]) -> None:
    site = Site(tmp_path / "site")
    put_legs(Store(site.database_url), LEGS, each=timedelta(seconds=1))
    with Served(site, {"http.listen": "127.0.0.1:0", "server.name": "another"}) as served:
        answers: list[web.Answer] = []
        asking = threading.Thread(
            target=lambda: answers.append(web.ask(served.http_port, QUESTION + site.key))
        )
        begun = time.monotonic()
        asking.start()
        seconds = []
        while asking.is_alive():
            asked = time.monotonic()
            assert web.start(served.http_port, site.key).status == 503  # there is no Asterisk
            seconds.append(time.monotonic() - asked)
        whole = time.monotonic() - begun

    assert len(json.loads(answers[0].body)) == LEGS
    assert len(seconds) > 20
    assert max(seconds) < whole / 3
    tell(
        f"{LEGS} legs by HTTP took {whole:.1f} s; {len(seconds)} starts meanwhile at most {max(seconds):.2f}"
    )
