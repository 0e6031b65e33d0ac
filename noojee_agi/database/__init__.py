"""The database: the only package that imports SQLAlchemy and Alembic. The call path never imports it.

tables: the schema · store: connections, transactions, errors · watch: servers that go silent ·
intake, endings: events in · queries: rows out · restore: lost rows back ·
settings: apiKey, accounts, attachments · schema: migrations.
"""
