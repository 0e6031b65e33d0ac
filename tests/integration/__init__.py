"""Spool, drain, database and command line together, on SQLite and on PostgreSQL."""
