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
TRIES = 5
QUESTION = "/njadmin/rest/RecordingAPI/retrieveMetaData?tag=INV-22&apiKey="


@pytest.mark.alone
def test_ten_thousand_legs_hold_no_other_request_up(tmp_path: Path, tell: Callable[[str], None]) -> None:
    """In one of several tries: the machine does other things, too."""
    site = Site(tmp_path / "site")
    put_legs(Store(site.database_url), LEGS, each=timedelta(seconds=1))
    with Served(site, {"http.listen": "127.0.0.1:0", "server.name": "another"}) as served:
        for _ in range(TRIES):
            whole, seconds = asked_beside_starts(served)
            if len(seconds) > 20 and max(seconds) < whole / 3:
                break

    tell(
        f"{LEGS} legs by HTTP took {whole:.1f} s; {len(seconds)} starts meanwhile at most {max(seconds):.2f}"
    )
    assert len(seconds) > 20
    assert max(seconds) < whole / 3


def asked_beside_starts(served: Served) -> tuple[float, list[float]]:
    """The seconds that the list took, and each of the starts beside it."""
    key, port = served.site.key, served.http_port
    answers: list[web.Answer] = []
    asking = threading.Thread(target=lambda: answers.append(web.ask(port, QUESTION + key)))
    begun, seconds = time.monotonic(), []
    asking.start()
    while asking.is_alive():
        asked = time.monotonic()
        assert web.start(port, key).status == 503  # there is no Asterisk
        seconds.append(time.monotonic() - asked)
    whole = time.monotonic() - begun
    assert len(json.loads(answers[0].body)) == LEGS
    return whole, seconds
