#!python
"""MixMonitor's end command, written by start_record.py: says how a recording leg ended."""

import _signal  # type: ignore[import-not-found]  # the module signal takes 3 ms to import

_signal.signal(_signal.SIGHUP, _signal.SIG_IGN)

from noojee_agi.session import handoff  # noqa: E402

handoff.run_finish()
