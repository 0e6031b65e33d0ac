"""Inbound, Outbound or Internal, by legs as a real Asterisk left them."""

from __future__ import annotations

from typing import Any

import pytest

from noojee_agi.web import direction
from noojee_agi.web.direction import INBOUND, INTERNAL, OUTBOUND

CALLER, CALLED = "17.1", "17.2"
_TRUNK, _ANN, _FRED = "PJSIP/trunk-00000000", "PJSIP/410-00000001", "PJSIP/411-00000002"
_LOCAL, _DESK = "Local/410@agents-00000001;1", "PJSIP/ann-desk-00000003"


def _leg(own: str, channel: str, peer: str = "", **changes: Any) -> dict[str, Any]:
    """own: the uniqueid of the recorded channel; its partner, if there is one, has the other."""
    other = CALLED if own == CALLER else CALLER
    return {
        "call_uniqueid": CALLER,
        "uniqueid": own,
        "channel": channel,
        "peer_uniqueid": other if peer else "",
        "peer_channel": peer,
        "source": "",
        "destination": "s",
        **changes,
    }


_QUEUE = {"source": "0301234", "destination": "5550100"}
_WAITS = _leg(CALLER, _TRUNK, source="0301234", destination="5550104")


@pytest.mark.parametrize(
    ("legs", "expected"),
    [
        pytest.param([_leg(CALLER, _TRUNK, _ANN, **_QUEUE)], INBOUND, id="a queue's"),
        pytest.param([_leg(CALLER, _TRUNK, _LOCAL, **_QUEUE)], INBOUND, id="Local agent"),
        pytest.param([_WAITS, _leg(CALLER, _TRUNK, _ANN, **_QUEUE)], INBOUND, id="recorded while it waits"),
        pytest.param([_leg(CALLED, _ANN, _TRUNK, source="5550101")], INBOUND, id="answered"),
        pytest.param([_leg(CALLER, _TRUNK, source="0301234", destination="410")], INBOUND, id="before Dial"),
        pytest.param(
            [_leg(CALLER, _TRUNK, _ANN, **_QUEUE), _leg("17.5", _ANN, _FRED, peer_uniqueid="17.6")],
            *(INBOUND,),
            id="transferred, and the caller has left",
        ),
        pytest.param([_leg(CALLED, _ANN, source="5550101")], INBOUND, id="caller unknown"),
        pytest.param([_leg(CALLED, _TRUNK, _FRED, source="0030123")], OUTBOUND, id="out"),
        pytest.param(
            [_leg(CALLER, _FRED, source="411", destination="0030123")],
            *(OUTBOUND,),
            id="out, before Dial",
        ),
        pytest.param(
            [_leg(CALLER, _DESK, source="555411", destination="0030123")],
            *(OUTBOUND,),
            id="out, an attached name",
        ),
        pytest.param(
            [
                _leg(CALLER, _FRED, source="411", destination="0030123"),
                _leg(CALLED, _TRUNK, _ANN, peer_uniqueid="17.3"),
            ],
            *(OUTBOUND,),
            id="out, then transferred to a colleague",
        ),
        pytest.param([_leg(CALLED, _TRUNK, source="0030123")], OUTBOUND, id="out, caller unknown"),
        pytest.param([_leg(CALLED, _ANN, _FRED, source="410")], INTERNAL, id="colleagues"),
        pytest.param([_leg(CALLED, _DESK, _FRED, source="410")], INTERNAL, id="colleagues, an attached name"),
        pytest.param(
            [_leg(CALLER, _FRED, _ANN, source="411", destination="5550100")],
            *(INTERNAL,),
            id="a colleague in a queue",
        ),
        pytest.param(
            [_leg(CALLER, _FRED, source="411", destination="410")],
            *(INTERNAL,),
            id="colleagues, before Dial",
        ),
        pytest.param(
            [_leg(CALLER, "SIP/7777-00000001", source="7777", destination="112")], OUTBOUND, id="emergency"
        ),
        pytest.param([_leg(CALLER, "DAHDI/1-1", _ANN, source="0301234")], INBOUND, id="a line's number"),
        pytest.param([_leg(CALLER, "SIP/4930555800-0000001", _ANN, source="")], INBOUND, id="provider"),
        pytest.param([_leg(CALLER, "", source="", destination="")], INBOUND, id="nothing is known"),
    ],
)
def test_the_direction_is_who_began_the_call_and_whom_it_reached(
    legs: list[dict[str, Any]], expected: str
) -> None:
    attached = {"410", "411", "ann-desk"}

    assert direction.of_call(legs, attached & direction.names(legs)) == expected


def test_an_account_of_any_time_makes_an_extension_ours() -> None:
    legs = [_leg(CALLED, _TRUNK, _DESK)]

    assert direction.of_call(legs, set()) == INBOUND
    assert direction.of_call(legs, {"ann-desk"}) == OUTBOUND
    assert direction.of_call(legs, {"ann-desk", "trunk"}) == INTERNAL
