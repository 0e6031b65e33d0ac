"""A CRM that has calls recorded, as its programmer would write it from the manual page of the API alone.

"Start recording. The method starts a recording for a given extension or for a unique call id, and can attach
a tag. It accepts POST only. Arguments extenOrUniqueId (mandatory), agentLoginName, tag, apiKey (mandatory).
Example: https://<host>/servicemanager/rest/CallManagementAPI/start?extenOrUniqueId=410&tag=22
&agentLoginName=Fred&apiKey=f863246a-… It returns HTTP 200 on success, otherwise an error message. Every
answer carries a Code (0 success, negative error, positive warning) and a Message."
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, NamedTuple

API = "/servicemanager/rest/CallManagementAPI"
PATIENCE_SECONDS = 20


class Said(NamedTuple):
    """What the telephone system has answered."""

    status: int
    body: dict[str, Any]

    @property
    def is_done(self) -> bool:
        return bool(self.body["Code"] >= 0)


class Crm:
    """url: of the telephone system, such as https://pbx.example."""

    def __init__(self, url: str, api_key: str, tls: ssl.SSLContext | None = None) -> None:
        self._url = url.rstrip("/") + API
        self._api_key = api_key
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls)
        )

    def call(self, method: str, exten_or_unique_id: str, **arguments: str) -> Said:
        """method: start, and whatever else is called in the same way."""
        query = urllib.parse.urlencode(
            {"extenOrUniqueId": exten_or_unique_id, **arguments, "apiKey": self._api_key}
        )
        request = urllib.request.Request(f"{self._url}/{method}?{query}", method="POST")
        try:
            with self._opener.open(request, timeout=PATIENCE_SECONDS) as answer:
                return Said(answer.status, json.load(answer))
        except urllib.error.HTTPError as refusal:
            with refusal:
                return Said(refusal.code, json.load(refusal))
