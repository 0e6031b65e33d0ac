"""The one error of the lab that a test may turn into a skip."""


class LabUnavailable(Exception):
    """A real server cannot be had on this machine; the message says why and what to do."""
