"""A CRM, as somebody has written it who had the manual page of the API, and nothing else."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

CALLS = "/servicemanager/rest/CallManagementAPI/"
RECORDINGS = "/njadmin/rest/RecordingAPI/"


class Crm:
    """Starts, stops and finds recordings. Each method returns (HTTP status, parsed JSON)."""

    def __init__(
        self, base_url: str, api_key: str, context: ssl.SSLContext | None = None, timeout: float = 10.0
    ) -> None:
        self._base = base_url.rstrip("/")
        self._key = api_key
        self._context = context
        self._timeout = timeout

    def start(
        self, exten_or_uniqueid: str, tag: str | None = None, agent_login_name: str | None = None
    ) -> tuple[int, Any]:
        """Start recording an extension or a call."""
        return self._control("start", exten_or_uniqueid, agent_login_name, tag)

    def stop(self, exten_or_uniqueid: str, agent_login_name: str | None = None) -> tuple[int, Any]:
        """Stop the recording."""
        return self._control("stop", exten_or_uniqueid, agent_login_name)

    def pause(self, exten_or_uniqueid: str, agent_login_name: str | None = None) -> tuple[int, Any]:
        """Pause the recording."""
        return self._control("pause", exten_or_uniqueid, agent_login_name)

    def resume(self, exten_or_uniqueid: str, agent_login_name: str | None = None) -> tuple[int, Any]:
        """Resume a paused recording."""
        return self._control("resume", exten_or_uniqueid, agent_login_name)

    def by_tag(self, tag: str) -> tuple[int, Any]:
        """Find the recording legs with this tag."""
        return self._post(RECORDINGS + "retrieveMetaData", {"apiKey": self._key, "Tag": tag})

    def by_unique_id(self, unique_id: str) -> tuple[int, Any]:
        """Find the recording legs of one call."""
        fields = {"apiKey": self._key, "uniqueId": unique_id}
        return self._post(RECORDINGS + "retrieveMetaDataByUniqueId", fields)

    def by_hour(self, day: date, hour: int) -> tuple[int, Any]:
        """Find the recording legs of one hour (0 to 23) of a day."""
        if not 0 <= hour <= 23:
            raise ValueError("hour must be 0 to 23")
        fields = {"apiKey": self._key, "date": f"{day:%Y/%m/%d}", "hour": str(hour)}
        return self._post(RECORDINGS + "retrieveMetaDataByHour", fields)

    def _control(
        self, action: str, target: str, agent: str | None, tag: str | None = None
    ) -> tuple[int, Any]:
        fields = {"extenOrUniqueId": target, "tag": tag, "agentLoginName": agent, "apiKey": self._key}
        return self._post(CALLS + action, fields)

    def _post(self, path: str, fields: Mapping[str, str | None]) -> tuple[int, Any]:
        """POST with the fields in the URL and an empty body. An answer that is no JSON comes as text."""
        query = urlencode({name: value for name, value in fields.items() if value is not None})
        request = Request(f"{self._base}{path}?{query}", data=b"", method="POST")
        request.add_header("Accept", "application/json")
        try:
            with urlopen(request, timeout=self._timeout, context=self._context) as answer:
                status, body = int(answer.status), bytes(answer.read())
        except HTTPError as error:
            with error:
                status, body = error.code, error.read()
        text = body.decode("utf-8", "replace")
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text


@dataclass(frozen=True)
class RecordingLeg:
    """One leg of a recording. Times are the server's local time, without a zone."""

    call_record_id: str
    unique_id: str
    leg: int
    source: str
    destination: str
    did: str
    direction: str
    start: datetime
    end: datetime | None
    duration: int | None
    tag: str
    username: str

    @classmethod
    def parse(cls, raw: Mapping[str, str | None]) -> RecordingLeg:
        """Build a leg from one JSON object. A missing or malformed required field is an error."""
        end, duration = raw.get("callend"), raw.get("Duration")
        return cls(
            call_record_id=raw["CallRecordId"] or "",
            unique_id=raw["UniqueId"] or "",
            leg=int(raw["Leg"] or ""),
            source=raw.get("Source") or "",
            destination=raw.get("Destination") or "",
            did=raw.get("DID") or "",
            direction=raw.get("Direction") or "",
            start=_time(raw["Start"] or ""),
            end=_time(end) if end else None,
            duration=int(duration) if duration else None,
            tag=raw.get("Tag") or "",
            username=raw.get("Username") or "",
        )


def _time(text: str) -> datetime:
    """Read yyyy-MM-dd HH:mm:ss.S, the last part as a decimal fraction of a second."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f")


def parse_legs(answer: Any) -> list[RecordingLeg]:
    """Parse the JSON of a query; anything but an array (such as an error object) raises ValueError."""
    if not isinstance(answer, list):
        raise ValueError(f"not a list of recording legs: {answer!r}")
    return [RecordingLeg.parse(item) for item in answer]
