"""What Alembic runs; schema.upgrade hands it the connection."""

from alembic import context

from noojee_agi.database import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    transactional_ddl=True,
)
context.run_migrations()
