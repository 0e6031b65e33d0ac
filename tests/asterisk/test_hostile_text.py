"""Tags and logins are text: they arrive as they are, and nothing acts on them."""

from pathlib import Path

import pytest
from lab.pbx import Pbx

pytestmark = pytest.mark.asterisk

# The first five have what Asterisk or a shell acts on.
TEXTS = [
    'a,b "quoted" (round) [square] {curly} <> \\back\\slash\\',
    "two\nlines\rand\ttab\x7f\x01",
    "${SHELL(touch acted)} $(touch acted) `touch acted` $[1+1] ^{UNIQUEID} ${UNIQUEID}",
    "x.wav,b,touch acted;touch acted|touch acted&touch acted>acted #'",
    '"\nEXEC System "touch acted',
    "Grüße 東京 🎧 ‮ é",
    "=tag=x, agent = y",
    "'); DROP TABLE recording_leg; --",
    "ü" * 255,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_tag_and_login_arrive_exactly_and_nothing_else_happens(pbx: Pbx, tmp_path: Path, text: str) -> None:
    assert_arrives_exactly(pbx, tmp_path, text, "no")


@pytest.mark.parametrize("text", TEXTS[:5], ids=range(5))
def test_nothing_happens_either_where_asterisk_expands_what_it_is_told(
    pbx: Pbx, tmp_path: Path, text: str
) -> None:
    assert_arrives_exactly(pbx, tmp_path, text, "yes")


def assert_arrives_exactly(pbx: Pbx, tmp_path: Path, text: str, exec_full: str) -> None:
    """As tag and as login. exec_full: AGIEXECFULL, with which Asterisk expands the arguments of EXEC."""
    login = text[:100]
    (tmp_path / "tag").write_bytes(text.encode())
    (tmp_path / "login").write_bytes(login.encode())

    view = pbx.dial(
        f"Set(AGIEXECFULL={exec_full})\n"
        f"AGI(start_record.py,,${{QUOTE(${{FILE({tmp_path}/tag)}})}},${{QUOTE(${{FILE({tmp_path}/login)}})}})",
    )

    leg = pbx.leg(view)
    expected = "".join(" " if character < " " or character == "\x7f" else character for character in text)
    assert view.status == "200"
    assert (leg["tag"], leg["external_reference"]) == (expected, expected)
    assert (leg["agent_login_name"], leg["owner"]) == (expected[:100], None)
    assert Path(leg["file"]).parent.parent.parent.parent == pbx.site.recordings_directory
    assert [path for path in pbx.asterisk.folder.rglob("*") if "acted" in path.name] == []


def test_bytes_that_are_no_utf8_do_not_stop_a_recording(pbx: Pbx, tmp_path: Path) -> None:
    (tmp_path / "tag").write_bytes(b"caf\xe9")

    view = pbx.dial(
        f"Set(CALLERID(name)=${{FILE({tmp_path}/tag)}})\nAGI(start_record.py,,${{FILE({tmp_path}/tag)}})",
    )

    assert pbx.leg(view)["tag"] == "caf\ufffd"


@pytest.mark.parametrize("text", ['lone " quote', "lone ( bracket", "lone ] bracket, and a comma"])
def test_text_that_asterisk_cannot_split_is_safe_as_the_last_argument(
    pbx: Pbx, tmp_path: Path, text: str
) -> None:
    """A lone bracket hides the commas after it from Asterisk (main/app.c __ast_app_separate_args)."""
    (tmp_path / "tag").write_text(text)

    view = pbx.dial(f"AGI(start_record.py,agentLoginName=Fred,${{QUOTE(tag=${{FILE({tmp_path}/tag)}})}})")

    leg = pbx.leg(view)
    assert (leg["tag"], leg["owner"]) == (text, "Fred")
