"""An office whose server has the API, and the two who use it: a sysadmin with curl, and a CRM."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from lab import office
from lab.crm import Crm
from lab.curl import Answer, curl
from lab.office import Office
from lab.postgresql import free_port
from lab.waiting import wait_until

CALLS = "/servicemanager/rest/CallManagementAPI"
LEGS = "/njadmin/rest/RecordingAPI"


class Api(NamedTuple):
    at: Office

    @property
    def url(self) -> str:
        return self.at.server.http

    @property
    def key(self) -> str:
        return self.at.exchange.site.key

    def ask(
        self,
        path: str,
        arguments: Mapping[str, str] | str = "",
        request: str = "POST",
        has_key: bool = True,
        **options: Any,
    ) -> Answer:
        """By curl, with the arguments and the key in the query string; arguments: or as they are written."""
        written = arguments if isinstance(arguments, str) else urllib.parse.urlencode(arguments)
        query = "&".join([*filter(None, [written]), *([f"apiKey={self.key}"] if has_key else [])])
        method: dict[str, str | bool] = {"head": True} if request == "HEAD" else {"request": request}
        return curl(f"{self.url}{path}{'?' if query else ''}{query}", **method, **options)

    def call(self, what: str, named: str, **arguments: str) -> Answer:
        """start, stop, pause or resume."""
        return self.ask(f"{CALLS}/{what}", {"extenOrUniqueId": named, **arguments})

    def audio(self, leg_id: str, request: str = "GET", **options: Any) -> Answer:
        return self.ask(f"/recordings/{leg_id}/audio", request=request, **options)

    def leg(self, answer: Answer, status: str) -> dict[str, Any]:
        """The leg of which a start was told, once it has that status."""
        return self.leg_of(answer.body["RecordingId"], status)

    def leg_of(self, leg_id: str, status: str) -> dict[str, Any]:
        site = self.at.exchange.site
        return site.wait_for_legs("--id", leg_id, status=status)[0]

    def configure(self, **options: str) -> None:
        """Have the server read these options of [http], `allow_get="yes"`, or others, `manager_port="1"`."""
        sections = ("database_", "manager_", "recordings_")
        named = {
            name.replace("_", ".", 1) if name.startswith(sections) else f"http.{name}": value
            for name, value in options.items()
        }
        self.at.server.configure(named)
        self.at.server.reload()


def api(version: int, folder: Path, stack: ExitStack) -> Api:
    options = {"http.listen": f"127.0.0.1:{free_port()}"}
    made = Api(office.office(version, folder, stack, options))
    wait_until(lambda: curl(f"{made.url}/openapi.json").status == 200, 30, "the API to answer")
    return made


# Two ways to call: what is done, to which call, with which arguments; the status and the body.
Way = Callable[..., tuple[int, dict[str, Any]]]


def by_curl(asked: Api, what: str, named: str, **arguments: str) -> tuple[int, dict[str, Any]]:
    answer = asked.call(what, named, **arguments)
    return answer.status, answer.body


def by_crm(asked: Api, what: str, named: str, **arguments: str) -> tuple[int, dict[str, Any]]:
    """Its programmer has names of his own."""
    crm, words = Crm(asked.url, asked.key), {_OF_CRM[name]: value for name, value in arguments.items()}
    status, body = getattr(crm, what)(named, **words)
    return status, body


_OF_CRM = {"tag": "tag", "agentLoginName": "agent_login_name"}
WAYS = (by_curl, by_crm)
