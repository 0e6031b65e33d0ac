#!python
"""MixMonitor's end command, written by start_record.py: says how a recording leg ended."""

import signal

signal.signal(signal.SIGHUP, signal.SIG_IGN)

from noojee_agi import handoff  # noqa: E402

handoff.run_finish()
