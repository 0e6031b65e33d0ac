"""What one module promises, without Asterisk and without a database."""
