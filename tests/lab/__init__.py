"""Real servers for the tests: a private Asterisk, a private PostgreSQL, a small disk."""
