"""What was done with legs, who heard them, holds and purges; and what an attachment that comes late needs."""

import sqlalchemy as sa
from alembic import op

from noojee_agi.database.tables import Id, UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_STARTED = """
INSERT INTO recording_event (leg_id, at, what, login, reason)
SELECT id, started_at, 'started', NULLIF(agent_login_name, ''), '' FROM recording_leg
"""
# Where the next attachment does not begin just then.
_DETACHED = """
INSERT INTO extension_detachment (extension, detached_at)
SELECT DISTINCT extension, detached_at FROM extension_attachment AS one WHERE detached_at IS NOT NULL
AND NOT EXISTS (
  SELECT 1 FROM extension_attachment AS other
  WHERE other.extension = one.extension AND other.attached_at = one.detached_at
)
"""


def upgrade() -> None:
    is_postgresql = op.get_context().dialect.name == "postgresql"
    if is_postgresql:  # in the order in which a drain takes them, see 0003
        op.execute("LOCK TABLE extension_attachment, call_record, recording_leg IN ACCESS EXCLUSIVE MODE")
    _add_columns()
    op.create_table(
        "recording_event",
        sa.Column("leg_id", Id, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("login", sa.String(100)),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("leg_id", "at", "what", name="pk_recording_event"),
        sa.ForeignKeyConstraint(["leg_id"], ["recording_leg.id"], name="fk_recording_event_leg_id"),
        sa.CheckConstraint(
            "what IN ('started', 'stopped', 'paused', 'resumed', 'held', 'released', 'purged', 'converted')",
            name=op.f("ck_recording_event_what"),
        ),
    )
    op.create_table(
        "access_log",
        sa.Column("id", Id, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("login", sa.String(100), nullable=False),
        sa.Column("leg_id", Id, nullable=False),
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("allowed", sa.Boolean, nullable=False),
        sa.Column("address", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_access_log"),
        sa.ForeignKeyConstraint(["leg_id"], ["recording_leg.id"], name="fk_access_log_leg_id"),
        sa.CheckConstraint("what IN ('played', 'downloaded', 'exported')", name=op.f("ck_access_log_what")),
    )
    op.create_index("ix_access_log_leg_id", "access_log", ["leg_id", "at"])
    op.create_table(
        "extension_detachment",
        sa.Column("extension", sa.String(149), nullable=False),
        sa.Column("detached_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("extension", "detached_at", name="pk_extension_detachment"),
    )
    op.execute(_STARTED)
    op.execute(_DETACHED)
    if is_postgresql:
        op.execute("ANALYZE recording_event")


def _add_columns() -> None:
    """With what an insert of the former version leaves out."""
    empty = sa.text("''")
    for column in (
        sa.Column("extensions", sa.Text, nullable=False, server_default=empty),
        sa.Column("held", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("purged_at", UtcDateTime),
        sa.Column("purged_file", sa.Text, nullable=False, server_default=empty),
    ):
        op.add_column("recording_leg", column)
