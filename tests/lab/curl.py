"""curl, as a sysadmin runs it: a program of its own, told by its standard input, so that ps shows no key."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lab.unavailable import LabUnavailable

PATIENCE_SECONDS = 20
_ALWAYS = ("--silent", "--show-error", "--include", "--noproxy", "*", "--max-time", str(PATIENCE_SECONDS))


class CurlFailed(Exception):
    """There was no answer."""


class Answer(NamedTuple):
    """headers: by their names in small letters."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.content)
        return body


def curl(url: str, **options: str | Sequence[str] | bool) -> Answer:
    """options: long ones of curl; a list is given several times: `data_urlencode=["a=1", "b=2"]`.

    Raises CurlFailed and LabUnavailable.
    """
    program = shutil.which("curl")
    if not program:
        raise LabUnavailable("there is no curl on this machine: install it")
    told = subprocess.run(
        [program, *_ALWAYS, "--config", "-"],
        input=_configuration({"url": url, **options}).encode(),
        capture_output=True,
        check=False,
    )
    if told.returncode:
        raise CurlFailed(f"{url.partition('?')[0]}: {told.stderr.decode()}")
    return _answer(told.stdout)


def _configuration(options: Mapping[str, str | Sequence[str] | bool]) -> str:
    lines = []
    for name, value in options.items():
        option = name.replace("_", "-")
        if value is True:
            lines.append(option)
        elif value is not False:
            for each in [value] if isinstance(value, str) else value:
                quoted = each.replace("\\", "\\\\").replace('"', '\\"')
                lines.append(f'{option} = "{quoted}"')
    return "\n".join(lines) + "\n"


def _answer(said: bytes) -> Answer:
    """The last one: before it there may be `100 Continue`."""
    head, _, content = said.partition(b"\r\n\r\n")
    while head.split()[1].startswith(b"1"):
        head, _, content = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), {name.lower(): value for name, value in pairs}, content)
