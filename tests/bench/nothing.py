#!python
"""A Python that does nothing: reads the AGI environment and ends. No script can hold a call for less."""

import sys

for line in sys.stdin:
    if line == "\n":
        break
