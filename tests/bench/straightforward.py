#!python
"""The same job as it is usually written, with pyst2 and SQLAlchemy's ORM: the measure for ours.

AGI(straightforward.py,exten,tag,agent). An honest program, neither slowed down nor tuned.
"""

from __future__ import annotations

import hmac
import os
import sys
from datetime import datetime, timezone

from asterisk.agi import AGI
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class SystemVariable(Base):
    __tablename__ = "system_variable"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class CallRecord(Base):
    __tablename__ = "call_record"

    id: Mapped[int] = mapped_column(primary_key=True)
    uniqueid: Mapped[str] = mapped_column(unique=True)
    source: Mapped[str]
    destination: Mapped[str]
    external_reference: Mapped[str]
    started_at: Mapped[datetime]
    legs: Mapped[list[RecordingLeg]] = relationship(back_populates="call_record")


class RecordingLeg(Base):
    __tablename__ = "recording_leg"

    id: Mapped[int] = mapped_column(primary_key=True)
    call_record_id: Mapped[int] = mapped_column(ForeignKey("call_record.id"))
    extension: Mapped[str]
    owner: Mapped[str]
    file: Mapped[str]
    started_at: Mapped[datetime]
    call_record: Mapped[CallRecord] = relationship(back_populates="legs")


def create_tables(url: str, key: str) -> None:
    """Make the database, once."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(SystemVariable(name="apiKey", value=key))
        session.commit()
    engine.dispose()


def main() -> None:
    agi = AGI()
    exten, tag, agent = sys.argv[1:4]
    engine = create_engine(os.environ["STRAIGHTFORWARD_DATABASE"])
    with Session(engine) as session:
        key = session.get_one(SystemVariable, "apiKey").value
        if not hmac.compare_digest(agi.get_variable("apiKey"), key):
            agi.set_variable("RECORDING_STATUS", "401")
            return
        uniqueid = agi.env["agi_uniqueid"]
        file = f"{uniqueid}.wav"
        agi.appexec("MixMonitor", file)
        started_at = datetime.now(timezone.utc)
        leg = RecordingLeg(extension=exten, owner=agent, file=file, started_at=started_at)
        call_record = CallRecord(
            uniqueid=uniqueid,
            source=agi.env["agi_callerid"],
            destination=agi.env["agi_extension"],
            external_reference=tag,
            started_at=started_at,
            legs=[leg],
        )
        session.add(call_record)
        session.commit()
    agi.set_variable("RECORDING_STATUS", "200")


if __name__ == "__main__":
    main()
