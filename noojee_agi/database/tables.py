"""The tables, as the migrations make them (a test compares the two)."""

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    false,
    text,
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite, which has no such type, keeps ISO 8601 text with its +00:00."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        sqlite = dialect.name == "sqlite"
        return dialect.type_descriptor(String(32) if sqlite else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        value = value.astimezone(timezone.utc)
        return value.isoformat(timespec="microseconds") if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(timezone.utc)


class Names(TypeDecorator[Sequence[str]]):
    """A list of names, in JSON; empty text is an empty list."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> str:
        return json.dumps(list(value), ensure_ascii=False) if value else ""

    def process_result_value(self, value: str | None, dialect: Dialect) -> list[str]:
        return list(json.loads(value)) if value else []


# Text with hyphens on SQLite too, so that an id reads the same in database, file name and log.
Id = Uuid(as_uuid=False).with_variant(String(36), "sqlite")

# SQLite uses a partial index only where the statement says the same in plain text, not as a parameter.
RECORDING = text("status = 'recording'")
_ENDED = text("ended_at IS NOT NULL")


def without_system(uniqueid: str) -> TextClause:
    """SQL for what is behind the column's last hyphen: Asterisk's uniqueid is [systemname-]seconds.number.

    SQLite uses an index of it only where the statement says the same, in plain text.
    """
    return text(f"substr({uniqueid}, length(rtrim({uniqueid}, replace({uniqueid}, '-', ''))) + 1)")


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

system_variable = Table(
    "system_variable",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("value", Text, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

account = Table(
    "account",
    metadata,
    Column("id", Id, primary_key=True),
    Column("login", String(100), nullable=False, unique=True),
    Column("name", String(255), nullable=False),
    Column("enabled", Boolean, nullable=False),
)

account_group = Table(
    "account_group",
    metadata,
    Column("account_id", Id, ForeignKey("account.id"), primary_key=True),
    Column("group_name", String(100), primary_key=True),
)

team = Table(
    "team",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
)

team_member = Table(
    "team_member",
    metadata,
    Column("team_id", Id, ForeignKey("team.id"), primary_key=True),
    Column("account_id", Id, ForeignKey("account.id"), primary_key=True),
    Column("joined_at", UtcDateTime, primary_key=True),
    Column("left_at", UtcDateTime),
    Column("is_leader", Boolean, nullable=False),
    Index("ix_team_member_account_id", "account_id"),
)

extension_attachment = Table(
    "extension_attachment",
    metadata,
    Column("extension", String(149), primary_key=True),
    Column("attached_at", UtcDateTime, primary_key=True),
    Column("account_id", Id, ForeignKey("account.id"), nullable=False),
    Column("detached_at", UtcDateTime),
    Index(
        "uq_extension_attachment_open",
        "extension",
        unique=True,
        sqlite_where=text("detached_at IS NULL"),
        postgresql_where=text("detached_at IS NULL"),
    ),
)

# An attachment that comes late, from another host say, ends at the next of these. One row for each.
extension_detachment = Table(
    "extension_detachment",
    metadata,
    Column("extension", String(149), primary_key=True),
    Column("detached_at", UtcDateTime, primary_key=True),
)

call_record = Table(
    "call_record",
    metadata,
    Column("id", Id, primary_key=True),
    Column("server", String(255), nullable=False),
    Column("uniqueid", String(255), nullable=False),
    Column("source", String(255), nullable=False),
    Column("destination", String(255), nullable=False),
    Column("did", String(255), nullable=False),
    Column("external_reference", String(255), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("server", "uniqueid"),
    Index("ix_call_record_uniqueid", without_system("uniqueid")),
    Index("ix_call_record_external_reference", "external_reference"),
)

recording_leg = Table(
    "recording_leg",
    metadata,
    Column("id", Id, primary_key=True),
    Column("call_record_id", Id, ForeignKey("call_record.id"), nullable=False),
    Column("leg", Integer, nullable=False),
    Column("uniqueid", String(255), nullable=False),
    Column("channel", String(255), nullable=False),
    Column("extension", String(255), nullable=False),
    Column("owner_id", Id, ForeignKey("account.id")),
    Column("agent_login_name", String(100), nullable=False),
    Column("tag", String(255), nullable=False),
    Column("file", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("duration_seconds", Float),
    Column("bytes", BigInteger),
    Column("peer_channel", String(255), nullable=False, server_default=text("''")),
    Column("peer_uniqueid", String(255), nullable=False, server_default=text("''")),
    # All on the call that may say whose it is, the first one first.
    Column("extensions", Names, nullable=False, server_default=text("''")),
    Column("held", Boolean, nullable=False, server_default=false()),
    Column("purged_at", UtcDateTime),
    # What file was until the audio was purged: the side-car lies there yet.
    Column("purged_file", Text, nullable=False, server_default=text("''")),
    UniqueConstraint("call_record_id", "leg"),
    CheckConstraint("status IN ('recording', 'completed', 'empty', 'failed', 'interrupted')", name="status"),
    Index("ix_recording_leg_uniqueid", without_system("uniqueid")),
    Index("ix_recording_leg_peer_uniqueid", without_system("peer_uniqueid")),
    Index("ix_recording_leg_tag", "tag"),
    Index("ix_recording_leg_owner_id", "owner_id", "started_at"),
    Index("ix_recording_leg_started_at", "started_at"),
    Index("ix_recording_leg_ended_at", "ended_at", sqlite_where=_ENDED, postgresql_where=_ENDED),
    Index("ix_recording_leg_open", "call_record_id", sqlite_where=RECORDING, postgresql_where=RECORDING),
)

recording_event = Table(
    "recording_event",
    metadata,
    Column("leg_id", Id, ForeignKey("recording_leg.id"), primary_key=True),
    Column("at", UtcDateTime, primary_key=True),
    Column("what", String(20), primary_key=True),
    Column("login", String(100)),
    Column("reason", Text, nullable=False),
    CheckConstraint(
        "what IN ('started', 'stopped', 'paused', 'resumed', 'held', 'released', 'purged', 'converted')",
        name="what",
    ),
)

access_log = Table(
    "access_log",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("login", String(100), nullable=False),
    Column("leg_id", Id, ForeignKey("recording_leg.id"), nullable=False),
    Column("what", String(20), nullable=False),
    Column("allowed", Boolean, nullable=False),
    Column("address", String(255), nullable=False),
    CheckConstraint("what IN ('played', 'downloaded', 'exported')", name="what"),
    Index("ix_access_log_leg_id", "leg_id", "at"),
)
