"""The name of every channel variable that is read or set."""

API_KEY = "apiKey"  # set by the dialplan, on the channel or as a global

# Set by Asterisk.
LINKEDID = "CHANNEL(linkedid)"
MEMBERINTERFACE = "MEMBERINTERFACE"  # by Queue() with setinterfacevar=yes
SYSTEMNAME = "SYSTEMNAME"  # of asterisk.conf
BRIDGEPEER = "BRIDGEPEER"
DIALEDPEERNAME = "DIALEDPEERNAME"
BLINDTRANSFER = "BLINDTRANSFER"  # the channel that has transferred this one, and may not be gone yet
ATTENDEDTRANSFER = "ATTENDEDTRANSFER"

PACKETS = "CHANNEL(rtcp,rxcount,audio)"  # how many a telephone has sent (chan_pjsip's alone knows)


def mixmonitor_file(mixmonitor_id: str) -> str:
    """The file of a MixMonitor that runs on the channel; empty once it has ended (app_mixmonitor.c)."""
    return f"MIXMONITOR({mixmonitor_id},filename)"


# Our answer to the dialplan.
STATUS = "RECORDING_STATUS"
MESSAGE = "RECORDING_MESSAGE"
LEG_ID = "RECORDING_ID"
FILE = "RECORDING_FILE"
# And what holds until somebody changes it: recording, paused or stopped.
STATE = "RECORDING_STATE"
RECORDING, PAUSED, STOPPED = "recording", "paused", "stopped"

# Ours alone: the MixMonitor that records this channel for us; empty when none does.
MIXMONITOR_ID = "NOOJEE_MIXMONITOR_ID"
# And its leg: the id, then, after a blank, the login that owns it, if that was known when it began.
LEG = "NOOJEE_LEG"

# Set by the server that follows a recording, for the one that comes after it: on the recorded channel the
# leg's id and the uniqueids of those with whom it has talked since the leg began, on each of them a mark.
PERSONS = "NOOJEE_PERSONS"
PERSON_OF = "NOOJEE_PERSON_OF"  # see marks


def of_channel(channel: str, name: str) -> str:
    """The same of another channel, by its name or uniqueid; empty when it is not there (func_logic.c)."""
    return f"IMPORT({channel},{name})"


def channels(expression: str) -> str:
    """The names of all channels that fit a regular expression, blanks between them (func_channel.c)."""
    return f"CHANNELS({expression})"
