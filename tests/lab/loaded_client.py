"""loaded_client.py SOCKET WORDS... is `noojee-agi WORDS...`, run by the process of lab.loaded_command."""

import json
import os
import signal
import socket
import sys

STREAMS = (0, 1, 2)


def main(path: str, *words: str) -> int:
    umask = os.umask(0)
    os.umask(umask)
    request = {
        "words": words,
        "descriptors": STREAMS,
        "environment": {**os.environ},
        "umask": umask,
        "folder": os.getcwd(),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        asked.connect(path)
        socket.send_fds(asked, [json.dumps(request).encode()], STREAMS)
        asked.recv(16)  # its process id
        return int(asked.recv(16) or -signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
