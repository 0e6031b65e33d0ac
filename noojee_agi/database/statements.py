"""The statements by which events change calls and legs, built once: that costs more than to execute them.

:leg_ids and :calls are lists, :of_leg and :of_call one id.
"""

from typing import Any

from sqlalchemy import bindparam, exists, func, select, union_all, update
from sqlalchemy.dialects import postgresql, sqlite

from noojee_agi.database.tables import RECORDING, call_record, recording_leg

_LEG, _CALL_RECORD = recording_leg.c, call_record.c
_OF_CALL = _LEG.call_record_id == bindparam("of_call")
_LEG_IDS: Any = bindparam("leg_ids", expanding=True)
_RECORD_IDS: Any = bindparam("calls", expanding=True)

LOCK_CALLS = (
    select(call_record)
    .where(
        _CALL_RECORD.id.in_(
            union_all(
                select(_LEG.call_record_id).where(_LEG.id.in_(_LEG_IDS)),
                select(_CALL_RECORD.id).where(_CALL_RECORD.id.in_(_RECORD_IDS)),
            )
        )
    )
    .order_by(_CALL_RECORD.id)
    .with_for_update()
)
LEGS = select(_LEG.id, _LEG.call_record_id, _LEG.started_at, _LEG.status, _LEG.ended_at).where(
    _LEG.id.in_(_LEG_IDS)
)
LEGS_OF = select(_LEG.id).where(_LEG.call_record_id.in_(_RECORD_IDS))

# Whatever is there twice, id or server and uniqueid: another host's has come first.
BEGIN_CALL = {
    "sqlite": sqlite.insert(call_record).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(call_record).on_conflict_do_nothing().returning(_CALL_RECORD.id),
}
CALL = (
    select(call_record)
    .where(_CALL_RECORD.server == bindparam("server"), _CALL_RECORD.uniqueid == bindparam("uniqueid"))
    .with_for_update()
)
CHANGE_CALL = update(call_record).where(_CALL_RECORD.id == bindparam("of_call"))
_ITS_LEG = _LEG.call_record_id == _CALL_RECORD.id
END_CALLS = (
    update(call_record)
    .where(_CALL_RECORD.id.in_(_RECORD_IDS), ~exists().where(_ITS_LEG, RECORDING))
    .values(ended_at=select(func.max(_LEG.ended_at)).where(_ITS_LEG).scalar_subquery())
)

# By id alone: a number that is there twice would be our own fault, and no leg may be lost for it.
INSERT_LEG = {
    "sqlite": sqlite.insert(recording_leg).on_conflict_do_nothing(index_elements=["id"]),
    "postgresql": postgresql.insert(recording_leg).on_conflict_do_nothing(index_elements=["id"]),
}
_ANY_LEG = recording_leg.alias("any_leg")
_LAST_NUMBER = (
    select(func.max(_ANY_LEG.c.leg)).where(_ANY_LEG.c.call_record_id == _CALL_RECORD.id).scalar_subquery()
)
LAST_LEGS = (
    select(_LEG.call_record_id, _LEG.leg, _LEG.started_at, _LEG.id)
    .join(call_record, _ITS_LEG)
    .where(_CALL_RECORD.id.in_(_RECORD_IDS), _LEG.leg == _LAST_NUMBER)
)
LATEST_TAG = (
    select(_LEG.tag).where(_OF_CALL, _LEG.tag != "").order_by(_LEG.started_at.desc(), _LEG.id.desc()).limit(1)
)
_IN_ORDER = func.row_number().over(order_by=(_LEG.started_at, _LEG.id))
_NUMBERED = select(_LEG.id, _IN_ORDER.label("number")).where(_OF_CALL).subquery()
TURN_NUMBERS = (
    update(recording_leg)
    .where(_OF_CALL, _LEG.id == _NUMBERED.c.id, _LEG.leg != _NUMBERED.c.number)
    .values(leg=-_NUMBERED.c.number)
)
TURNED = select(_LEG.id).where(_OF_CALL, _LEG.leg < 0)
TURN_NUMBERS_BACK = update(recording_leg).where(_OF_CALL, _LEG.leg < 0).values(leg=-_LEG.leg)
END_LEG = update(recording_leg).where(_LEG.id == bindparam("of_leg"))
