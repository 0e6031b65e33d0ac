"""The dialplan's arguments: every form of the contract, exact values, nothing cut, no key."""

from __future__ import annotations

import contextlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noojee_agi import text
from noojee_agi.actions import arguments
from noojee_agi.actions.arguments import Request
from noojee_agi.errors import BadArgument

NAMES = ("extenOrUniqueId", "tag", "agentLoginName")

FORMS = [
    ([], Request()),
    ([""], Request()),
    (["410"], Request("410")),
    (["410", "INV-22"], Request("410", "INV-22")),
    (["410", "INV-22", "Fred"], Request("410", "INV-22", "Fred")),
    (["", "INV-22"], Request("", "INV-22")),
    (["", "", "Fred"], Request("", "", "Fred")),
    (["410", "", "", ""], Request("410")),
    (["410", "INV-22", "Fred", "", ""], Request("410", "INV-22", "Fred")),
    (["extenOrUniqueId=410", "tag=INV-22", "agentLoginName=Fred"], Request("410", "INV-22", "Fred")),
    (["agentLoginName=Fred", "tag=INV-22", "extenOrUniqueId=410"], Request("410", "INV-22", "Fred")),
    (["AGENTLOGINNAME=Fred", "Tag=INV-22", "extenoruniqueid=410"], Request("410", "INV-22", "Fred")),
    (["410", "agentLoginName=Fred"], Request("410", "", "Fred")),
    (["agentLoginName=Fred", "410", "INV-22"], Request("410", "INV-22", "Fred")),
    (["410", "tag=INV-22", ""], Request("410", "INV-22")),
    (["410", "", "tag=INV-22"], Request("410", "INV-22")),
    (["tag=INV-22", "410", ""], Request("410", "INV-22")),
    (["tag="], Request()),
    (["410", "a=b"], Request("410", "a=b")),
    (["410", "order=7;x==y"], Request("410", "order=7;x==y")),
    (["410", "tag=a=b"], Request("410", "a=b")),
    (["410", "tag==b"], Request("410", "=b")),
    (["410", "=b"], Request("410", "=b")),
    (["410", "tag"], Request("410", "tag")),
    (["410", "INV 22, second part"], Request("410", "INV 22, second part")),
    (["410", " INV "], Request("410", " INV ")),
    ([" 410 "], Request("410")),
    (["1762420501.77"], Request("1762420501.77")),
    (["PJSIP/410"], Request("PJSIP/410")),
]


@pytest.mark.parametrize(("words", "request_"), FORMS)
def test_every_form_of_the_contract_is_read(words: list[str], request_: Request) -> None:
    assert arguments.parse(words) == request_


REFUSED = [
    ["410", "INV-22", "Fred", "too many"],
    ["410", "INV-22", "Fred", "", "too many"],
    ["410", "extenOrUniqueId=411"],
    ["tag=a", "TAG=b"],
    ["410", "INV-22", "tag=b"],
    ["410", "tag=b", "INV-22"],
]


@pytest.mark.parametrize("words", REFUSED)
def test_too_many_and_repeated_arguments_are_refused(words: list[str]) -> None:
    with pytest.raises(BadArgument):
        arguments.parse(words)


@pytest.mark.parametrize(("name", "limit"), [("extenOrUniqueId", 149), ("tag", 255), ("agentLoginName", 100)])
@pytest.mark.parametrize("character", ["x", "\u00fc", "\U0001f600"])
def test_a_value_at_its_limit_is_kept_and_one_over_it_is_refused(
    name: str, limit: int, character: str
) -> None:
    position = NAMES.index(name)

    for words in ([f"{name}={character * limit}"], [""] * position + [character * limit]):
        request = arguments.parse(words)
        values = (request.exten_or_uniqueid, request.tag, request.agent_login_name)
        assert values[position] == character * limit

    for words in ([f"{name}={character * (limit + 1)}"], [""] * position + [character * (limit + 1)]):
        with pytest.raises(BadArgument, match=rf"^{name} has {limit + 1} characters: {limit} are allowed"):
            arguments.parse(words)


@pytest.mark.parametrize("name", ["apiKey", "apikey", "APIKEY", "ApIkEy", " apiKey "])
@pytest.mark.parametrize("before", [[], ["410"], ["410", "INV-22", "Fred"], ["tag=x"]])
def test_a_key_among_the_arguments_is_refused_with_the_reason_and_without_the_key(
    name: str, before: list[str]
) -> None:
    with pytest.raises(BadArgument) as refused:
        arguments.parse([*before, f"{name}=s3cret"])

    assert "s3cret" not in str(refused.value)
    assert "ps and in the log" in str(refused.value)
    assert "channel variable" in str(refused.value)


@pytest.mark.parametrize(
    "words", [["s3cret" * 50], ["a", "b", "c", "s3cret"], ["tag=s3cret", "tag=s3cret"], ["", "s3cret" * 50]]
)
def test_no_refusal_repeats_a_value(words: list[str]) -> None:
    with pytest.raises(BadArgument) as refused:
        arguments.parse(words)

    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("control", ["\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\x80", "\x85", "\x9f"])
def test_a_control_character_becomes_a_blank(control: str) -> None:
    request = arguments.parse([f"4{control}10", f"a{control}b", f"agentLoginName=Fr{control}ed"])

    assert request == Request("4 10", "a b", "Fr ed")


@pytest.mark.parametrize(
    "text",
    [
        "M\u00fcller",
        "\u7530\u4e2d",
        "\U0001f600",
        "e\u0301",
        "\u00a0",
        "\u200f",
        "\ufffd",
        'a"b\\c',
        "${SHELL(id)}",
    ],
)
def test_whatever_is_no_control_character_is_kept_exactly(text: str) -> None:
    assert arguments.parse(["", text, text]) == Request("", text, text)


def _cleaned(text: str) -> str:
    return "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)


def _value(word: str) -> str:
    name, equals, value = word.partition("=")
    is_named = equals and name.strip().lower() in {known.lower() for known in NAMES}
    return value if is_named else word


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORDS = TEXTS | st.builds(
    "{}={}".format, st.sampled_from([*NAMES, "TAG", " tag ", "apiKey", "APIKEY", "x", ""]), TEXTS
)


@given(st.lists(WORDS, max_size=5))
def test_words_are_refused_or_every_one_of_them_is_kept_exactly(words: list[str]) -> None:
    try:
        request = arguments.parse(words)
    except BadArgument:
        return

    kept = [request.exten_or_uniqueid, request.tag, request.agent_login_name]
    wanted = [_cleaned(_value(word)).strip() for word in words]
    assert sorted(filter(None, (text.strip() for text in kept))) == sorted(filter(None, wanted))


@given(st.lists(st.text(max_size=300), max_size=6))
def test_nothing_but_a_bad_argument_is_ever_raised(words: list[str]) -> None:
    with contextlib.suppress(BadArgument):
        arguments.parse(words)


@given(TEXTS, TEXTS, TEXTS)
def test_names_and_positions_say_the_same(exten: str, tag: str, agent: str) -> None:
    by_name = arguments.parse([f"agentLoginName={agent}", f"tag={tag}", f"extenOrUniqueId={exten}"])

    assert by_name == Request(_cleaned(exten).strip(), _cleaned(tag), _cleaned(agent))


@pytest.mark.parametrize(
    ("said", "shown"),
    [("410", "410"), ("PJSIP/410", "PJSIP/410"), ("${SHELL(id)}", "??SHELL?id??"), ("a\nb", "a?b")],
)
def test_a_message_shows_only_what_nothing_acts_on(said: str, shown: str) -> None:
    assert text.plain(said) == shown


def test_a_message_shows_60_characters_of_a_value_at_most() -> None:
    assert text.plain("x" * 61) == "x" * 60
