"""How long a caller waits, and how many calls a server takes: the program against its alternatives."""
