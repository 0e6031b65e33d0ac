"""One of dialplan-examples on a private Asterisk, for people: python -m lab.live_example [EXAMPLE].

The dialplan's steps as they happen, the call's legs as the database has them, and who is heard in them when.
At the end another call, which a program elsewhere has recorded by HTTP.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from lab import manager, scenes, tones
from lab.asterisk import AsteriskFailed, PrivateAsterisk
from lab.exchange import Exchange
from lab.postgresql import free_port
from lab.scenes import EXAMPLES, SCENES, TONES, Scene
from lab.served import Served
from lab.sip_phone import SipPhone
from lab.unavailable import LabUnavailable

USUAL = "inbound-queue"
_MORE = "exten => colleague,1,Dial(PJSIP/410)\n"
_START = "/servicemanager/rest/CallManagementAPI/start"
_STEP = re.compile(r"Executing \[(\S+)@([\w-]+):(\d+)\] (\w+)\(\"([^\"]*)\", \"(.*)\"\)")
_CONTEXT = re.compile(r"^\[([\w-]+)\]", re.MULTILINE)
_LOOK_SECONDS = 0.1
_BARS = " ▁▂▃▄▅▆▇█"
_LOUD = 0.25  # as the telephones' tones are, which fill a bar
_COLUMNS = 50


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dialplan-examples/run", description="One example on a private Asterisk."
    )
    parser.add_argument("example", nargs="?", default=USUAL, choices=SCENES, metavar="EXAMPLE", help=USUAL)
    parser.add_argument("--list", action="store_true", help="say which examples there are")
    given = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    if given.list:
        for name, scene in SCENES.items():
            console.print(f"{name:<22}{scene.says}")
        return 0
    try:
        return _show(console, given.example)
    except (LabUnavailable, AsteriskFailed, AssertionError) as exc:  # the last: waited in vain
        print(f"dialplan-examples/run: {exc}", file=sys.stderr)
        return 1


def _show(console: Console, name: str) -> int:
    scene = SCENES[name]
    with tempfile.TemporaryDirectory(prefix="noojee-agi-") as folder, ExitStack() as stack:
        made = scenes.exchange(None, {name: scene}, Path(folder), stack, _MORE)
        version = made.asterisk.installation.version
        console.print(f"Asterisk {version}, dialplan-examples/{name}.conf: {scene.says}\n")
        with _Steps(console, made.asterisk, (EXAMPLES / f"{name}.conf").read_text()):
            legs = scenes.play(made, scene)
        console.print()
        console.print(_call(legs))
        for leg in legs:
            console.print(_leg(leg))
        status = _verdict(console, scene, legs)
        return _by_http(console, made) or status


class _Steps:
    """Prints what the contexts of the example execute, while the block runs."""

    def __init__(self, console: Console, asterisk: PrivateAsterisk, dialplan: str) -> None:
        self._console = console
        self._asterisk = asterisk
        self._contexts = {"telephones", *_CONTEXT.findall(dialplan)}  # in theirs stands what that includes
        self._printed = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            self._print()
        self._print()

    def _print(self) -> None:
        steps = [step for step in _STEP.findall(self._asterisk.log()) if step[1] in self._contexts]
        for extension, context, priority, application, _, words in steps[self._printed :]:
            place = f"{extension}@{context}:{priority}"
            self._console.print(f"  [dim]{escape(place):<34}[/] {application}({escape(words)})")
        self._printed = len(steps)


def _call(legs: Sequence[Mapping[str, Any]]) -> Table:
    names = ("call_uniqueid", "source", "destination", "external_reference")
    table = Table("uniqueid", "source", "destination", "External Reference", title="The call record")
    for call in {tuple(leg[name] for name in names): None for leg in legs}:
        table.add_row(*map(escape, call))
    return table


def _leg(leg: Mapping[str, Any]) -> Table:
    title = f"Leg {leg['leg']}: {leg['id']}"
    table = Table(Column(), Column(overflow="fold"), title=title, show_header=False)
    for name in ("status", "owner", "tag", "extension", "channel", "duration_seconds", "file"):
        table.add_row(name, escape(str(leg[name])))
    for party, hertz in TONES.items():
        table.add_row(f"{party}, {hertz} Hz", _picture(tones.levels(Path(leg["file"]), hertz)))
    return table


def _picture(levels: Sequence[float]) -> str:
    """A bar for each 100 ms, or for as many of them as there is room for."""
    each = -(-len(levels) // _COLUMNS) or 1
    bars = [max(levels[start : start + each]) for start in range(0, len(levels), each)]
    return "".join(_BARS[round(min(1.0, level / _LOUD) * (len(_BARS) - 1))] for level in bars)


def _by_http(console: Console, made: Exchange[SipPhone]) -> int:
    """411 calls 410, and somebody without a telephone has it recorded."""
    options = {**manager.options(made.port), "http.listen": f"127.0.0.1:{free_port()}"}
    with Served(made.site, options) as served:
        made.phones["411"].dial("colleague")
        made.wait_bridged("410")
        words = f"{_START}?extenOrUniqueId=410&tag=INV-23&agentLoginName=Ann"
        console.print(f"\n411 calls 410, and a program starts a recording by HTTP:\n\n  POST {escape(words)}")
        answer = _post(served.http + words, made.site.key)
        console.print_json(data=answer)
        if answer["Code"] == 0:
            made.wait_for_audio(answer["File"], 1)
        made.end()
        legs = made.site.wait_for_legs("--tag", "INV-23", status="completed") if answer["Code"] == 0 else []
    console.print()
    for leg in legs:
        console.print(_leg(leg))
    console.print("[green]It was recorded.[/]" if legs else "[red]IT WAS NOT RECORDED: see above.[/]")
    return 0 if legs else 1


def _post(url: str, key: str) -> dict[str, Any]:
    """What it answers, also to what it refuses."""
    request = urllib.request.Request(url, b"", {"X-Api-Key": key})
    try:
        with urllib.request.urlopen(request) as reply:
            return dict(json.load(reply))
    except urllib.error.HTTPError as refusal:
        return dict(json.load(refusal))


def _verdict(console: Console, scene: Scene, legs: Sequence[Mapping[str, Any]]) -> int:
    is_as_expected = bool(legs) and all(leg["status"] == "completed" for leg in legs)
    if scene.legs:
        is_as_expected = is_as_expected and tuple(map(scenes.seen, legs)) == scene.legs
    if is_as_expected:
        console.print("\n[green]The call was recorded: everybody is heard, and the owner is right.[/]")
        return 0
    console.print("\n[red]SOMETHING IS WRONG: see above.[/]")
    return 1


if __name__ == "__main__":
    sys.exit(main())
