"""What every answer has: Code and Message, and never an empty body."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from noojee_agi.actions.result import Result
from noojee_agi.errors import NoojeeError, StoreRejected, StoreUnavailable

OK, WARNING = 0, 1  # Code; of an error it is the status, negative

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
}
_NO_DATABASE = "the database does not answer this: noojee-agi check says why"


class Refused(Exception):
    """This request is not done. headers: what HTTP wants beside the status."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def refusal(exc: Refused | NoojeeError) -> JSONResponse:
    """The error as an answer; a database's own words, which name it, are for our log."""
    if isinstance(exc, Refused):
        return error(exc.status, str(exc), exc.headers)
    if isinstance(exc, StoreUnavailable | StoreRejected):
        return error(503, _NO_DATABASE)
    return error(exc.status, str(exc))


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"Code": -status, "Message": message}, status, headers)


def of_session(result: Result) -> JSONResponse:
    """RecordingId and File are there when a recording was tried, and else empty."""
    code = -result.status
    if result.status == 200:
        code = WARNING if result.has_remarks else OK
    content = {
        "Code": code,
        "Message": result.message,
        "RecordingId": result.leg_id,
        "File": result.file,
    }
    return JSONResponse(content, result.status)
