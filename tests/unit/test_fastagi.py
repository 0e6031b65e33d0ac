"""A FastAGI request, as Asterisk passes it on: program, arguments and query string."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from noojee_agi.actions import arguments
from noojee_agi.actions.arguments import Request
from noojee_agi.asterisk.channel import Channel
from noojee_agi.errors import BadArgument
from noojee_agi.server import fastagi
from noojee_agi.session import session
from unit.fakes import KEY, FakeAsterisk, Site


def asked(script: str, *words: str) -> Request:
    """What agi://host/SCRIPT,WORDS asks for. Raises BadArgument."""
    call = fastagi.invocation_of(Channel(*asterisk_with(script, *words).streams()))
    assert call.program == "start_record"
    return arguments.parse(call.words, call.pairs)


def asterisk_with(script: str, *words: str) -> FakeAsterisk:
    asterisk = FakeAsterisk()
    asterisk.environment |= {"agi_network": "yes", "agi_network_script": script}
    asterisk.environment |= {f"agi_arg_{number}": word for number, word in enumerate(words, 1)}
    return asterisk


@pytest.mark.parametrize(
    ("script", "words", "wanted"),
    [
        ("start_record", (), Request()),
        ("start_record", ("410", "INV-22", "Fred"), Request("410", "INV-22", "Fred")),
        ("start_record.py", ("", "INV-22"), Request(tag="INV-22")),
        ("/start_record/", (), Request()),
        ("start_record?", ("410",), Request("410")),
        (
            "start_record?extenOrUniqueId=410&tag=INV-22&agentLoginName=Fred",
            (),
            Request("410", "INV-22", "Fred"),
        ),
        ("start_record?TAG=INV-22&agentloginname=Fred", (), Request(tag="INV-22", agent_login_name="Fred")),
        ("start_record?tag=", (), Request()),
        ("start_record?tag", (), Request()),
        ("start_record?&&tag=x&", (), Request(tag="x")),
        ("start_record?tag=x", ("410",), Request("410", "x")),
        ("start_record?tag=x", ("410", "", "Fred"), Request("410", "x", "Fred")),
        ("start_record?tag=x", ("agentLoginName=Fred", "410"), Request("410", "x", "Fred")),
    ],
)
def test_arguments_come_by_position_by_name_and_by_query(
    script: str, words: tuple[str, ...], wanted: Request
) -> None:
    assert asked(script, *words) == wanted


@pytest.mark.parametrize(
    ("encoded", "tag"),
    [
        ("a%20b", "a b"),
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("a%26b%3Dc", "a&b=c"),
        ("a=b=c", "a=b=c"),
        ("a,b;c", "a,b;c"),
        ("a?b#c/d", "a?b#c/d"),
        ("Gr%C3%BC%C3%9Fe%20%E2%98%8E", "Grüße ☎"),
        ("Grüße", "Grüße"),
        ("caf%E9", "caf\ufffd"),
        ("100%", "100%"),
        ("%zz%4", "%zz%4"),
        ("%2541", "%41"),
        ("a%00b%0Ac%7F", "a b c "),
    ],
)
def test_a_querys_values_are_decoded_once(encoded: str, tag: str) -> None:
    assert asked(f"start_record?tag={encoded}").tag == tag


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("start_record?colour=red", (), "no argument colour"),
        ("start_record?=red", (), "no argument"),
        ("start_record?tag=1&tag=2", (), "tag is given twice"),
        ("start_record?tag=1&TAG=2", (), "tag is given twice"),
        ("start_record?tag=1", ("", "2"), "tag is given twice"),
        ("start_record?tag=1", ("tag=2",), "tag is given twice"),
        ("start_record?" + "tag=1&" * 21, (), "more than 20"),
        ("start_record?tag=" + "x" * 256, (), "256 characters"),
        ("start_record", ("1", "2", "3", "4"), "more than 3 arguments"),
        ("stop_the_world", (), "no program stop_the_world"),
        ("", (), "no program"),
        ("?tag=x", (), "no program"),
        ("start_record/more", (), "no program"),
        ("../start_record", (), "no program"),
        ("START_RECORD", (), "no program"),
        ("start%5Frecord", (), "no program"),
        ("${SHELL(x)}`x`", (), "no program ??SHELL?x???x?"),
    ],
)
def test_what_cannot_be_is_a_bad_argument_that_says_why(
    script: str, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(BadArgument) as refused:
        asked(script, *words)

    assert said in str(refused.value)
    assert refused.value.status == 400


Script = Callable[[str], tuple[str, tuple[str, ...]]]


@pytest.mark.parametrize(
    "script",
    [
        lambda key: (f"start_record?apiKey={key}", ()),
        lambda key: (f"start_record?tag=x&APIKEY={key}", ()),
        lambda key: (f"start_record?%61piKey={key}", ()),
        lambda key: (f"start_record?+apikey+={key}", ()),
        lambda key: ("start_record", (f"apiKey={key}",)),
    ],
)
def test_an_api_key_among_them_is_refused_and_told_to_nobody(tmp_path: Path, script: Script) -> None:
    site = Site(tmp_path)
    path, words = script(KEY)
    asterisk = asterisk_with(path, *words)

    report = session.run(asterisk.streams(), fastagi.invocation_of, site.surroundings)

    asterisk.check()
    answers = asterisk.answers()
    assert (answers["RECORDING_STATUS"], asterisk.mixmonitors) == ("400", [])
    assert "apiKey must not be an argument" in answers["RECORDING_MESSAGE"]
    assert KEY not in " ".join([*answers.values(), *asterisk.lines, str(report), site.texts()])


def test_a_request_is_recorded_like_any_other(tmp_path: Path) -> None:
    site = Site(tmp_path)
    asterisk = asterisk_with("start_record?tag=Gr%C3%BC%C3%9Fe", "800", "", "Fred")

    report = session.run(asterisk.streams(), fastagi.invocation_of, site.surroundings)

    asterisk.check()
    (leg,) = site.legs()
    assert (report.program, report.result.status) == ("start_record", 200)
    assert (leg.tag, leg.agent_login_name) == ("Grüße", "Fred")
