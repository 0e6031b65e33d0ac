"""With whom a leg's channel talked; and every uniqueid is found with and without its system's name."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_WITHOUT_SYSTEM = "substr({0}, length(rtrim({0}, replace({0}, '-', ''))) + 1)"


def upgrade() -> None:
    is_postgresql = op.get_context().dialect.name == "postgresql"
    if is_postgresql:
        # In the order in which a drain takes them, which may be at work: else one of the two is a deadlock's
        # victim.
        op.execute("LOCK TABLE call_record, recording_leg IN ACCESS EXCLUSIVE MODE")
    for name in ("peer_channel", "peer_uniqueid"):
        empty = sa.text("''")
        op.add_column("recording_leg", sa.Column(name, sa.String(255), nullable=False, server_default=empty))
    for table in ("call_record", "recording_leg"):
        op.drop_index(f"ix_{table}_uniqueid", table)
        _create_index(table, "uniqueid")
    _create_index("recording_leg", "peer_uniqueid")
    if is_postgresql:
        # Else it knows nothing of what the indexes hold, and might read all legs, until it looks by itself.
        op.execute("ANALYZE call_record, recording_leg")


def _create_index(table: str, column: str) -> None:
    op.create_index(f"ix_{table}_{column}", table, [sa.text(_WITHOUT_SYSTEM.format(column))])
