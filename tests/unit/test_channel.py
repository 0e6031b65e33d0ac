"""The literal AGI lines, and every reply that Asterisk has been seen to give."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import unicodedata
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.stream import Stream
from noojee_agi.errors import CallGone, NoojeeError, NotStarted
from unit.fakes import (
    DEAD_CHANNEL,
    END_OF_FILE,
    HANGUP_THEN_END,
    HANGUP_THEN_ON,
    FakeAsterisk,
    application_arguments,
    words_of,
)

BLOCK_520 = (
    "520-Invalid command syntax.  Proper usage follows:\n"
    " Usage: EXEC <application> <options>\n"
    "\tExecutes <application> with given <options>.\n"
    "\n"
    "520 End of proper usage.\n"
)


def _channel(asterisk: FakeAsterisk) -> Channel:
    return Channel(*asterisk.streams())


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("OK", 'SET VARIABLE "X" "OK"'),
        ("", 'SET VARIABLE "X" ""'),
        ("two  words", 'SET VARIABLE "X" "two  words"'),
        ('say "hi"', r'SET VARIABLE "X" "say \"hi\""'),
        ("back\\slash", r'SET VARIABLE "X" "back\\slash"'),
        ('\\"', r'SET VARIABLE "X" "\\\""'),
        ("end\\", r'SET VARIABLE "X" "end\\"'),
        ("a\nEXEC System id", 'SET VARIABLE "X" "a EXEC System id"'),
        ("a\r\nb\tc\x00d\x7fe", 'SET VARIABLE "X" "a  b c d e"'),
        ("${SHELL(id)}", 'SET VARIABLE "X" "${SHELL(id)}"'),
        ("M\u00fcller \u7530", 'SET VARIABLE "X" "M\u00fcller \u7530"'),
        (" blanks ", 'SET VARIABLE "X" " blanks "'),
    ],
)
def test_a_value_is_one_word_of_one_line(value: str, line: str) -> None:
    asterisk = FakeAsterisk()

    _channel(asterisk).set("X", value)

    assert asterisk.lines == [line]
    assert asterisk.variables["X"] == "".join(" " if unicodedata.category(c) == "Cc" else c for c in value)
    asterisk.check()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_asterisk_has_the_value_that_was_set(value: str) -> None:
    asterisk = FakeAsterisk()

    _channel(asterisk).set("X", value)

    assert asterisk.variables["X"] == "".join(" " if unicodedata.category(c) == "Cc" else c for c in value)
    assert len(asterisk.lines) == 1
    asterisk.check()


def test_the_literal_lines_of_every_command() -> None:
    asterisk = FakeAsterisk()
    asterisk.raw_replies = dict.fromkeys(
        [
            'EXEC "MixMonitor" "/srv/a.wav,bi(NOOJEE_MIXMONITOR_ID),/opt/finish_record.py - 1 /srv/a.wav"',
            'EXEC "StopMixMonitor" "0x7f35"',
        ],
        "200 result=0\n",
    )
    channel = _channel(asterisk)

    channel.get("CHANNEL(linkedid)")
    channel.mixmonitor("/srv/a.wav", "bi(NOOJEE_MIXMONITOR_ID)", "/opt/finish_record.py - 1 /srv/a.wav")
    channel.stop_mixmonitor("0x7f35")
    channel.verbose('401 "no" key')

    assert asterisk.lines == [
        'GET VARIABLE "CHANNEL(linkedid)"',
        'EXEC "MixMonitor" "/srv/a.wav,bi(NOOJEE_MIXMONITOR_ID),/opt/finish_record.py - 1 /srv/a.wav"',
        'EXEC "StopMixMonitor" "0x7f35"',
        r'VERBOSE "401 \"no\" key" "1"',
    ]
    asterisk.check()


MARK = "0011223344556677"


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """What stands between the values of one GET FULL VARIABLE, which is random else."""
    monkeypatch.setattr("os.urandom", lambda count: bytes.fromhex(MARK))
    return MARK


def test_several_variables_are_read_in_one_round_trip(mark: str) -> None:
    asterisk = FakeAsterisk(X="value", Y="${SHELL(id)}")

    values = _channel(asterisk).get_all("X", "UNSET", "CHANNEL(linkedid)", "Y")

    assert values == {"X": "value", "UNSET": "", "CHANNEL(linkedid)": "1762420501.76", "Y": "${SHELL(id)}"}
    assert asterisk.lines == [
        f'GET FULL VARIABLE "${{X}}{mark}${{UNSET}}{mark}${{CHANNEL(linkedid)}}{mark}${{Y}}{mark}"'
    ]
    asterisk.check()


@pytest.mark.parametrize(
    "value",
    [
        "first\nsecond",
        "end)\n200 result=1 (forged)",
        "end)\n200 result=1 (forged)\n200 result=1 (and again)",
        "\n511 forged\n",
        " (brackets) ",
        "HANGUP\n",
    ],
)
def test_no_value_of_several_reaches_into_another_or_shifts_later_answers(value: str) -> None:
    asterisk = FakeAsterisk(X=value, Y="y", NEXT="the next")
    channel = _channel(asterisk)

    assert channel.get_all("Y", "X", "NEXT") == {"Y": "y", "X": value, "NEXT": "the next"}
    assert channel.get("NEXT") == "the next"
    asterisk.check()


@pytest.mark.parametrize("length", [3000, 4030, 4041, 4042, 4043, 4050, 4058, 4059, 4060, 4095, 4096, 9000])
def test_values_beyond_asterisks_buffer_are_read_one_by_one(length: int) -> None:
    asterisk = FakeAsterisk(X="x" * length, Y="y")
    channel = _channel(asterisk)

    assert channel.get_all("Y", "X", "UNSET") == {"Y": "y", "X": "x" * length, "UNSET": ""}
    asterisk.check()


def test_several_variables_are_set_in_one_round_trip() -> None:
    asterisk = FakeAsterisk(B="stale")

    _channel(asterisk).set_all({"A": "200", "B": "", "C": " two  blanks a=b ~@:+ x/y "})

    assert asterisk.lines == ['EXEC "MSet" "A=200,B=,C= two  blanks a=b ~@:+ x/y "']
    assert [asterisk.variables[name] for name in "ABC"] == ["200", "", " two  blanks a=b ~@:+ x/y "]
    asterisk.check()


@pytest.mark.parametrize(
    "value", ["a,B=b", 'say "hi"', "back\\", "(", "[", "${SHELL(id)}", "M\u00fcller", "a\nb"]
)
def test_what_an_argument_parser_would_act_on_is_set_by_itself(value: str) -> None:
    asterisk = FakeAsterisk()

    _channel(asterisk).set_all({"A": "200", "X": value})

    assert asterisk.variables["A"] == "200"
    assert asterisk.variables["X"] == value.replace("\n", " ")
    assert [line.partition(" ")[0] for line in asterisk.lines] == ["EXEC", "SET"]
    asterisk.check()


def test_the_environment_describes_the_channel() -> None:
    channel = _channel(FakeAsterisk())

    assert channel.name == "PJSIP/trunk-a-0000001f"
    assert channel.uniqueid == "1762420501.77"
    assert channel.extension == "800"
    assert channel.did == "4930800"
    assert channel.caller == "0301234567"


def test_unknown_in_the_environment_is_empty() -> None:
    environment = dict.fromkeys(("agi_extension", "agi_dnid", "agi_callerid"), "unknown")

    channel = _channel(FakeAsterisk(environment))

    assert (channel.extension, channel.did, channel.caller, channel.name, channel.uniqueid) == ("",) * 5


def test_a_colon_in_an_environment_value_and_a_line_without_one_do_no_harm() -> None:
    reader = io.StringIO("agi_channel: SIP/a:b-1\na line of nothing\nagi_uniqueid: 1.2\n\n")

    channel = Channel(reader, io.StringIO())

    assert (channel.name, channel.uniqueid) == ("SIP/a:b-1", "1.2")


def test_an_environment_may_have_line_ends_of_the_network_and_lines_that_are_none_of_it() -> None:
    reader = io.StringIO(
        "agi_channel:SIP/1-1\r\nHANGUP\r\nagi_arg_1:  two blanks \r\n\r\nagi_uniqueid: 6.6\n\n"
    )

    channel = Channel(reader, io.StringIO())

    assert channel.environment == {"agi_channel": "SIP/1-1", "agi_arg_1": " two blanks "}


def test_an_absurdly_long_value_in_the_environment_is_cut_to_a_columns_width() -> None:
    assert len(_channel(FakeAsterisk({"agi_callerid": "9" * 5000})).caller) == 255


def test_what_comes_first_in_the_environment_counts() -> None:
    reader, writer = io.StringIO("agi_uniqueid: 1.2\nagi_uniqueid: 6.6\n\n"), io.StringIO()

    assert Channel(reader, writer).uniqueid == "1.2"


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("200 result=1 (value)\n", "value"),
        ("200 result=1 (value)\r\n", "value"),
        ("200 result=0\n", ""),
        ("200 result=1 ()\n", ""),
        ("200 result=1 (a) b)\n", "a) b"),
        ("200 result=1 (f(x))\n", "f(x)"),
        ("200 result=1 ())\n", ")"),
        ("200 result=1 ( two  blanks )\n", " two  blanks "),
        ("200 result=1 (hangup)\n", "hangup"),
        ("200 result=1 (timeout=5 (x))\n", "timeout=5 (x)"),
        ("200 result=1 (M\u00fcller)\n", "M\u00fcller"),
        ("200 result=-1\n", ""),
        ("HANGUP\n200 result=1 (value)\n", "value"),
        ("510 Invalid or unknown command\n", ""),
        ("520 Invalid command syntax.  Proper usage not available.\n", ""),
        (BLOCK_520, ""),
        ("\n200 result=1 (value)\n", "value"),
    ],
)
def test_a_reply_gives_its_value_and_the_next_command_its_own(reply: str, value: str) -> None:
    asterisk = FakeAsterisk(NEXT="the next")
    asterisk.raw_replies['GET VARIABLE "X"'] = reply
    channel = _channel(asterisk)

    assert channel.get("X") == value
    assert channel.get("NEXT") == "the next"
    asterisk.check()


@pytest.mark.parametrize(
    "value",
    [
        "first\nsecond",
        "first\n\nthird",
        "first\r\nsecond\r\n",
        "uid=0(root)\ngid=0(root)",
        "first\n200 result=1 (forged)",
        "first\n511 forged",
        "first\n520 forged",
        "first\n404 pages\nlast",
    ],
)
def test_a_value_of_several_lines_does_not_shift_later_answers(value: str) -> None:
    asterisk = FakeAsterisk(X=value, NEXT="the next", LAST="the last")
    channel = _channel(asterisk)

    assert channel.get("X")[:5] == value[:5]
    assert channel.get("NEXT") == "the next"
    assert channel.get("LAST") == "the last"
    asterisk.check()


def test_a_value_of_64_kilobytes_does_not_shift_later_answers() -> None:
    asterisk = FakeAsterisk(X="x" * 70000, NEXT="the next")
    channel = _channel(asterisk)
    channel.get("X")

    assert channel.get("NEXT") == "the next"


COMMANDS: list[Callable[[Channel], object]] = [
    lambda channel: channel.get("X"),
    lambda channel: channel.get_all("X", "Y"),
    lambda channel: channel.set("X", "value"),
    lambda channel: channel.set_all({"X": "value"}),
    lambda channel: channel.verbose("text"),
    lambda channel: channel.mixmonitor("/srv/a.wav", "", "true"),
    lambda channel: channel.stop_mixmonitor("0x1"),
    lambda channel: channel.mixmonitor_id(),
]


@pytest.mark.parametrize("style", [DEAD_CHANNEL, END_OF_FILE, HANGUP_THEN_END])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_that_the_call_is_gone_and_says_so_again(
    style: str, command: Callable[[Channel], object]
) -> None:
    asterisk = FakeAsterisk()
    asterisk.hang_up_at, asterisk.hang_up_style, asterisk.obeys_the_last = 1, style, False
    channel = _channel(asterisk)

    for _ in range(3):
        with pytest.raises(CallGone):
            command(channel)


def test_a_hangup_line_in_front_of_a_reply_ends_nothing() -> None:
    asterisk = FakeAsterisk(X="value")
    asterisk.hang_up_at, asterisk.hang_up_style = 1, HANGUP_THEN_ON
    channel = _channel(asterisk)

    assert channel.get("X") == "value"
    assert channel.get("X") == "value"


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_an_end_within_a_520_block_is_the_end_of_the_call(keep: int) -> None:
    begin = "".join(BLOCK_520.splitlines(keepends=True)[:keep])
    channel = Channel(io.StringIO("agi_x: y\n\n" + begin), io.StringIO())

    with pytest.raises(CallGone):
        channel.get("X")


@pytest.mark.parametrize("text", ["", "agi_channel: SIP/1-1\n", "agi_channel: SIP/1-1\nagi_uniq", "agi_a: b"])
def test_an_environment_that_is_cut_off_is_the_end_of_the_call(text: str) -> None:
    with pytest.raises(CallGone):
        Channel(io.StringIO(text), io.StringIO())


class _Endless(io.TextIOBase):
    """A peer that goes on and on; it counts, so that a program which never gives up fails the test."""

    def __init__(self, begin: str, line: str) -> None:
        self._begin = begin
        self._line = line
        self._count = 0

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        self._count += 1
        assert self._count < 100_000, "the program reads for ever"
        head, _, self._begin = self._begin.partition("|")
        return head or self._line


@pytest.mark.parametrize("line", ["agi_x: y\n", "no colon\n", "x" * 65536])
def test_an_endless_environment_is_given_up(line: str) -> None:
    with pytest.raises(CallGone):
        Channel(_Endless("", line), io.StringIO())


@pytest.mark.parametrize("lines", [499, 500])
def test_an_environment_has_499_lines_and_its_end_at_most(lines: int) -> None:
    reader = io.StringIO("agi_x: y\n" * lines + "\n")

    with pytest.raises(CallGone) if lines == 500 else contextlib.nullcontext():
        Channel(reader, io.StringIO())


@pytest.mark.parametrize("line", ["HANGUP\n", "520-Usage\n", "\n", "x" * 65536])
def test_endless_lines_without_a_reply_are_given_up(line: str) -> None:
    channel = Channel(_Endless("agi_x: y\n|\n|", line), io.StringIO())

    with pytest.raises(CallGone):
        channel.get("X")


@pytest.mark.parametrize(
    "reply", ["junk\n", "200\n", "200 ok\n", "-1\n", "999 x\n", "result=1\n", "200result=1\n"]
)
def test_junk_is_no_value_and_no_other_failure_than_a_call_that_is_gone(reply: str) -> None:
    channel = Channel(io.StringIO("agi_x: y\n\n" + reply), io.StringIO())

    with contextlib.suppress(CallGone):
        assert channel.get("X") == ""


def test_an_asterisk_without_mixmonitor_is_said_as_such() -> None:
    asterisk = FakeAsterisk()
    asterisk.has_mixmonitor = False

    with pytest.raises(NotStarted, match=r"has no MixMonitor: load app_mixmonitor\.so"):
        _channel(asterisk).mixmonitor("/srv/a.wav", "", "true")


@pytest.mark.parametrize(
    ("value", "mixmonitor_id"),
    [
        ("0x7f3500000001", "0x7f3500000001"),
        ("", ""),
        ("0x", ""),
        ("7f35", ""),
        ("0x12,more", ""),
        ("0x12 ", ""),
        ("${SHELL(id)}", ""),
    ],
)
def test_only_an_id_of_asterisks_own_making_is_taken_for_one(value: str, mixmonitor_id: str) -> None:
    asterisk = FakeAsterisk(NOOJEE_MIXMONITOR_ID=value)

    assert _channel(asterisk).mixmonitor_id() == mixmonitor_id


def _value_for_a_line_of(length: int) -> str:
    return "x" * (length - len('SET VARIABLE "X" ""'))


@pytest.mark.parametrize("length", [2045, 2046, 2047, 2048, 9000])
def test_a_command_arrives_as_one_line_or_is_refused(length: int) -> None:
    """What is over Asterisk's buffer (2047 bytes, the line's end among them) runs as a second command."""
    asterisk = FakeAsterisk(NEXT="the next")
    channel = _channel(asterisk)

    with contextlib.suppress(NoojeeError):
        channel.set("X", _value_for_a_line_of(length))

    assert asterisk.complaints == []
    assert channel.get("NEXT") == "the next"
    asterisk.check()


def test_the_limit_of_a_command_counts_bytes_and_allows_what_fits() -> None:
    asterisk = FakeAsterisk()
    channel = _channel(asterisk)

    channel.set("X", _value_for_a_line_of(2046))
    with pytest.raises(NoojeeError, match=r"limit of 20\d\d bytes"):
        channel.set("X", "\u00fc" * 1024)

    assert [len(line) for line in asterisk.lines] == [2046]


def test_nothing_is_ever_written_to_stderr_or_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    asterisk = FakeAsterisk(X="value")
    asterisk.raw_replies['GET VARIABLE "Y"'] = BLOCK_520
    channel = _channel(asterisk)
    channel.get("apiKey")
    channel.get("Y")
    channel.set("X", "text")
    asterisk.hang_up_at = 4
    with pytest.raises(CallGone):
        channel.get("X")

    assert capsys.readouterr() == ("", "")


def test_the_handler_of_sighup_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGHUP)

    _channel(FakeAsterisk())

    assert signal.getsignal(signal.SIGHUP) == before


@contextlib.contextmanager
def _standard_descriptors(from_asterisk: bytes) -> Iterator[int]:
    """Pipes in place of 0 and 1; gives the end at which our output can be read."""
    reading, asterisk_writes = os.pipe()
    asterisk_reads, writing = os.pipe()
    os.write(asterisk_writes, from_asterisk)
    os.close(asterisk_writes)
    saved = [os.dup(descriptor) for descriptor in (0, 1)]
    os.dup2(reading, 0)
    os.dup2(writing, 1)
    try:
        yield asterisk_reads
    finally:
        for descriptor, copy in enumerate(saved):
            os.dup2(copy, descriptor)
        for descriptor in (*saved, reading, writing, asterisk_reads):
            os.close(descriptor)


def test_a_callers_name_in_another_encoding_does_not_stop_us() -> None:
    sent = b"agi_callerid: M\xfcller\nagi_uniqueid: 1.2\n\n200 result=1 (\xff\xe9)\n200 result=1\n"

    with _standard_descriptors(sent) as asterisk_reads:
        stream = Stream(0, 1)
        channel = Channel(stream, stream)
        value = channel.get("X")
        channel.set("Y", "\u00fc\udc80")
        received = os.read(asterisk_reads, 4096)

    assert (channel.caller, channel.uniqueid, value) == ("M\ufffdller", "1.2", "\ufffd\ufffd")
    assert received == b'GET VARIABLE "X"\nSET VARIABLE "Y" "\xc3\xbc?"\n'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("GET VARIABLE x", ["GET", "VARIABLE", "x"]),
        ('SET  VARIABLE\t"a b" ""', ["SET", "VARIABLE", "a b", ""]),
        (r'X "a\"b\\c" d\ e "f"g', ["X", 'a"b\\c', "d e", "fg"]),
        ('X "a b', ["X", "a b"]),
        ("", []),
    ],
)
def test_the_fake_reads_words_as_asterisk_does(line: str, words: list[str]) -> None:
    assert words_of(line) == words


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("a.wav,b,touch x,y", ["a.wav", "b", "touch x,y"]),
        ("a.wav,,", ["a.wav", "", ""]),
        ("paren(a,b.wav,b", ["paren(a,b.wav,b"]),
        ('a\\,b,"c,d",e', ["a,b", "c,d", "e"]),
    ],
)
def test_the_fake_splits_arguments_as_asterisk_does(text: str, arguments: list[str]) -> None:
    assert application_arguments(text, 3) == arguments


@pytest.mark.parametrize(("value", "is_seen"), [("1", True), ("0", False)])
def test_asterisk_tells_whether_it_sees_a_file(
    monkeypatch: pytest.MonkeyPatch, value: str, is_seen: bool
) -> None:
    asterisk = FakeAsterisk()
    _answer_stat(asterisk, monkeypatch, value)

    assert _channel(asterisk).sees_file("/recordings/a.wav") is is_seen


def test_an_asterisk_without_stat_says_what_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    asterisk = FakeAsterisk()
    _answer_stat(asterisk, monkeypatch, "")

    with pytest.raises(NotStarted, match=r"func_env\.so"):
        _channel(asterisk).sees_file("/recordings/a.wav")


def _answer_stat(asterisk: FakeAsterisk, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """STAT() of /recordings/a.wav; an unknown function's value is empty (pbx_functions.c)."""
    monkeypatch.setattr(os, "urandom", lambda size: b"mark")
    mark = b"mark".hex()
    line = f'GET FULL VARIABLE "${{STAT(e,/recordings/a.wav)}}{mark}"'
    asterisk.raw_replies[line] = f"200 result=1 ({value}{mark})\n"
