"""The first schema."""

import sqlalchemy as sa
from alembic import op

from noojee_agi.database.tables import Id, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "system_variable",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_system_variable"),
    )
    op.create_table(
        "account",
        sa.Column("id", Id, nullable=False),
        sa.Column("login", sa.String(100), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.UniqueConstraint("login", name="uq_account_login"),
    )
    op.create_table(
        "account_group",
        sa.Column("account_id", Id, nullable=False),
        sa.Column("group_name", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "group_name", name="pk_account_group"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_account_group_account_id"),
    )
    op.create_table(
        "team",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_team"),
        sa.UniqueConstraint("name", name="uq_team_name"),
    )
    op.create_table(
        "team_member",
        sa.Column("team_id", Id, nullable=False),
        sa.Column("account_id", Id, nullable=False),
        sa.Column("joined_at", UtcDateTime, nullable=False),
        sa.Column("left_at", UtcDateTime),
        sa.Column("is_leader", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("team_id", "account_id", "joined_at", name="pk_team_member"),
        sa.ForeignKeyConstraint(["team_id"], ["team.id"], name="fk_team_member_team_id"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_team_member_account_id"),
    )
    op.create_index("ix_team_member_account_id", "team_member", ["account_id"])
    op.create_table(
        "extension_attachment",
        sa.Column("extension", sa.String(149), nullable=False),
        sa.Column("attached_at", UtcDateTime, nullable=False),
        sa.Column("account_id", Id, nullable=False),
        sa.Column("detached_at", UtcDateTime),
        sa.PrimaryKeyConstraint("extension", "attached_at", name="pk_extension_attachment"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_extension_attachment_account_id"),
    )
    op.create_index(
        "uq_extension_attachment_open",
        "extension_attachment",
        ["extension"],
        unique=True,
        sqlite_where=sa.text("detached_at IS NULL"),
        postgresql_where=sa.text("detached_at IS NULL"),
    )
    op.create_table(
        "call_record",
        sa.Column("id", Id, nullable=False),
        sa.Column("server", sa.String(255), nullable=False),
        sa.Column("uniqueid", sa.String(255), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("destination", sa.String(255), nullable=False),
        sa.Column("did", sa.String(255), nullable=False),
        sa.Column("external_reference", sa.String(255), nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("ended_at", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_call_record"),
        sa.UniqueConstraint("server", "uniqueid", name="uq_call_record_server"),
    )
    op.create_index("ix_call_record_uniqueid", "call_record", ["uniqueid"])
    op.create_index("ix_call_record_external_reference", "call_record", ["external_reference"])
    op.create_table(
        "recording_leg",
        sa.Column("id", Id, nullable=False),
        sa.Column("call_record_id", Id, nullable=False),
        sa.Column("leg", sa.Integer, nullable=False),
        sa.Column("uniqueid", sa.String(255), nullable=False),
        sa.Column("channel", sa.String(255), nullable=False),
        sa.Column("extension", sa.String(255), nullable=False),
        sa.Column("owner_id", Id),
        sa.Column("agent_login_name", sa.String(100), nullable=False),
        sa.Column("tag", sa.String(255), nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("ended_at", UtcDateTime),
        sa.Column("duration_seconds", sa.Float),
        sa.Column("bytes", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_recording_leg"),
        sa.UniqueConstraint("call_record_id", "leg", name="uq_recording_leg_call_record_id"),
        sa.ForeignKeyConstraint(
            ["call_record_id"], ["call_record.id"], name="fk_recording_leg_call_record_id"
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name="fk_recording_leg_owner_id"),
        sa.CheckConstraint(
            "status IN ('recording', 'completed', 'empty', 'failed', 'interrupted')",
            name=op.f("ck_recording_leg_status"),
        ),
    )
    op.create_index("ix_recording_leg_uniqueid", "recording_leg", ["uniqueid"])
    op.create_index("ix_recording_leg_tag", "recording_leg", ["tag"])
    op.create_index("ix_recording_leg_owner_id", "recording_leg", ["owner_id", "started_at"])
    op.create_index("ix_recording_leg_started_at", "recording_leg", ["started_at"])
