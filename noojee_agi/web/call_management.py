"""start, stop, pause and resume: the same session as for another live call from anywhere else."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from noojee_agi.actions.result import Result
from noojee_agi.errors import BadArgument
from noojee_agi.session.session import ACTIONS, Invocation
from noojee_agi.web import answers
from noojee_agi.web.admission import Admission, address_of
from noojee_agi.web.services import Services

PATH = "/servicemanager/rest/CallManagementAPI"
PROGRAMS = {
    "start": "start_record",
    "stop": "stop_record",
    "pause": "pause_record",
    "resume": "resume_record",
}
WITH_GET = ("start", "stop")  # where [http] allow_get is yes
_CALL = "extenOrUniqueId"


class CallManagement:
    def __init__(self, services: Services, admission: Admission) -> None:
        self._services = services
        self._admission = admission

    async def run(self, request: Request, name: str) -> Response:
        program = PROGRAMS[name]
        names = ACTIONS[program][1]
        given = await self._admission.arguments(request, names)
        if not given.get(_CALL).strip():
            raise BadArgument(f"{_CALL} is missing: 410, PJSIP/410, or the uniqueid of a live call")
        pairs = [(known, value) for known, value in given.values.items() if value]
        result = await self._services.run(Invocation(program, pairs=pairs), given.key, address_of(request))
        return answers.of_session(_with_remark(result, given.unknown, names))


def _with_remark(result: Result, unknown: int, names: tuple[str, ...]) -> Result:
    """A slip in a name shall be seen, where the rest is done."""
    if result.status != 200 or not unknown:
        return result
    remark = f"{unknown} arguments with other names than {', '.join(names)} were passed over"
    return result.with_remark(remark)
