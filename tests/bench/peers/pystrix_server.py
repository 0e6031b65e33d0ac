"""The job on pystrix: its FastAGIServer has a thread for each call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pystrix.agi import FastAGIServer, core

from bench.peers import job
from bench.peers.job import Job


class Server(FastAGIServer):  # type: ignore[misc]
    @staticmethod
    def get_somaxconn() -> int:
        """Without the program sysctl, which not every machine has in its PATH."""
        return int(Path("/proc/sys/net/core/somaxconn").read_text())


class StartRecord:
    def __init__(self, its_job: Job) -> None:
        self._job = its_job

    def run(self, agi: Any, args: tuple[str, ...], _kwargs: object, _match: object, _path: str) -> None:
        """One call."""
        if not self._job.is_key(agi.execute(core.GetVariable("apiKey"))):
            agi.execute(core.SetVariable("RECORDING_STATUS", "401"))
            return
        call = agi.get_environment()
        file = self._job.file(call["agi_uniqueid"])
        agi.execute(core.Exec("MixMonitor", (file,)))
        self._job.store(
            call["agi_uniqueid"],
            call["agi_channel"],
            call["agi_callerid"],
            call["agi_extension"],
            args[1],
            file,
        )
        agi.execute(core.SetVariable("RECORDING_STATUS", "200"))


def main() -> None:
    port, its_job = job.from_arguments()
    server = Server("127.0.0.1", port)
    server.register_script_handler(re.compile("start_record"), StartRecord(its_job).run)
    job.tell_ready()
    server.serve_forever()


if __name__ == "__main__":
    main()
