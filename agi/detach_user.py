#!python
"""Nobody sits there any more: AGI(detach_user.py[,extension])."""

import _signal  # type: ignore[import-not-found]  # the module signal takes 3 ms to import

_signal.signal(_signal.SIGHUP, _signal.SIG_IGN)  # a hang-up must not kill us while we still import

from noojee_agi.session import handoff  # noqa: E402

handoff.run_agi("detach_user")
