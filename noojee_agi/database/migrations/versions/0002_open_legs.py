"""An index of the few legs that record now: each drain asks for them, however many legs there are."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_recording_leg_open",
        "recording_leg",
        ["call_record_id"],
        sqlite_where=sa.text("status = 'recording'"),
        postgresql_where=sa.text("status = 'recording'"),
    )
