"""The exceptions of this program; each carries the RECORDING_STATUS that the dialplan gets.

NoojeeError                 500
├── ConfigurationError      500  noojee_agi.conf says something that cannot be
├── BadArgument             400  what the dialplan passed
├── KeyRefused              401  apiKey missing, empty, wrong, or not to be checked
├── NoSuchCall              404  extenOrUniqueId names no live call
├── NotStarted              503  Asterisk did not start the recording
├── TooLittleSpace          507  the recordings' disk
├── CallGone                404  the caller hung up or Asterisk closed the AGI: only the log is told
├── StoreUnavailable             the database cannot take it now: try again later
│   └── StoreConflict            another transaction came first: try again at once
└── StoreRejected                the database will never take this one: set it aside
"""


class NoojeeError(Exception):
    """Text for a person: what, where and what to do next; never a secret."""

    status = 500


class ConfigurationError(NoojeeError):
    pass


class BadArgument(NoojeeError):
    status = 400


class KeyRefused(NoojeeError):
    status = 401


class NoSuchCall(NoojeeError):
    status = 404


class NotStarted(NoojeeError):
    status = 503


class TooLittleSpace(NoojeeError):
    status = 507


class CallGone(NoojeeError):
    status = 404


class StoreUnavailable(NoojeeError):
    pass


class StoreConflict(StoreUnavailable):
    pass


class StoreRejected(NoojeeError):
    pass
