"""FastAGI sessions: agi://host/start_record,410 or agi://host/start_record?tag=INV-22."""

from __future__ import annotations

import contextlib
import socket
import sys
from itertools import count, takewhile
from typing import NamedTuple
from urllib.parse import parse_qsl

from noojee_agi import text
from noojee_agi.actions.result import Report
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.stream import SESSION_SECONDS, Stream
from noojee_agi.errors import BadArgument, KeyRefused
from noojee_agi.server import counters, waiting
from noojee_agi.server.admission import KEY_BYTES, KEY_SECONDS, Admission
from noojee_agi.server.complaints import Complaints
from noojee_agi.server.reports import Reports
from noojee_agi.session import session
from noojee_agi.session.session import ACTIONS, Invocation

_MAX_PAIRS = 20
_QUEUE_SECONDS = 10.0  # in the kernel's queue: whoever has waited longer is not kept any longer
_TCP_INFO_BYTES, _LAST_DATA_RECEIVED = 64, 52  # linux/tcp.h, struct tcp_info, in milliseconds
_IPV4_MAPPED = "::ffff:"  # how a socket that listens on [::] tells an IPv4 address (RFC 4291)


class FastAgi(NamedTuple):
    """Serves one connection after the other, each in a session of its own."""

    admission: Admission
    complaints: Complaints
    surroundings: session.Surroundings
    reports: Reports

    def serve(self, connection: socket.socket, address: str) -> None:
        """Called within a session of the loop; closes the connection."""
        current = waiting.current()
        with contextlib.closing(connection):
            if _waited(connection) > _QUEUE_SECONDS:
                self.complaints.add(
                    "%s waited to be heard for %g s and was sent away", address, _QUEUE_SECONDS
                )
                self.reports.count(counters.FAILED, 1)
                return
            descriptor = connection.fileno()
            said, wait = _said_already(connection), waiting.wait_for_event
            most_bytes = KEY_BYTES - len(said)
            stream = Stream(descriptor, descriptor, said, wait, KEY_SECONDS, most_bytes, blocks=False)

            is_admitted = False

            def admit() -> None:
                nonlocal is_admitted
                is_admitted = True
                self.admission.remove(current)
                stream.extend(SESSION_SECONDS)
                self.reports.count(counters.RUNNING, 1)

            self.admission.add(current, address)
            report = session.run(
                (stream, stream),
                invocation_of,
                self.surroundings,
                host=other_host(connection, address),
                admit=admit,
            )
            current.stop_reading()
        self.admission.remove(current)
        self._has_ended(report, address, is_admitted)

    def _has_ended(self, report: Report, address: str, is_admitted: bool) -> None:
        """Who comes and goes without a word, as monitoring does, is no line of the log."""
        if is_admitted:
            self.reports.count(counters.RUNNING, -1)
            self.reports.add(report)
        elif report.result.status == KeyRefused.status or report.failure:
            self.reports.add(report)
        elif report.uniqueid:
            self.complaints.add("%s showed no apiKey within %g s and was sent away", address, KEY_SECONDS)


def invocation_of(channel: Channel) -> Invocation:
    """The program, its arguments and its query. Raises BadArgument.

    Asterisk passes the request on as it is written, nothing decoded (res_agi.c launch_netscript).
    """
    path, _, query = channel.environment.get("agi_network_script", "").strip().partition("?")
    program = path.strip("/").removesuffix(".py")
    if program not in ACTIONS:
        raise BadArgument(f"there is no program {text.plain(path)}, only {', '.join(ACTIONS)}")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PAIRS)
    except ValueError as exc:
        raise BadArgument(f"more than {_MAX_PAIRS} arguments after the question mark") from exc
    names = takewhile(channel.environment.__contains__, (f"agi_arg_{number}" for number in count(1)))
    return Invocation(program, [channel.environment[name] for name in names], pairs)


def _said_already(connection: socket.socket) -> bytes:
    """Asterisk says its environment when it has connected; this spares a turn of the loop."""
    with contextlib.suppress(OSError):  # nothing yet, or it is told by the next read
        return connection.recv(KEY_BYTES)
    return b""


def _waited(connection: socket.socket) -> float:
    """How many seconds ago it has said something, or connected (tcp(7), TCP_INFO)."""
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int.from_bytes(told[_LAST_DATA_RECEIVED : _LAST_DATA_RECEIVED + 4], sys.byteorder) / 1000


def other_host(connection: socket.socket, address: str) -> str:
    """The address of the Asterisk at the other end; empty when it is on this machine."""
    return "" if address == connection.getsockname()[0] else address.removeprefix(_IPV4_MAPPED)
