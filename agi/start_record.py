#!python
"""Records this call: AGI(start_record.py[,extenOrUniqueId[,tag[,agentLoginName]]])."""

import signal

signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a hang-up must not kill us while we still import

from noojee_agi import handoff  # noqa: E402

handoff.run_agi("start_record")
