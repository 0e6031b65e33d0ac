"""nginx before the API, as agi/noojee-agi.nginx has it: who asks is seen behind it, no log has the key."""

from __future__ import annotations

import http.client
import ssl
import wave
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lab import certificates
from lab.certificates import NAME
from lab.crm import Crm
from lab.curl import Answer, curl
from lab.nginx import PrivateNginx
from lab.postgresql import free_port
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until
from unit import fakes

from noojee_agi.config import Config
from noojee_agi.recordings import recording, spool

EXAMPLE = Path(__file__).resolve().parents[2] / "agi/noojee-agi.nginx"
CLIENT, OTHER = "127.0.0.2", "127.0.0.3"
START = "/servicemanager/rest/CallManagementAPI/start"
NO_MANAGER = 503  # a start with the right key gets so far: there is no Asterisk


class Front(NamedTuple):
    """A site, its server, and nginx before it. leg_id: one with audio, which is in file."""

    site: Site
    served: Served
    nginx: PrivateNginx
    certificate: Path
    leg_id: str
    file: Path

    def ask(self, path: str, client: str = CLIENT, **options: Any) -> Answer:
        port = self.nginx.port
        return curl(
            f"https://{NAME}:{port}{path}",
            resolve=f"{NAME}:{port}:127.0.0.1",
            cacert=str(self.certificate),
            interface=client,
            **options,
        )

    def start(self, key: str, client: str = CLIENT, **options: Any) -> Answer:
        return self.ask(START, client, data=f"extenOrUniqueId=410&apiKey={key}", **options)

    def audio(self, client: str = CLIENT, **options: Any) -> Answer:
        header = f"X-Api-Key: {self.site.key}"
        return self.ask(f"/recordings/{self.leg_id}/audio", client, header=header, **options)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    site = Site(folder / "site")
    leg_id, file = recorded(site)
    pair = certificates.make(folder)
    port = free_port()
    text = EXAMPLE.read_text()
    for shipped, ours in {
        "http://127.0.0.1:8080": f"http://127.0.0.1:{port}",
        "/etc/ssl/pbx.example.com.pem": str(pair.certificate),
        "/etc/ssl/private/pbx.example.com.key": str(pair.key),
    }.items():
        assert shipped in text
        text = text.replace(shipped, ours)
    options = {"http.listen": f"127.0.0.1:{port}", "http.allow": f"{CLIENT}, {OTHER}"}
    with Served(site, options) as served, PrivateNginx(folder / "nginx", text) as nginx:
        made = Front(site, served, nginx, pair.certificate, leg_id, file)
        wait_until(lambda: made.audio().status == 200, 20, "the leg")
        yield made


def recorded(site: Site) -> tuple[str, Path]:
    """A leg that has ended, and waits to be stored; its file."""
    config = Config.load(str(site.conf))
    leg_id, started = recording.new_id(), recording.now() - timedelta(minutes=1)
    file = Path(recording.file_path(config.recordings_directory, "1.2", leg_id, "wav", started))
    file.parent.mkdir(parents=True)
    with wave.open(str(file), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(range(256)) * 1000)
    leg = fakes.leg(id=leg_id, server=config.server_name, file=str(file), started_at=started)
    for event in (leg, recording.ending(leg_id, str(file), recording.now())):
        spool.put(config.spool_directory, event)
    return leg_id, file


def test_audio_comes_through_whole_and_in_ranges(front: Front) -> None:
    content = front.file.read_bytes()

    whole, piece = front.audio(), front.audio(range="100000-200000")

    assert (whole.status, whole.content) == (200, content)
    assert (piece.status, piece.content) == (206, content[100_000:200_001])
    assert front.audio(head=True).headers["content-length"] == str(len(content))
    assert not [path for path in (front.nginx.folder / "temporary").rglob("*") if path.is_file()]


def test_a_crm_starts_with_the_key_in_the_query_and_curl_in_the_body(front: Front) -> None:
    trust = ssl.create_default_context(cafile=str(front.certificate))
    crm = Crm(f"https://localhost:{front.nginx.port}", front.site.key, trust)

    status, body = crm.start("410")
    in_body = front.start(front.site.key)
    in_query = front.ask(f"{START}?extenOrUniqueId=410&apiKey={front.site.key}", request="POST")

    assert (status, body["Code"]) == (403, -403)  # it comes from 127.0.0.1: see below
    for answer in (in_body, in_query):
        assert (answer.status, answer.body["Code"]) == (NO_MANAGER, -NO_MANAGER)


def test_who_guesses_is_shut_out_and_nobody_else_is(front: Front) -> None:
    """However often he says that he is somebody else."""
    told = [
        front.start(f"guess-{number}", OTHER, header=f"X-Forwarded-For: {client}")
        for number, client in enumerate([CLIENT, "192.0.2.1"] * 5)
    ]
    shut = front.start(front.site.key, OTHER, header=f"X-Forwarded-For: {CLIENT}")

    assert [answer.status for answer in told] == [401] * 10
    assert (shut.status, shut.body["Code"]) == (429, -429)
    assert front.start(front.site.key, CLIENT).status == NO_MANAGER


def test_allow_means_the_clients_address(front: Front) -> None:
    """nginx's own, 127.0.0.1, is not among those that are allowed here."""
    refused = front.start(front.site.key, "127.0.0.4")
    claimed = front.start(front.site.key, "127.0.0.4", header=f"X-Forwarded-For: {CLIENT}")

    for answer in (refused, claimed):
        assert (answer.status, answer.body["Code"]) == (403, -403)
    assert front.start(front.site.key).status == NO_MANAGER


def test_no_log_of_nginx_has_the_key(front: Front) -> None:
    """Not of what goes wrong either: too much, no server behind it. That is said as the API says it."""
    key = front.site.key
    path = f"{START}?extenOrUniqueId=410&apiKey={key}"
    answers = [
        front.ask(path, request="POST"),
        front.ask(path, data="t" * 20_000),
        front.ask(f"{path}&{'t' * 20_000}", request="POST"),
        front.ask(path, request="POST", header=f"Host: {NAME}{key}"),
        front.ask("/nowhere", request="POST", data=f"apiKey={key}"),
    ]
    larger = front.ask(path, data="t" * 70_000)
    front.served.stop()
    try:
        answers.append(front.ask(path, data=f"apiKey={key}"))
    finally:
        front.served.start()

    assert [answer.status for answer in answers] == [503, 413, 400, 503, 404, 503]
    for answer in answers:
        assert answer.body["Code"] == -answer.status
        assert answer.body["Message"]
    assert larger.status == 413  # by nginx

    def is_in_the_log() -> bool:
        """Which comes after the answer."""
        last = front.nginx.log("noojee-agi.log").splitlines()[-1]
        return last.startswith(f"{CLIENT} ") and f'POST "{START}" 503' in last

    wait_until(is_in_the_log, 20, "the last line")
    assert not front.nginx.has(key)


def test_audio_that_grows_while_it_is_sent_is_what_there_was_at_first(front: Front) -> None:
    """As that of a call which goes on: whoever asks was told how much comes."""
    before = front.file.read_bytes()
    with front.file.open("ab") as growing:
        growing.write(bytes(16_000_000))
    host, _, port = front.served.http.removeprefix("http://").partition(":")
    asked = http.client.HTTPConnection(host, int(port), timeout=20, source_address=(CLIENT, 0))
    asked.request("GET", f"/recordings/{front.leg_id}/audio", headers={"X-Api-Key": front.site.key})
    answer = asked.getresponse()
    begun = answer.read(1000)
    with front.file.open("ab") as growing:
        growing.write(b"later" * 1000)
    try:
        content = begun + answer.read()
        assert answer.getheader("Content-Length") == str(len(content))
        assert content == before + bytes(16_000_000)
        asked.request("GET", f"/recordings/{front.leg_id}/audio", headers={"X-Api-Key": "x"})
        assert asked.getresponse().status == 401  # over the same connection
    finally:
        asked.close()
        front.file.write_bytes(before)
    assert "Traceback" not in front.site.log()
