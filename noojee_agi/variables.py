"""The name of every channel variable that is read or set."""

API_KEY = "apiKey"  # set by the dialplan, on the channel or as a global

# Set by Asterisk.
LINKEDID = "CHANNEL(linkedid)"
MEMBERINTERFACE = "MEMBERINTERFACE"  # by Queue() with setinterfacevar=yes
SYSTEMNAME = "SYSTEMNAME"  # of asterisk.conf
BRIDGEPEER = "BRIDGEPEER"
DIALEDPEERNAME = "DIALEDPEERNAME"
MIXMONITOR_FILENAME = "MIXMONITOR_FILENAME"


def mixmonitor_file(mixmonitor_id: str) -> str:
    """The file of a MixMonitor that runs on the channel; empty once it has ended (app_mixmonitor.c)."""
    return f"MIXMONITOR({mixmonitor_id},filename)"


# Our answer to the dialplan.
STATUS = "RECORDING_STATUS"
MESSAGE = "RECORDING_MESSAGE"
LEG_ID = "RECORDING_ID"
FILE = "RECORDING_FILE"

# Ours alone: the MixMonitor that records this channel for us; empty when none does.
MIXMONITOR_ID = "NOOJEE_MIXMONITOR_ID"
# And the one before it, until that is stopped: whoever goes on after one who died in between must know both.
REPLACED_ID = "NOOJEE_REPLACED_ID"
