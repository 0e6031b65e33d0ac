"""What the programs do: one module and one function each, named as in the dialplan."""
