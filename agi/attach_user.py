#!python
"""Somebody sits down: AGI(attach_user.py,agentLoginName[,extension])."""

import _signal  # type: ignore[import-not-found]  # the module signal takes 3 ms to import

_signal.signal(_signal.SIGHUP, _signal.SIG_IGN)  # a hang-up must not kill us while we still import

from noojee_agi.session import handoff  # noqa: E402

handoff.run_agi("attach_user")
