"""Records Asterisk calls from the dialplan: call record, tag, legs and owners in a database."""
