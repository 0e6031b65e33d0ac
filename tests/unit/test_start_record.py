"""start_record from the dialplan's line to the dialplan's answer, with Asterisk's side played."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from noojee_agi.actions import start_record
from noojee_agi.asterisk import extensions
from noojee_agi.recordings import recording, spool
from unit.fakes import (
    DEAD_CHANNEL,
    END_OF_FILE,
    HANGUP_THEN_END,
    HANGUP_THEN_ON,
    KEY,
    PROGRAMS,
    FakeAsterisk,
    FakeDatabase,
    MixMonitor,
    Site,
    age_snapshot,
)

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
MOST_COMMANDS = 25
AGENT = "PJSIP/410-00000020"


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_record, "FILE_SEEN_WITHIN_SECONDS", 0.01)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def _agents_call(**variables: str) -> FakeAsterisk:
    """A caller in a queue whose agent at PJSIP/410 has answered."""
    asterisk = FakeAsterisk(MEMBERINTERFACE="PJSIP/410", **variables)
    asterisk.add(AGENT, "1762420501.78")
    return asterisk


def _status(asterisk: FakeAsterisk) -> str:
    return asterisk.answers()["RECORDING_STATUS"]


def _message(asterisk: FakeAsterisk) -> str:
    return asterisk.answers()["RECORDING_MESSAGE"]


def _is_untouched(site: Site, asterisk: FakeAsterisk) -> bool:
    """Nothing recorded, nothing on record, no file named."""
    return (asterisk.mixmonitors, site.events(), site.audio_files()) == ([], [], []) and (
        asterisk.answers()["RECORDING_FILE"] == ""
    )


def _broken_promises(site: Site) -> list[str]:
    """What must hold on the disk after every session, however it ended."""
    legs = {leg.file: leg.id for leg in site.legs()}
    failed = {ending.leg_id for ending in site.endings() if ending.status == "failed"}
    files = set(site.audio_files())
    return [
        *(f"{file} is on no record" for file in files - legs.keys()),
        *(f"{file} is there, but failed" for file in files & legs.keys() if legs[file] in failed),
        *(f"{file} never came, but is open" for file in legs.keys() - files if legs[file] not in failed),
    ]


# ---- A call that is recorded


def test_a_call_with_the_right_key_is_recorded_and_the_dialplan_told(site: Site) -> None:
    asterisk = _agents_call()

    report = site.run(asterisk, "410", "INV-22", "Fred")

    [leg] = site.legs()
    assert asterisk.answers() == {
        "RECORDING_STATUS": "200",
        "RECORDING_MESSAGE": "OK",
        "RECORDING_ID": leg.id,
        "RECORDING_FILE": leg.file,
        "RECORDING_STATE": "recording",
    }
    assert asterisk.running() == [leg.file] == site.audio_files()
    assert (report.result.leg_id, report.result.file, site.endings()) == (leg.id, leg.file, [])
    assert _broken_promises(site) == []


def test_the_event_holds_what_the_call_path_knows(site: Site) -> None:
    site.run(_agents_call(), "410", "INV-22", "Fred")

    [leg] = site.legs()
    assert re.fullmatch(UUID, leg.id)
    assert (leg.server, leg.call_uniqueid, leg.uniqueid) == ("pbx1", "1762420501.76", "1762420501.77")
    assert (leg.channel, leg.extension) == ("PJSIP/trunk-a-0000001f", "410")
    assert (leg.source, leg.destination, leg.did) == ("0301234567", "800", "4930800")
    assert (leg.tag, leg.agent_login_name, leg.agent_known) == ("INV-22", "Fred", True)
    day = leg.started_at.strftime("%Y/%m/%d")
    assert leg.file == f"{site.recordings}/{day}/1762420501.77-{leg.id[:8]}.wav"


def test_a_call_without_a_linkedid_is_known_by_its_own_uniqueid(site: Site) -> None:
    asterisk = FakeAsterisk()
    del asterisk.variables["CHANNEL(linkedid)"]

    site.run(asterisk)

    assert [leg.call_uniqueid for leg in site.legs()] == ["1762420501.77"]


def test_the_literal_line_that_starts_mixmonitor(site: Site) -> None:
    asterisk = FakeAsterisk()

    site.run(asterisk)

    [leg] = site.legs()
    end_command = f"{PROGRAMS}/finish_record.py - {leg.id} {leg.file}"
    assert asterisk.executed("MixMonitor") == [
        f'EXEC "MixMonitor" "{leg.file},i(NOOJEE_MIXMONITOR_ID),{end_command}"'
    ]


def test_the_configured_options_format_and_file_go_to_mixmonitor(site: Site) -> None:
    asterisk = FakeAsterisk()
    site.configure(
        path="/etc/asterisk/noojee_agi.conf",
        recordings_format="wav49",
        recordings_mixmonitor_options="bW(2)",
    )

    site.run(asterisk)

    [leg] = site.legs()
    [mixmonitor] = asterisk.mixmonitors
    assert mixmonitor.options == "bW(2)i(NOOJEE_MIXMONITOR_ID)"
    assert mixmonitor.command.split(" ")[1:] == ["/etc/asterisk/noojee_agi.conf", leg.id, leg.file]
    assert asterisk.variables["MIXMONITOR_FILENAME"].endswith(".wav49")
    assert asterisk.answers()["RECORDING_FILE"] == mixmonitor.file == leg.file
    assert leg.file.endswith(".WAV")


def test_the_event_is_in_the_spool_before_mixmonitor_starts(site: Site) -> None:
    asterisk = FakeAsterisk()
    spooled: list[str] = []

    def look(mixmonitor: MixMonitor) -> None:
        spooled.extend(leg.file for leg in site.legs())
        assert spooled == [mixmonitor.file]

    asterisk.before_mixmonitor = look
    site.run(asterisk)

    assert spooled == site.audio_files()


@pytest.mark.usefixtures("open_umask")
def test_folders_are_closed_to_others_whatever_the_umask(site: Site) -> None:
    site.run(FakeAsterisk())

    folders = [path for path in site.recordings.rglob("*") if path.is_dir()]
    assert sorted(len(path.relative_to(site.recordings).parts) for path in folders) == [1, 1, 2, 3]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o750}


def test_nothing_that_a_person_typed_reaches_mixmonitor(site: Site) -> None:
    nasty = 'a"b\\c,d(e,${SHELL(id)}`id`\nEXEC System id'
    asterisk = FakeAsterisk()
    asterisk.environment |= {"agi_uniqueid": "../../x,b,touch y", "agi_callerid": nasty.replace("\n", " ")}

    site.run(asterisk, "", nasty, nasty)

    [leg] = site.legs()
    [line] = asterisk.executed("MixMonitor")
    assert _status(asterisk) == "200"
    assert leg.file == f"{os.path.dirname(leg.file)}/_.._x_b_touch_y-{leg.id[:8]}.wav"
    assert re.fullmatch(
        r'EXEC "MixMonitor" "[A-Za-z0-9/._-]+,i\(NOOJEE_MIXMONITOR_ID\),[A-Za-z0-9/._ -]+"', line
    )
    assert leg.tag == leg.agent_login_name == nasty.replace("\n", " ")
    assert (leg.uniqueid, leg.source) == ("../../x,b,touch y", nasty.replace("\n", " "))
    for line in asterisk.lines:
        assert "SHELL(" not in line
        assert "`" not in line


# ---- Which call


@pytest.mark.parametrize("asked", ["", "1762420501.77", "PJSIP/trunk-a-0000001f", "pjsip/TRUNK-a-0000001f"])
def test_nothing_the_uniqueid_and_the_name_mean_this_channel(site: Site, asked: str) -> None:
    asterisk = _agents_call()

    site.run(asterisk, asked)

    [leg] = site.legs()
    assert (_status(asterisk), leg.extension) == ("200", "")
    assert leg.extensions == ("410", "trunk-a", "800", "4930800")


ON_CALL = ("410", "trunk-a", "800", "4930800")


@pytest.mark.parametrize(
    ("asked", "extension"),
    [
        ("410", "410"),
        ("PJSIP/410", "410"),
        ("SIP/410", "410"),
        ("SIP/410-12FA7B", "410"),
        ("PJSIP/410-00000a1f", "410"),
        ("Local/410@agents-00000001;2", "410"),
        ("Local/410@agents/n", "410"),
        ("PJSIP/TRUNK-A", "trunk-a"),
        ("800", "800"),
        ("4930800", "4930800"),
        # Not on the call, or not yet: whoever will sit there, it is this call.
        ("999", "999"),
        ("41", "41"),
        ("PJSIP/999", "999"),
        ("PJSIP/other-00000001", "other"),
        ("${X}", "${X}"),
        ("1762420501", "1762420501"),
    ],
)
def test_an_extension_means_this_call_for_whoever_sits_there(site: Site, asked: str, extension: str) -> None:
    asterisk = _agents_call()

    site.run(asterisk, asked)

    [leg] = site.legs()
    assert (_status(asterisk), leg.channel, leg.extension) == ("200", "PJSIP/trunk-a-0000001f", extension)
    assert leg.extensions == (extension,)
    assert "${" not in _message(asterisk)


@pytest.mark.parametrize(
    "asked", ["1762420501.79", "pbx1-1762420501.77", "at/410", "AT/410", "at/1762420501.77"]
)
def test_a_uniqueid_and_what_is_at_somewhere_is_another_call(site: Site, asked: str) -> None:
    """Here without the manager interface."""
    asterisk = _agents_call()

    site.run(asterisk, asked)

    assert _status(asterisk) == "404"
    assert "[manager]" in _message(asterisk)
    assert _is_untouched(site, asterisk)


def test_at_nothing_is_no_call(site: Site) -> None:
    asterisk = _agents_call()
    site.run(asterisk, "at/")
    assert (_status(asterisk), _is_untouched(site, asterisk)) == ("400", True)


@pytest.mark.parametrize("asked", ["1762420501.76", "1762420501.77", "pbx1-1762420501.77"])
def test_the_calls_own_uniqueids_are_this_call_with_and_without_the_systems_name(
    site: Site, asked: str
) -> None:
    asterisk = FakeAsterisk(SYSTEMNAME="pbx1")
    asterisk.environment["agi_uniqueid"] = "pbx1-1762420501.77"

    site.run(asterisk, asked)

    assert (_status(asterisk), [leg.extension for leg in site.legs()]) == ("200", [""])


def test_whom_nobody_is_attached_to_is_said_if_it_is_known(site: Site) -> None:
    site.database.attached = frozenset({"410"})
    site.database(site.config)
    for named, login, says_so in (
        ("411", "", True),
        ("410", "", False),
        ("411", "Fred", False),
        ("", "", False),
    ):
        asterisk = _agents_call()
        site.run(asterisk, named, "", login)
        assert ("nobody is attached to 411" in _message(asterisk)) == says_so


# ---- Who is on the call


def test_of_an_agent_who_has_just_answered_the_channel_is_kept_with_the_leg(site: Site) -> None:
    asterisk = _agents_call()
    site.run(asterisk)
    [leg] = site.legs()
    assert (leg.extensions, leg.peer_channel, leg.peer_uniqueid) == (ON_CALL, AGENT, "1762420501.78")


@pytest.mark.parametrize(
    ("interface", "channel"),
    [
        ("PJSIP/410", "PJSIP/410-00000020"),
        ("Local/410@agents/n", "Local/410@agents-00000003;1"),
        ("PJSIP/410@trunk-b", "PJSIP/trunk-b-00000007"),
        ("SIP/trunk-b/410", "SIP/trunk-b-00000007"),
        ("DAHDI/g1/410", "DAHDI/3-1"),
    ],
)
def test_an_agent_counts_while_a_channel_of_his_is_in_this_call(
    site: Site, interface: str, channel: str
) -> None:
    """MEMBERINTERFACE outlives the queue (app_queue.c sets it, and nobody takes it away)."""
    asterisk = FakeAsterisk(MEMBERINTERFACE=interface)
    agent = extensions.of_interface(interface)

    site.run(asterisk)
    asterisk.add(channel, "1762420501.80", **{"CHANNEL(linkedid)": "of another call"})
    site.run(asterisk)
    asterisk.add(channel, "1762420501.80")
    site.run(asterisk)

    assert [leg.extensions[0] for leg in site.legs()] == ["trunk-a", "trunk-a", agent]


@pytest.mark.parametrize("variable", ["BLINDTRANSFER", "ATTENDEDTRANSFER"])
def test_an_agent_who_has_transferred_the_caller_is_not_in_the_call_any_more(
    site: Site, variable: str
) -> None:
    """His channel may live on for a moment."""
    asterisk = _agents_call(**{variable: AGENT, "DIALEDPEERNAME": AGENT})
    site.run(asterisk)
    [leg] = site.legs()
    assert (leg.extensions, leg.peer_channel) == (ON_CALL[1:], "")


@pytest.mark.parametrize("is_there", [True, False])
def test_a_dialled_peer_counts_while_it_is_there(site: Site, is_there: bool) -> None:
    """DIALEDPEERNAME outlives Dial(…,g)."""
    asterisk = FakeAsterisk(DIALEDPEERNAME="PJSIP/411-00000021")
    if is_there:
        asterisk.add("PJSIP/411-00000021", "1762420501.79")

    site.run(asterisk)

    [leg] = site.legs()
    others = ("411",) if is_there else ()
    assert leg.extensions == ("trunk-a", *others, "800", "4930800")
    assert leg.peer_uniqueid == ("1762420501.79" if is_there else "")


@pytest.mark.parametrize("variable", ["DIALEDPEERNAME", "MEMBERINTERFACE"])
def test_a_peer_who_talks_with_somebody_else_by_now_is_none(site: Site, variable: str) -> None:
    """Dial's option G, say, or a redirect of both: he is still in the same call."""
    value = "PJSIP/411-00000021" if variable == "DIALEDPEERNAME" else "PJSIP/411"
    asterisk = FakeAsterisk(**{variable: value})
    asterisk.add("PJSIP/411-00000021", "1762420501.79", BRIDGEPEER="PJSIP/412-00000022")

    site.run(asterisk)

    assert site.legs()[0].extensions == ("trunk-a", "800", "4930800")


def test_a_peer_behind_a_local_channel_is_the_telephone(site: Site) -> None:
    asterisk = FakeAsterisk(BRIDGEPEER="Local/412@agents-00000001;1")
    asterisk.add("Local/412@agents-00000001;1", "1.1", BRIDGEPEER="PJSIP/trunk-a-0000001f")
    asterisk.add("Local/412@agents-00000001;2", "1.2", BRIDGEPEER="PJSIP/412-00000022")
    asterisk.add("PJSIP/412-00000022", "1.3", BRIDGEPEER="Local/412@agents-00000001;2")

    site.run(asterisk)

    [leg] = site.legs()
    assert (leg.extensions[1], leg.peer_channel, leg.peer_uniqueid) == ("412", "PJSIP/412-00000022", "1.3")


def test_every_peer_of_a_bridge_of_many_is_on_this_call(site: Site) -> None:
    asterisk = FakeAsterisk(BRIDGEPEER="SIP/411-12FA7B,PJSIP/413-00000001")

    site.run(asterisk)

    [leg] = site.legs()
    assert (leg.extensions, leg.peer_channel) == (("trunk-a", "411", "413", "800", "4930800"), "")


@pytest.mark.parametrize("name", ["x),SHELL(id", "PJSIP/4${X}", "a,b", "PJSIP/4)|(1"])
def test_a_name_that_could_say_something_to_asterisk_is_not_asked_about(site: Site, name: str) -> None:
    asterisk = FakeAsterisk(DIALEDPEERNAME=name, MEMBERINTERFACE=name)

    site.run(asterisk)

    assert _status(asterisk) == "200"
    assert not [line for line in asterisk.lines if name in line]


# ---- Key and arguments


@pytest.mark.parametrize("key", [None, "", "wr0ng-k3y", KEY.upper(), KEY + " "])
def test_without_the_right_key_nothing_is_recorded(site: Site, key: str | None) -> None:
    asterisk = _agents_call()
    asterisk.variables.pop("apiKey")
    if key is not None:
        asterisk.variables["apiKey"] = key

    site.run(asterisk, "410")

    assert _status(asterisk) == "401"
    assert _is_untouched(site, asterisk)
    assert asterisk.answers()["RECORDING_ID"] == ""


def test_a_wrong_key_leaves_a_running_recording_alone(site: Site) -> None:
    asterisk = FakeAsterisk()
    site.run(asterisk)
    asterisk.variables["apiKey"] = "wrong"

    site.run(asterisk)

    assert _status(asterisk) == "401"
    assert len(asterisk.running()) == 1


@pytest.mark.parametrize("key", [KEY, "wr0ng-k3y"])
@pytest.mark.parametrize("creates_files", [True, False])
def test_the_key_appears_nowhere(
    site: Site, capfd: pytest.CaptureFixture[str], key: str, creates_files: bool
) -> None:
    asterisk = _agents_call(apiKey=key)
    asterisk.creates_files = creates_files

    report = site.run(asterisk, "410", "INV-22", "Fred")

    told = {name: value for name, value in asterisk.variables.items() if name != "apiKey"}
    shown = [*asterisk.lines, *asterisk.console, str(told), site.texts(), repr(report)]
    assert [text for text in (*shown, *capfd.readouterr()) if key in text] == []


def test_a_key_as_an_argument_is_refused_and_not_repeated(site: Site) -> None:
    asterisk = _agents_call()

    report = site.run(asterisk, "410", f"APIKEY={KEY}")

    assert _status(asterisk) == "400"
    assert _is_untouched(site, asterisk)
    assert KEY not in "".join(asterisk.lines) + repr(report) + site.texts()


@pytest.mark.parametrize("words", [("", "x" * 256), ("", "", "x" * 101), ("x" * 150,), ("1", "2", "3", "4")])
def test_a_bad_argument_records_nothing(site: Site, words: tuple[str, ...]) -> None:
    asterisk = FakeAsterisk()

    site.run(asterisk, *words)

    assert _status(asterisk) == "400"
    assert _is_untouched(site, asterisk)


@pytest.mark.parametrize("database_is_up", [True, False])
def test_a_recorded_call_does_not_wait_for_the_database(site: Site, database_is_up: bool) -> None:
    age_snapshot(site.config, 86400)
    site.database.is_up = database_is_up
    asterisk = _agents_call()

    site.run(asterisk, "410", "INV-22", "Fred")

    assert _status(asterisk) == "200"
    assert site.database.times_read == 0


# ---- Agents


@pytest.mark.parametrize(
    ("login", "known"), [("", None), ("Fred", True), (" Fred ", True), ("fred", False), ("nobody", False)]
)
def test_whether_the_agent_was_known_goes_with_the_leg(site: Site, login: str, known: bool | None) -> None:
    asterisk = FakeAsterisk()

    site.run(asterisk, "", "", login)

    [leg] = site.legs()
    assert (leg.agent_login_name, leg.agent_known) == (login, known)
    assert _status(asterisk) == "200"


def test_an_unknown_agent_is_recorded_with_a_warning(site: Site) -> None:
    asterisk = FakeAsterisk()

    site.run(asterisk, "", "", "nob${o}dy")

    assert _status(asterisk) == "200"
    assert _message(asterisk).startswith("OK, but there is no enabled account nob??o?dy: ")
    assert asterisk.console == [f"noojee-agi: 200 {_message(asterisk)}"]
    assert len(asterisk.running()) == 1


def test_an_unknown_agent_is_refused_where_that_is_configured(site: Site) -> None:
    asterisk = FakeAsterisk()
    site.configure(recordings_unknown_agent="refuse")

    site.run(asterisk, "", "", "nob${o}dy")

    assert _status(asterisk) == "400"
    assert _message(asterisk).startswith("no enabled account nob??o?dy: ")
    assert _is_untouched(site, asterisk)


def test_an_agent_who_was_just_added_is_not_refused(site: Site) -> None:
    asterisk = FakeAsterisk()
    site.configure(recordings_unknown_agent="refuse")
    site.database.logins = frozenset({"Anna"})
    age_snapshot(site.config, 60)

    site.run(asterisk, "", "", "Anna")

    assert _status(asterisk) == "200"
    assert [leg.agent_known for leg in site.legs()] == [True]
    assert site.database.times_read == 1


# ---- What keeps a call from being recorded


@pytest.mark.parametrize("has_mixmonitor", [True, False])
def test_a_file_that_is_not_seen_is_no_recording(site: Site, has_mixmonitor: bool) -> None:
    asterisk = FakeAsterisk()
    asterisk.creates_files, asterisk.has_mixmonitor = False, has_mixmonitor

    site.run(asterisk)

    [leg], [ending] = site.legs(), site.endings()
    assert _status(asterisk) == "503"
    assert asterisk.answers()["RECORDING_FILE"] == ""
    assert asterisk.answers()["RECORDING_ID"] == leg.id == ending.leg_id
    assert ending.status == "failed"
    assert asterisk.running() == []


def test_too_little_free_space_is_status_507(site: Site) -> None:
    asterisk = FakeAsterisk()
    site.configure(recordings_min_free_percent=100.0)

    site.run(asterisk)

    assert _status(asterisk) == "507"
    assert "min_free_percent = 100" in _message(asterisk)
    assert _is_untouched(site, asterisk)


def test_a_recordings_folder_that_is_not_mounted_is_not_made(site: Site) -> None:
    asterisk = FakeAsterisk()
    shutil.rmtree(site.recordings)

    site.run(asterisk)

    assert _status(asterisk) == "503"
    assert asterisk.mixmonitors == []
    assert not site.recordings.exists()


def test_without_a_spool_nothing_is_started(site: Site) -> None:
    asterisk = FakeAsterisk()
    (site.recordings / ".spool").touch()

    site.run(asterisk)

    assert _status(asterisk) == "503"
    assert (asterisk.mixmonitors, site.audio_files()) == ([], [])


def test_paths_too_long_for_one_agi_line_are_an_answer_and_no_half_line(site: Site) -> None:
    folder = site.recordings
    for _ in range(6):
        folder = folder / ("x" * 200)
    folder.mkdir(parents=True)
    site.configure(recordings_directory=str(folder))
    asterisk = FakeAsterisk()

    site.run(asterisk)

    assert _status(asterisk) == "500"
    assert asterisk.mixmonitors == []
    assert _broken_promises(site) == []


def test_an_exception_that_nobody_foresaw_is_status_500_and_the_exit_clean(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asterisk = FakeAsterisk()
    boom = RuntimeError(KEY)

    def fail(directory: str, event: recording.Event) -> None:
        raise boom

    monkeypatch.setattr(spool, "put", fail)
    report = site.run(asterisk)

    assert _status(asterisk) == "500"
    assert set(asterisk.answers()) == {
        "RECORDING_STATUS",
        "RECORDING_MESSAGE",
        "RECORDING_ID",
        "RECORDING_FILE",
    }
    assert KEY not in "".join(asterisk.lines)
    assert report.failure is boom


def test_a_database_that_breaks_in_an_unforeseen_way_is_status_500(tmp_path: Path) -> None:
    class Broken(FakeDatabase):
        def __call__(self, config: object) -> None:
            if self.times_read:
                raise RuntimeError("broken")
            super().__call__(config)  # type: ignore[arg-type]

    site, asterisk = Site(tmp_path, Broken()), FakeAsterisk(apiKey="wrong")
    age_snapshot(site.config, 60)
    site.database.times_read = 1

    report = site.run(asterisk)

    assert _status(asterisk) == "500"
    assert isinstance(report.failure, RuntimeError)
    assert asterisk.mixmonitors == []


# ---- A channel that is being recorded already


def test_a_second_start_ends_the_old_leg_and_then_begins_the_new_one(site: Site) -> None:
    """Beside another one, Asterisk 22's new MixMonitor may keep a stale translator (test_right_call.py)."""
    asterisk = _agents_call()
    site.run(asterisk, "410", "first", "Fred")
    first_session = len(asterisk.lines)
    spooled: list[int] = []
    asterisk.before_mixmonitor = lambda mixmonitor: spooled.append(len(site.legs()))

    site.run(asterisk, "410", "second")

    first, second = site.legs()
    old, new = asterisk.mixmonitors
    assert [line for line in asterisk.lines[first_session:] if "MixMonitor" in line and "EXEC" in line] == [
        f'EXEC "StopMixMonitor" "{old.id}"',
        asterisk.executed("MixMonitor")[1],
    ]
    assert asterisk.running() == [new.file] == [second.file]
    assert asterisk.answers()["RECORDING_ID"] == second.id != first.id
    assert (second.tag, second.agent_login_name, spooled) == ("second", "", [2])


def test_every_further_start_leaves_exactly_one_recording(site: Site) -> None:
    asterisk = FakeAsterisk()

    for number in range(1, 6):
        site.run(asterisk)
        assert asterisk.running() == [site.legs()[-1].file]
        assert len(asterisk.mixmonitors) == number


def test_a_start_that_dies_between_the_old_leg_and_the_new_one_leaves_what_the_next_one_mends(
    site: Site,
) -> None:
    asterisk = FakeAsterisk()
    site.run(asterisk)
    asterisk.hang_up_at, asterisk.hang_up_style = 3, END_OF_FILE  # two GETs, StopMixMonitor
    site.run(asterisk)
    asterisk.hang_up_at = 0
    assert asterisk.running() == []
    assert [ending.leg_id for ending in site.endings()] == [site.legs()[1].id]

    site.run(asterisk)

    assert asterisk.running() == [site.legs()[-1].file]


@pytest.mark.parametrize("has_mixmonitor", [True, False])
def test_a_second_start_that_fails_says_that_the_first_has_ended(site: Site, has_mixmonitor: bool) -> None:
    asterisk = FakeAsterisk()
    site.run(asterisk)
    asterisk.creates_files, asterisk.has_mixmonitor = False, has_mixmonitor

    site.run(asterisk)

    _, second = site.legs()
    assert (_status(asterisk), asterisk.running()) == ("503", [])
    assert "the former leg has ended, nothing records this call now" in _message(asterisk)
    assert [(ending.leg_id, ending.status) for ending in site.endings()] == [(second.id, "failed")]
    asterisk.creates_files = asterisk.has_mixmonitor = True
    site.run(asterisk)
    assert (_status(asterisk), len(asterisk.running())) == ("200", 1)


def test_a_start_that_is_refused_leaves_the_first_running(site: Site) -> None:
    """All that can be known before is looked at before."""
    asterisk = FakeAsterisk()
    site.run(asterisk)
    site.configure(recordings_min_free_percent=100.0)

    site.run(asterisk)

    assert (_status(asterisk), asterisk.running()) == ("507", [site.legs()[0].file])


def test_somebody_elses_mixmonitor_that_has_our_former_ones_id_goes_on(site: Site) -> None:
    """The id is an address: Asterisk may give it out again."""
    asterisk = FakeAsterisk()
    site.run(asterisk)
    asterisk.mixmonitors[0].file = "/var/spool/asterisk/monitor/theirs.wav"

    site.run(asterisk)

    assert asterisk.running() == ["/var/spool/asterisk/monitor/theirs.wav", site.legs()[-1].file]


def test_a_new_mixmonitor_with_the_id_of_one_that_had_ended_is_not_stopped(site: Site) -> None:
    """The id is an address: Asterisk may give it out again."""
    asterisk = FakeAsterisk()
    site.run(asterisk)
    asterisk.mixmonitors[0].is_running = False
    asterisk.next_id = asterisk.mixmonitors[0].id

    site.run(asterisk)

    assert asterisk.running() == [site.legs()[-1].file]
    assert asterisk.executed("StopMixMonitor") == []


@pytest.mark.parametrize("value", ["junk", "0x12,more", '0x1"', "${X}"])
def test_an_id_that_is_none_is_never_sent(site: Site, value: str) -> None:
    asterisk = FakeAsterisk(NOOJEE_MIXMONITOR_ID=value)

    site.run(asterisk)

    assert _status(asterisk) == "200"
    assert asterisk.executed("StopMixMonitor") == []


# ---- The caller hangs up


# The second: whether the last command is carried out before the end.
ENDS = [
    pytest.param(DEAD_CHANNEL, False, id="511"),
    pytest.param(END_OF_FILE, True, id="end of file"),
    pytest.param(END_OF_FILE, False, id="end of file and the command lost"),
    pytest.param(HANGUP_THEN_END, True, id="HANGUP"),
    pytest.param(HANGUP_THEN_END, False, id="HANGUP and the command lost"),
    pytest.param(HANGUP_THEN_ON, True, id="HANGUP and on"),
]


@pytest.mark.parametrize(("style", "obeys_the_last"), ENDS)
@pytest.mark.parametrize("creates_files", [True, False], ids=["file", "no file"])
@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second"])
def test_after_a_hang_up_at_any_command_file_and_record_agree(
    tmp_path: Path, style: str, obeys_the_last: bool, creates_files: bool, is_second: bool
) -> None:
    broken: dict[str, list[str]] = {}
    for number in range(1, MOST_COMMANDS):
        site, asterisk = Site(tmp_path / f"{number}"), _agents_call()
        if is_second:
            site.run(asterisk, "410", "first")
        asterisk.creates_files = creates_files
        asterisk.hang_up_at, asterisk.hang_up_style = number, style
        asterisk.obeys_the_last = obeys_the_last
        before = len(asterisk.lines)

        report = site.run(asterisk, "410", "INV-22", "nobody")

        if asterisk.count < number:
            break
        promises = _broken_promises(site) + ([repr(report.failure)] if report.failure else [])
        if promises:
            broken[f"{number}: {asterisk.lines[before:][number - 1]}"] = promises
    else:
        pytest.fail(f"a session of more than {MOST_COMMANDS} commands")

    assert broken == {}


@pytest.mark.parametrize("style", [END_OF_FILE, HANGUP_THEN_END])
def test_a_recording_whose_caller_hung_up_at_its_start_is_in_our_log_by_its_id(
    tmp_path: Path, style: str
) -> None:
    whole = FakeAsterisk()
    Site(tmp_path / "whole").run(whole)
    site, asterisk = Site(tmp_path / "cut"), FakeAsterisk()
    asterisk.hang_up_at = whole.lines.index(whole.executed("MixMonitor")[0]) + 1
    asterisk.hang_up_style = style

    report = site.run(asterisk)

    [leg] = site.legs()
    assert site.audio_files() == [leg.file]
    assert report.result.leg_id == leg.id
