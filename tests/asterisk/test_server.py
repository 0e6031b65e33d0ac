"""The same recording through `noojee-agi serve`: handed over by start_record.py, and over FastAGI."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import audit, processes
from lab.pbx import Pbx, View
from lab.served import Served
from lab.waiting import wait_until

pytestmark = pytest.mark.asterisk

HANDED_OVER = "start_record.py"
FASTAGI = "agi://127.0.0.1:{port}/start_record"
WAYS = pytest.mark.parametrize("way", [HANDED_OVER, FASTAGI], ids=["handed over", "FastAGI"])
OF_THIS_CALL = {
    *("id", "call_record_id", "uniqueid", "call_uniqueid", "channel", "file"),
    *("started_at", "ended_at", "duration_seconds", "bytes"),
}
HAND_OVERS = 4
# A session takes some 10 ms over FastAGI and some 40 handed over: these cover its start, middle and end.
MOMENTS = [milliseconds / 1000 for milliseconds in range(1, 81, 4)]


@pytest.fixture(scope="module")
def served_of_module(pbx_of_session: Pbx) -> Iterator[Served]:
    with Served(pbx_of_session.site) as server:
        yield server


@pytest.fixture
def served(pbx: Pbx, served_of_module: Served) -> Served:
    """Asterisk's server; the test may change noojee_agi.conf by `configure`."""
    served_of_module.configure()
    served_of_module.reload()
    return served_of_module


def at(served: Served, way: str) -> str:
    return way.format(port=served.port)


def row(pbx: Pbx, view: View) -> dict[str, Any]:
    """What does not differ from call to call."""
    leg = pbx.leg(view)
    channel = re.sub(r"-[0-9a-f]{8};", "-*;", leg["channel"])
    return {"channel": channel, **{name: leg[name] for name in leg.keys() - OF_THIS_CALL}}


def sessions(served: Served) -> int:
    return int(served.status()["sessions"])


def settled(served: Served) -> int:
    """The same when none runs: each is counted a moment after its call was told."""
    served.wait_for("running", 0)
    return sessions(served)


# --- what is recorded ---


@pytest.mark.parametrize(
    "lines",
    [
        "{},PJSIP/500,=a=b,Nemo",
        "{}",
        "{},,one,Fred)\nWait(0.2)\nAGI({},,two,Ann",
    ],
)
def test_each_way_leaves_the_same_rows_and_tells_the_dialplan_the_same(
    pbx: Pbx, served: Served, lines: str
) -> None:
    def seen(way: str) -> tuple[dict[str, Any], str, str, str]:
        view = pbx.dial(f"AGI({lines.format(way, way)})")
        return row(pbx, view), view.status, view.message, view.agi_status

    def seen_by_server(way: str) -> tuple[dict[str, Any], str, str, str]:
        """On a busy machine a program may wait too long for the server, and go the plain way."""
        for _ in range(HAND_OVERS):
            before, found = settled(served), seen(way)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: sessions(served) == before + lines.count("{}"), 5)  # noqa: B023
                return found
        raise AssertionError(f"{HAND_OVERS} calls in vain for one that the server takes")

    handed_over, fastagi = seen_by_server(HANDED_OVER), seen_by_server(at(served, FASTAGI))
    before = settled(served)
    pbx.site.configure({"server.socket": "/nonexistent/agi.sock"})
    plain = seen(HANDED_OVER)
    pbx.wait_until_idle()  # or the next leg may wait for the server's look, each five seconds

    assert settled(served) == before
    assert plain[1] == "200"
    assert handed_over == plain
    assert fastagi == plain


@pytest.mark.parametrize(
    "request_line",
    [
        "{way},500,a tag,Fred",
        "{way}.py,500,a tag,Fred",
        "{way},agentLoginName=Fred,tag=a tag",
        "{way}?extenOrUniqueId=500&tag=a%20tag&agentLoginName=Fred",
        "{way}?TAG=a+tag&agentloginname=Fr%65d",
        "{way}?tag=a+tag,500,,Fred",
        "{way}/?tag=a+tag,agentLoginName=Fred",
        "{way}?,,a tag,Fred",
        "{way}?extenOrUniqueId=${{UNIQUEID}}&tag=${{URIENCODE(a tag)}}&agentLoginName=Fred",
    ],
)
def test_every_form_of_a_fastagi_request_means_the_same(pbx: Pbx, served: Served, request_line: str) -> None:
    view = pbx.dial(f"AGI({request_line.format(way=at(served, FASTAGI))})")

    leg = pbx.leg(view, status="completed")
    assert (leg["tag"], leg["owner"], leg["extension"]) == ("a tag", "Fred", "500")


TEXTS = ["a, b & c=d", "Grüße, 東京 🎧; 100 % + 1", 'said "yes" \\ ?#/']


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("form", ["handed over", "FastAGI", "FastAGI, query"])
def test_a_tag_of_any_text_arrives(pbx: Pbx, served: Served, tmp_path: Path, text: str, form: str) -> None:
    (tmp_path / "tag").write_text(text)
    quoted = f"${{QUOTE(${{FILE({tmp_path}/tag)}})}}"
    lines = {
        "handed over": f"start_record.py,,{quoted},Fred",
        "FastAGI": f"{at(served, FASTAGI)},,{quoted},Fred",
        "FastAGI, query": f"{at(served, FASTAGI)}?agentLoginName=Fred&tag={urllib.parse.quote_plus(text)}",
    }

    view = pbx.dial(f"AGI({lines[form]})")

    leg = pbx.leg(view)
    assert (view.status, leg["tag"], leg["owner"]) == ("200", text, "Fred")


def test_commas_within_quotes_in_the_dialplan_belong_to_the_argument(pbx: Pbx, served: Served) -> None:
    view = pbx.dial(f'AGI({at(served, FASTAGI)},,"a, b and c",Fred)')

    assert pbx.leg(view)["tag"] == "a, b and c"


# --- what is refused ---


@pytest.mark.parametrize(
    ("request_line", "status", "words"),
    [
        ("{host}/stop_recording", "400", "no program"),
        ("{host}/", "400", "no program"),
        ("{host}/start_record/x", "400", "no program"),
        ("{host}/start_record?apiKey={key}", "400", "apiKey must not be an argument"),
        ("{host}/start_record,apiKey={key}", "400", "apiKey must not be an argument"),
        ("{host}/start_record?colour=red", "400", "no argument colour"),
        ("{host}/start_record?tag=one&tag=two", "400", "given twice"),
        ("{host}/start_record?tag=one,,two", "400", "given twice"),
        ("{host}/start_record?extenOrUniqueId=at/499", "404", "cannot be looked for"),
        ("{host}/start_record?tag=" + "x" * 256, "400", "256 characters"),
    ],
)
def test_a_fastagi_request_that_cannot_be_is_refused(
    pbx: Pbx, served: Served, request_line: str, status: str, words: str
) -> None:
    files, legs = set(pbx.site.audio_files()), ids(pbx)
    host = f"agi://127.0.0.1:{served.port}"

    view = pbx.dial(f"AGI({request_line.format(host=host, key=pbx.site.key)})")

    assert (view.status, view.leg_id, view.agi_status) == (status, "", "SUCCESS"), view
    assert words in view.message
    assert pbx.site.key not in view.message + pbx.site.log() + served.stderr
    assert (set(pbx.site.audio_files()), ids(pbx)) == (files, legs)


def ids(pbx: Pbx) -> set[str]:
    """Of all legs; the server may be about to close some of an earlier test."""
    return {leg["id"] for leg in pbx.site.legs()}


@WAYS
@pytest.mark.parametrize("key", ["wrong", "", "${apiKey}x"])
def test_without_the_right_key_the_server_records_nothing(
    pbx: Pbx, served: Served, way: str, key: str
) -> None:
    files, is_served = set(pbx.site.audio_files()), False
    for _ in range(HAND_OVERS):  # on a busy machine a program may wait too long, and go the plain way
        before = settled(served)

        view = pbx.dial(f"Set(apiKey={key})\nAGI({at(served, way)},,keyless,Fred)")

        assert (view.status, view.leg_id, view.agi_status) == ("401", "", "SUCCESS")
        is_served = settled(served) == before + 1
        assert (set(pbx.site.audio_files()), pbx.site.legs("--tag", "keyless")) == (files, [])
        if is_served:
            break

    assert is_served


def test_a_key_that_was_changed_a_moment_ago_counts_at_once(pbx: Pbx, served: Served) -> None:
    pbx.site.cli("apikey", "set", text="another-key-for-this-test\n")
    try:
        line = f"AGI({at(served, FASTAGI)},,changed,Fred)"
        with_old = pbx.dial(line)
        with_new = pbx.dial(f"Set(apiKey=another-key-for-this-test)\n{line}")
    finally:
        pbx.site.cli("apikey", "set", text=pbx.site.key + "\n")

    assert (with_old.status, with_new.status) == ("401", "200")
    pbx.leg(with_new)


# --- a call that ends, a server that is told something ---


@WAYS
def test_hanging_up_at_any_moment_loses_nothing_and_harms_no_server(
    pbx: Pbx, served: Served, way: str
) -> None:
    before, files_before, log_before = ids(pbx), set(pbx.site.audio_files()), len(pbx.site.log())

    for moment in MOMENTS:
        pbx.start_call(f"AGI({at(served, way)},,hung-up,Fred)", seconds=moment)
        pbx.asterisk.wait_quiet()
    assert pbx.dial(f"AGI({at(served, way)},,after,Fred)").status == "200"
    pbx.wait_until_idle()

    audit.sync_until_all_is_closed(pbx.site)
    legs = [leg for leg in pbx.site.legs() if leg["id"] not in before and leg["tag"] in ("hung-up", "after")]
    files = set(pbx.site.audio_files()) - files_before
    assert {leg["status"] for leg in legs} <= {"completed", "empty", "failed"}
    assert sorted(leg["file"] for leg in legs if leg["status"] != "failed") == sorted(map(str, files))
    served.wait_for("running", 0)
    assert_calm(served, log_before)


def assert_calm(served: Served, log_before: int) -> None:
    """log_before: how long the log was when the test began; tests of other files have filled it, too."""
    assert "Traceback" not in served.site.log()[log_before:]
    assert served.stderr == ""


def test_a_stopped_server_does_not_hold_the_call(pbx: Pbx, served: Served) -> None:
    """Asterisk waits for the end of its pipes, whoever has them."""
    everybody, before = processes.members(served.pid), settled(served)
    processes.send(signal.SIGSTOP, everybody)
    try:
        view = pbx.dial("AGI(start_record.py,,stopped,Fred)")
        assert view.status == "200"
        assert pbx.leg(view)["tag"] == "stopped"
    finally:
        processes.send(signal.SIGCONT, everybody)

    assert settled(served) == before


def test_a_session_that_begins_after_the_hang_up_records_nothing(pbx: Pbx, served: Served) -> None:
    """The server is stopped meanwhile: Asterisk says HANGUP, and answers no command that needs the call."""
    everybody, before = processes.members(served.pid), settled(served)
    log_before = len(pbx.site.log())
    processes.send(signal.SIGSTOP, everybody)
    try:
        pbx.start_call(f"AGI({at(served, FASTAGI)},,too-late,Fred)", seconds=0.5)
        wait_until(lambda: "too-late" in pbx.asterisk.log(), 30, "AGI() to begin")
        pbx.asterisk.rx("channel request hangup all")
    finally:
        processes.send(signal.SIGCONT, everybody)
    pbx.asterisk.wait_quiet()

    wait_until(lambda: sessions(served) == before + 1, 20, "the session to end")
    wait_until(lambda: not pbx.site.legs("--tag", "too-late", "--status", "recording"), 60, "no open leg")
    assert not [leg for leg in pbx.site.legs("--tag", "too-late") if leg["status"] == "completed"]
    assert_calm(served, log_before)


@WAYS
def test_ends_are_handed_over_and_the_server_alone_drains(pbx: Pbx, served: Served, way: str) -> None:
    """On a busy machine a program may wait too long for the server and go the plain way, with a drain."""
    seen: set[int] = set()
    for attempt in range(HAND_OVERS):
        tag, seen = f"drained-{'fastagi' if way == FASTAGI else 'handed'}-{attempt}", set()
        pbx.start_call(f"AGI({at(served, way)},,{tag},Fred)", seconds=0.7)

        def completed(tag: str = tag, seen: set[int] = seen) -> bool:
            seen.update(pbx.site.drains())
            return [leg["status"] for leg in pbx.site.legs("--tag", tag)] == ["completed"]

        wait_until(completed, 20, "the leg to be completed")
        pbx.wait_until_idle()
        if not seen:
            break

    assert seen == set()


def test_sighup_reads_the_configuration_anew(pbx: Pbx, served: Served) -> None:
    workers = served.workers()
    served.configure({"recordings.format": "gsm"})

    served.reload()

    def gsm() -> bool:
        return pbx.dial(f"AGI({at(served, FASTAGI)},,reloaded)").file.endswith(".gsm")

    wait_until(gsm, 20, "a recording in the new format")
    handed_over = pbx.dial("AGI(start_record.py,,reloaded)")
    assert (handed_over.status, handed_over.file[-4:]) == ("200", ".gsm")
    assert served.workers() == workers
    assert "SIGHUP: the configuration was read anew" in pbx.site.log()


def test_a_broken_configuration_at_sighup_leaves_the_old_one(pbx: Pbx, served: Served) -> None:
    served.stop()
    served.start()  # else a worker that has not read it anew since the last test would have the broken one
    served.configure({"recordings.fromat": "gsm"})

    served.reload()
    begun = len(pbx.site.log())
    os.kill(served.workers()[0], signal.SIGKILL)  # one that is started again has the old one, too
    wait_until(lambda: "started again" in pbx.site.log()[begun:], 20, "the server to notice")

    def started(way: str) -> tuple[str, str]:
        view = pbx.dial(f"AGI({at(served, way)},,kept,Fred)")
        return view.status, Path(view.file).suffix

    assert started(FASTAGI) == ("200", ".wav")
    # On a busy machine a program may wait too long for the server, go the plain way, and read the new file.
    assert ("200", ".wav") in (started(HANDED_OVER) for _ in range(HAND_OVERS))
    assert "SIGHUP: the configuration stays as it was" in pbx.site.log()
    assert "no such option" in pbx.site.log()
    served.configure()
    pbx.site.wait_for_legs("--tag", "kept", count=2, status="completed")


def test_an_open_recording_outlives_the_server(pbx: Pbx, served: Served) -> None:
    """Nobody sees its end; the next server closes it by what the file says."""
    pbx.dial(f"AGI({at(served, FASTAGI)},,before,Fred)")
    pbx.site.wait_for_legs("--tag", "before", status="completed")
    served.wait_for("sees_ends", 1)  # a recording that began earlier after SIGHUP starts a program at its end
    pbx.start_call(f"AGI({at(served, FASTAGI)},,outlived,Fred)", seconds=None)
    (leg,) = pbx.site.wait_for_legs("--tag", "outlived")

    assert served.stop() == 0
    assert not served.socket.exists()
    wait_until(lambda: Path(leg["file"]).stat().st_size > audit.WITHOUT_AUDIO_BYTES, 20, "some audio")
    pbx.hang_up()
    pbx.wait_until_idle()
    assert pbx.site.legs("--tag", "outlived") == [leg]
    served.start()
    (leg,) = pbx.site.wait_for_legs("--tag", "outlived", status="completed")

    assert leg["duration_seconds"] == pytest.approx(audit.wav_seconds(Path(leg["file"])), abs=0.001)
