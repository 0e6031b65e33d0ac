"""What a Python of the test environment runs first, when it is to become a drain.

A drain begins with half a second of imports, more than half of what the tests ask of the processor. So a fork
of lab.loaded_command's process does its work, and this process waits for it, dies as it dies, and takes it
along when it is killed. Without such a process nothing happens here, and the drain is itself.
"""

import json
import os
import signal
import socket
import sys

_MODULES = ("noojee_agi.sync", "noojee_agi.sync.renew_snapshot")


def _have_it_done(module: str, *words: str) -> None:
    lock = [int(words[1])] if len(words) > 1 else []
    descriptors = [0, 1, 2, *lock]
    umask = os.umask(0)
    os.umask(umask)
    request = {
        "module": module,
        "words": words,
        "descriptors": descriptors,
        "environment": {**os.environ},
        "umask": umask,
        "folder": os.getcwd(),
        "niceness": os.nice(0),
    }
    hears, tells = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
        try:
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            asked.connect(os.environ["LAB_LOADED_DRAIN"])
            socket.send_fds(asked, [json.dumps(request).encode()], [*descriptors, hears])
        except OSError:
            return  # we are another user, or it has ended
        for descriptor in (*lock, hears, tells):  # the last one tells that the drain alone has the lock now
            os.close(descriptor)
        asked.recv(16)  # its process id
        code = int(asked.recv(16) or -signal.SIGKILL)
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


if sys.orig_argv[3] in _MODULES:
    _have_it_done(*sys.orig_argv[3:])
