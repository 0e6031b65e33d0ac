"""The job on pyst2: a thread for each call. pyst2's own fastagi does not run on Python 3 (its issue 65)."""

from __future__ import annotations

import io
import socketserver
from pathlib import Path
from typing import Any

from asterisk import agi

from bench.peers import job
from bench.peers.job import Job


class Agi(agi.AGI):  # type: ignore[misc]
    def __init__(self, stdin: io.TextIOBase, stdout: io.TextIOBase, stderr: io.TextIOBase) -> None:
        """As pyst2's, but without a handler for SIGHUP: Python lets the main thread alone have that."""
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._got_sighup = False
        self.env: dict[str, str] = {}
        self._get_agi_env()


class Handler(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        """One call."""
        with self.request.makefile("rw", encoding="utf-8") as stream:
            self._record(Agi(stream, stream, self.server.stderr), self.server.job)

    def _record(self, channel: Any, its_job: Job) -> None:
        if not its_job.is_key(channel.get_variable("apiKey")):
            channel.set_variable("RECORDING_STATUS", "401")
            return
        call = channel.env
        file = its_job.file(call["agi_uniqueid"])
        channel.appexec("MixMonitor", file)
        its_job.store(
            call["agi_uniqueid"],
            call["agi_channel"],
            call["agi_callerid"],
            call["agi_extension"],
            call["agi_arg_2"],
            file,
        )
        channel.set_variable("RECORDING_STATUS", "200")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128  # with the default of 5 a caller may wait a second for the next SYN

    def __init__(self, port: int, its_job: Job, stderr: Any) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.job = its_job
        self.stderr = stderr


def main() -> None:
    port, its_job = job.from_arguments()
    with Path("/dev/null").open(
        "w"
    ) as stderr:  # where Asterisk's service has it, and pyst2 writes every line
        server = Server(port, its_job, stderr)
        job.tell_ready()
        server.serve_forever()


if __name__ == "__main__":
    main()
