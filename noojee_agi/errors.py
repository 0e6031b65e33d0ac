"""The exceptions of this program; each carries the RECORDING_STATUS that the dialplan gets.

NoojeeError                 500
├── ConfigurationError      500  noojee_agi.conf says something that cannot be
├── ConsoleUnavailable           Asterisk's command line cannot be asked
├── BadArgument             400  what the dialplan passed
├── KeyRefused              401  apiKey missing, empty, wrong, or not to be checked
├── NotAllowed              403  this agentLoginName may not
├── NoSuchCall              404  extenOrUniqueId names no live call, or none any more
│   └── CallGone            404  the caller hung up or Asterisk closed the AGI: only the log is told
├── NoSuchAccount           404  agentLoginName is no enabled account, and without one nothing can be done
├── NotRecording            409  there is nothing to stop or pause, or to resume
├── NotStarted              503  Asterisk did not start the recording
│   ├── ManagerUnavailable  503  the manager interface does not answer, or refuses
│   └── DiskSilent          503  the recordings' disk does not answer
├── TooLittleSpace          507  the recordings' disk
├── JournalUnusable              one that a drain has taken: it stays as it is
├── StoreUnavailable             the database cannot take it now: try again later
│   └── StoreConflict            another transaction came first: try again at once
└── StoreRejected                the database will never take this one: set it aside
    └── StoreDuplicate           or another's came first, with the same key: try again at once, before that
"""


class NoojeeError(Exception):
    """Text for a person: what, where and what to do next; never a secret.

    cure: what to do next, where that is said apart: one command, or one line to change.
    """

    status = 500

    def __init__(self, what: str = "", cure: str = "") -> None:
        super().__init__(f"{what}: {cure}" if cure else what)
        self.cure = cure


class ConfigurationError(NoojeeError):
    pass


class ConsoleUnavailable(NoojeeError):
    pass


class BadArgument(NoojeeError):
    status = 400


class KeyRefused(NoojeeError):
    status = 401


class NotAllowed(NoojeeError):
    status = 403


class NoSuchCall(NoojeeError):
    status = 404


class CallGone(NoSuchCall):
    pass


class NoSuchAccount(NoojeeError):
    status = 404


class NotRecording(NoojeeError):
    status = 409


class NotStarted(NoojeeError):
    status = 503


class ManagerUnavailable(NotStarted):
    pass


class DiskSilent(NotStarted):
    pass


class TooLittleSpace(NoojeeError):
    status = 507


class JournalUnusable(NoojeeError):
    pass


class StoreUnavailable(NoojeeError):
    pass


class StoreConflict(StoreUnavailable):
    pass


class StoreRejected(NoojeeError):
    pass


class StoreDuplicate(StoreRejected):
    pass
