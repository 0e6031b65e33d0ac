"""The job on panoramisk: one asyncio loop, a coroutine for each call.

SQLite is called in the loop: a commit is shorter than the way to another thread and back.
"""

from __future__ import annotations

import asyncio
from typing import Any

from panoramisk import fast_agi

from bench.peers import job
from bench.peers.job import Job


class StartRecord:
    def __init__(self, its_job: Job) -> None:
        self._job = its_job

    async def run(self, request: Any) -> None:
        """One call."""
        _, key = (await request.send_command("GET VARIABLE apiKey"))["result"]
        if not self._job.is_key(key):
            await request.send_command("SET VARIABLE RECORDING_STATUS 401")
            return
        call = request.headers
        file = self._job.file(call["agi_uniqueid"])
        await request.send_command(f'EXEC MixMonitor "{file}"')
        self._job.store(
            call["agi_uniqueid"],
            call["agi_channel"],
            call["agi_callerid"],
            call["agi_extension"],
            call["agi_arg_2"],
            file,
        )
        await request.send_command("SET VARIABLE RECORDING_STATUS 200")


async def main() -> None:
    port, its_job = job.from_arguments()
    application = fast_agi.Application()
    application.add_route("start_record", StartRecord(its_job).run)
    server = await asyncio.start_server(application.handler, "127.0.0.1", port)
    job.tell_ready()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
