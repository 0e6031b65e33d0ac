"""A leg's audio, whole or a range of it; whoever gets some is noted first."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from noojee_agi.config import Config
from noojee_agi.database import queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError, NotAllowed
from noojee_agi.recordings import disk, recording
from noojee_agi.recordings.recording import DOWNLOADED, Access
from noojee_agi.web import mounted, ranges
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
_PIECE_BYTES = 65536
_SAME_SECONDS = 60.0  # in which all pieces of one listening are noted once
_MOST_LISTENINGS = 10_000


class _File(NamedTuple):
    """An open file, as long as it was then: one that is being recorded grows."""

    content: BinaryIO
    size: int
    etag: str


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
        config = self._services.config()
        file = await self._services.in_session(lambda: _opened(path, config))
        if file is None:
            raise Refused(404, "the audio is not on this machine: the leg's metadata names its server")
        try:
            part = ranges.of(request.headers, file.size, file.etag)
            await self._note(request, leg["id"], login, is_allowed=True)
        except (Refused, NoojeeError):
            file.content.close()
            raise
        return self._answer(request, path, file, part)

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

    def _answer(self, request: Request, path: str, file: _File, part: range | None) -> Response:
        sent = range(file.size) if part is None else part
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Disposition": f'attachment; filename="{os.path.basename(path)}"',
            "Content-Length": str(len(sent)),
            "ETag": file.etag,
        }
        if part is not None:
            headers["Content-Range"] = f"bytes {sent.start}-{sent.stop - 1}/{file.size}"
        status, kind = 200 if part is None else 206, TYPES.get(path.rpartition(".")[2], OTHER_TYPE)
        if request.method == "HEAD":
            file.content.close()
            return Response(None, status, headers, kind)
        return StreamingResponse(self._pieces(file.content, sent), status, headers, kind)

    async def _pieces(self, file: BinaryIO, wanted: range) -> AsyncIterator[bytes]:
        """Raises NoojeeError when the disk hangs."""
        with file:
            for begin in range(wanted.start, wanted.stop, _PIECE_BYTES):
                length = min(_PIECE_BYTES, wanted.stop - begin)
                yield await self._services.in_session(lambda: _read(file, begin, length))  # noqa: B023


def _path(leg: Mapping[str, Any]) -> str:
    """Raises Refused when there is none."""
    if leg["purged_at"]:
        raise Refused(410, "the audio was purged")
    path = str(leg["file"])
    if leg["status"] == "failed" or not recording.is_ours(path):
        raise Refused(404, "this leg has no audio: it never began")
    return path


@disk.bounded()
def _opened(path: str, config: Config) -> _File | None:
    """None when there is no such file. Raises DiskSilent, also when its disk is away."""
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115
    except OSError:
        mounted.require(path, config)
        return None
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode):
        file.close()
        return None
    return _File(file, about.st_size, f'"{about.st_mtime_ns:x}-{about.st_size:x}"')


@disk.bounded()
def _read(file: BinaryIO, begin: int, length: int) -> bytes:
    """Raises DiskSilent, and NoojeeError when so much is not there any more."""
    piece = os.pread(file.fileno(), length, begin)
    if len(piece) < length:
        raise NoojeeError(f"{file.name} has become shorter")
    return piece
