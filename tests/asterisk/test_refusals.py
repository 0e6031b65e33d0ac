"""Nothing is recorded that may not be, every refusal says why, and the call goes on."""

import subprocess
from pathlib import Path

import pytest
from lab.hung_disk import hung_disk
from lab.pbx import Pbx
from lab.small_disk import small_disk
from lab.waiting import wait_until

pytestmark = pytest.mark.asterisk

ATTEMPTS = 10


@pytest.mark.parametrize(
    "setting",
    ["Set(apiKey=not-the-key)", "Set(apiKey=)", "Set(GLOBAL(apiKey)=)", "Set(apiKey=${apiKey}x)"],
    ids=["wrong", "empty", "missing", "nearly right"],
)
def test_without_the_right_key_nothing_is_recorded(pbx: Pbx, setting: str) -> None:
    before = recorded(pbx)

    view = pbx.dial(f"{setting}\nAGI(start_record.py,,keyless,Fred)")

    assert (view.status, view.leg_id, view.file, view.agi_status) == ("401", "", "", "SUCCESS")
    assert "apiKey" in view.message
    assert recorded(pbx) == before


def recorded(pbx: Pbx) -> tuple[set[Path], set[str]]:
    """All files and the ids of all legs, once nothing is at work, of an earlier test either."""
    pbx.wait_until_idle()
    return set(pbx.site.audio_files()), {leg["id"] for leg in pbx.site.legs()}


@pytest.mark.parametrize(
    "arguments",
    [
        ",tag,Fred,apiKey=${apiKey}",
        f",,{'a' * 101}",
        "500,tag,Fred,four",
        "tag=one,tag=two",
    ],
)
def test_arguments_that_cannot_be_are_refused(pbx: Pbx, arguments: str) -> None:
    """unit/test_arguments.py has more of them."""
    before = recorded(pbx)

    view = pbx.dial(f"AGI(start_record.py,{arguments})")

    assert (view.status, view.leg_id, view.agi_status) == ("400", "", "SUCCESS")
    assert pbx.site.key not in view.message
    assert recorded(pbx) == before


def missing(pbx: Pbx) -> Path:
    return pbx.site.folder / "no-such-folder"


def not_writable(pbx: Pbx) -> Path:
    """Root may write everywhere, so this is a folder that cannot be made: its parent is a file."""
    return pbx.site.conf / "recordings"


@pytest.mark.parametrize("directory", [missing, not_writable])
def test_a_recordings_folder_that_cannot_be_used_is_503(pbx: Pbx, directory: object) -> None:
    assert callable(directory)
    path = directory(pbx)
    pbx.site.configure({"recordings.directory": str(path)})

    view = pbx.dial("AGI(start_record.py,,no-folder)")

    assert (view.status, view.agi_status) == ("503", "SUCCESS")
    assert str(path) in view.message
    assert not path.exists()
    pbx.wait_until_idle()


def test_a_format_that_asterisk_does_not_know_is_503_and_the_leg_is_failed(pbx: Pbx) -> None:
    pbx.site.configure({"recordings.format": "nosuch"})

    view = pbx.dial("AGI(start_record.py,,no-format)")

    assert (view.status, view.file, view.agi_status) == ("503", "", "SUCCESS")
    assert "format" in view.message
    leg = pbx.leg(view, status="failed")
    assert leg["ended_at"] is not None
    assert pbx.site.legs("--tag", "no-format", "--status", "recording") == []


def test_a_full_disk_is_507(pbx: Pbx) -> None:
    with small_disk(64 * 1024) as disk:
        pbx.site.configure({"recordings.directory": str(disk)})
        (disk / "ballast").write_bytes(b"x" * 64 * 1024)

        view = pbx.dial("AGI(start_record.py,,full)")

        pbx.wait_until_idle()
        assert (view.status, view.agi_status) == ("507", "SUCCESS")
        assert str(disk) in view.message
        assert [path for path in disk.rglob("*.wav*")] == []
    pbx.site.configure()
    assert pbx.site.legs("--tag", "full") == []


def test_too_little_free_space_is_507(pbx: Pbx) -> None:
    pbx.site.configure({"recordings.min_free_percent": "100"})

    view = pbx.dial("AGI(start_record.py,,guarded)")

    assert (view.status, view.agi_status) == ("507", "SUCCESS")
    assert "min_free_percent" in view.message


def test_a_configuration_with_a_typing_error_is_500_and_named(pbx: Pbx) -> None:
    pbx.site.configure({"recordings.fromat": "wav"})

    view = pbx.dial("AGI(start_record.py,,typo)")

    assert view.status == "500"
    assert "[recordings] fromat" in view.message
    assert str(pbx.site.conf) in view.message


def test_a_key_that_was_changed_elsewhere_is_right_at_once(pbx: Pbx) -> None:
    """Changed on another host: this host's snapshot still has the old one.

    The database is asked for one second at most, and on a busy machine it may not answer until then.
    """
    for attempt in range(ATTEMPTS):
        key = f"another-key-of-enough-length-{attempt}"
        old = pbx.site.snapshot.read_text().replace('"read_at": "20', '"read_at": "19')
        pbx.site.cli("apikey", "set", text=f"{key}\n")
        pbx.site.snapshot.write_text(old)

        view = pbx.dial(f"Set(apiKey={key})\nAGI(start_record.py,,changed)")

        pbx.site.cli("apikey", "set", text=pbx.site.key + "\n")
        if view.status == "200":
            break
    assert view.status == "200"
    pbx.leg(view)


def test_a_folder_that_cannot_be_written_is_503(pbx: Pbx) -> None:
    """Read-only for everybody, root too."""
    with small_disk(64 * 1024) as disk:
        pbx.site.configure({"recordings.directory": str(disk)})
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        view = pbx.dial("AGI(start_record.py,,read-only)")
        pbx.wait_until_idle()

    assert (view.status, view.agi_status) == ("503", "SUCCESS")
    assert str(disk) in view.message


def test_a_failure_is_one_warning_in_the_log_that_debian_keeps(pbx: Pbx) -> None:
    """Verbose lines are in no file there."""
    steps = {
        "401": "Set(apiKey=no-key)\nAGI(start_record.py)",
        "400": "AGI(start_record.py,one=two,,,four)",
        "409": "AGI(stop_record.py)",
        "507": "AGI(start_record.py,,no-space)",
        "503": "AGI(start_record.py,,no-folder)",
        "500": "AGI(start_record.py,,typo)",
    }
    options = {
        "507": {"recordings.min_free_percent": "100"},
        "503": {"recordings.directory": str(pbx.site.folder / "missing")},
        "500": {"recordings.fromat": "wav"},
    }
    for status, dialplan in steps.items():
        pbx.site.configure(options.get(status))
        before = len(pbx.asterisk.messages().splitlines())

        view = pbx.dial(dialplan)

        assert view.status == status
        told, said = wait_until(lambda: our_messages(pbx, before), 20, "Asterisk's log")  # noqa: B023
        assert [line for line in told if "WARNING" in line] == told
        assert len(told) == 1
        assert f"noojee-agi: {status} {view.message}".replace('"', "?") in told[0]
        assert pbx.site.key not in "".join(said)
    pbx.wait_until_idle()


def our_messages(pbx: Pbx, before: int) -> tuple[list[str], list[str]] | None:
    """Our lines and all lines after so many, once there is one of ours: Asterisk writes its log in time."""
    said = pbx.asterisk.messages().splitlines()[before:]
    told = [line for line in said if "noojee-agi: " in line]
    return (told, said) if told else None


def test_a_disk_that_hangs_is_503_and_the_call_goes_on(pbx: Pbx) -> None:
    with hung_disk() as disk:
        pbx.site.configure({"recordings.directory": str(disk.path)})
        disk.hang()

        view = pbx.dial("AGI(start_record.py,,hung)")

        assert (view.status, view.agi_status) == ("503", "SUCCESS")
        wait_until(lambda: "does not answer" in pbx.asterisk.messages(), 20, "Asterisk's log")
        disk.answer()
        pbx.wait_until_idle()
