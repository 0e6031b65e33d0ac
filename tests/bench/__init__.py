"""How long a caller waits in AGI(): the program against its alternatives, on one real Asterisk."""
