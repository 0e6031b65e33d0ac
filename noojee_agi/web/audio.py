"""A leg's audio, whole or in ranges; whoever gets some is noted first."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from noojee_agi.database import queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.errors import NotAllowed
from noojee_agi.recordings import disk, recording
from noojee_agi.recordings.recording import DOWNLOADED, Access
from noojee_agi.web import answers
from noojee_agi.web.admission import Admission, address_of
from noojee_agi.web.answers import Refused
from noojee_agi.web.services import Services

PATH = "/recordings/{leg_id}/audio"
LOGIN = "agentLoginName"
# By the suffix of a file; any other is application/octet-stream. Of Asterisk's raw formats these have a
# registered name (RFC 3551, RFC 2046); signed linear is little-endian here, and so is not audio/L16.
TYPES = {
    **dict.fromkeys(("wav", "WAV", "wav16"), "audio/wav"),
    **dict.fromkeys(("ulaw", "ul", "mu", "pcm"), "audio/basic"),
    **dict.fromkeys(("alaw", "al"), "audio/PCMA"),
    **{"gsm": "audio/GSM", "g722": "audio/G722", "g729": "audio/G729", "ilbc": "audio/iLBC"},
    **{"ogg": "audio/ogg", "opus": "audio/ogg", "mp3": "audio/mpeg"},
}
OTHER_TYPE = "application/octet-stream"
_SAME_SECONDS = 60.0  # in which all pieces of one listening are noted once
_MOST_LISTENINGS = 10_000


class Audio:
    def __init__(self, services: Services, admission: Admission) -> None:
        self._services = services
        self._admission = admission
        self._noted: dict[tuple[str, str, str], float] = {}  # the last one is the latest

    async def send(self, request: Request) -> Response:
        given = await self._admission.arguments(request, (LOGIN,))
        login = given.get(LOGIN).strip()
        leg, may_hear = await self._leg(request.path_params["leg_id"], login)
        if not may_hear:
            await self._note(request, leg["id"], login, is_allowed=False)
            raise NotAllowed(f"this {LOGIN} may not hear the leg")
        path = _path(leg)
        about = await self._services.in_session(lambda: _about(path))
        if about is None:
            raise Refused(404, "the audio is not on this machine: the leg's metadata names its server")
        await self._note(request, leg["id"], login, is_allowed=True)
        suffix = path.rpartition(".")[2]
        return _File(
            path,
            media_type=TYPES.get(suffix, OTHER_TYPE),
            filename=os.path.basename(path),
            stat_result=about,
        )

    async def _leg(self, leg_id: str, login: str) -> tuple[Mapping[str, Any], bool]:
        """The leg, and whether that account may hear it. Without one the key is enough. Raises Refused."""
        if not recording.is_id(leg_id):
            raise Refused(404, "a leg's id is what start has answered as RecordingId")

        def found(store: Store) -> tuple[list[dict[str, Any]], bool]:
            with store.reading() as connection:
                legs = list(queries.legs(connection, Filter(leg_id=leg_id)))
                own = queries.legs(connection, Filter(leg_id=leg_id, heard_by=login)) if login else legs
                return legs, bool([*own])

        legs, may_hear = await self._services.of_database(found)
        if not legs:
            raise Refused(404, "there is no such leg; one that has just begun is known a second later")
        return legs[0], may_hear

    async def _note(self, request: Request, leg_id: str, login: str, is_allowed: bool) -> None:
        """A player asks for many pieces: within a minute that is one listening. HEAD gives nothing away."""
        if request.method == "HEAD":
            return
        address, now = address_of(request), time.monotonic()
        listening = (leg_id, login, f"{address} {is_allowed}")
        last = self._noted.pop(listening, -_SAME_SECONDS)
        if now - last >= _SAME_SECONDS:
            noted = Access(
                recording.new_id(), leg_id, recording.now(), login, DOWNLOADED, is_allowed, f"HTTP {address}"
            )
            await self._services.in_session(lambda: self._services.note(noted))
            last = now
        self._noted[listening] = last
        while len(self._noted) > _MOST_LISTENINGS:
            del self._noted[next(iter(self._noted))]


class _File(FileResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = _Sending(send)
        await super().__call__(scope, receive, sending)
        if sending.refused:
            await self._refusal(sending.refused)(scope, receive, send)

    def _refusal(self, status: int) -> Response:
        size = self.stat_result.st_size if self.stat_result else 0
        if status == 416:
            message = f"the file has {size} bytes, and none in this range"
            return answers.error(416, message, {"Content-Range": f"bytes */{size}"})
        return answers.error(status, "Range cannot be read: write it as bytes=0-65535")


class _Sending:
    """As much as was announced: a file that is being recorded has grown since. refused: the status, or 0.

    What the framework refuses is not sent, since it has no body, or one that is not ours.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._left = 0
        self.refused = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.refused = message["status"] if message["status"] >= 400 else 0
            self._left = int(dict(message["headers"]).get(b"content-length", 0))
        if self.refused:
            return
        if message["type"] == "http.response.body":
            body = message.get("body", b"")[: self._left]
            self._left -= len(body)
            message = {**message, "body": body}
        await self._send(message)


def _path(leg: Mapping[str, Any]) -> str:
    """Raises Refused when there is none."""
    if leg["purged_at"]:
        raise Refused(410, "the audio was purged")
    path = str(leg["file"])
    if leg["status"] == "failed" or not recording.is_ours(path):
        raise Refused(404, "this leg has no audio: it never began")
    return path


@disk.bounded()
def _about(path: str) -> os.stat_result | None:
    """None when there is no such file. Raises DiskSilent."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about if stat.S_ISREG(about.st_mode) else None
