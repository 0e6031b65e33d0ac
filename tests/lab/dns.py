"""A private DNS server, dnsmasq, in the network of one of lab.hosts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab import debian, processes
from lab.hosts import Host
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until

START_SECONDS = 10.0
STOP_SECONDS = 5.0
DOMAIN = "test"  # reserved for that (RFC 6761)


def find() -> list[str]:
    """Return the words that run the machine's own dnsmasq, or else Debian's. Raises LabUnavailable."""
    installed = shutil.which("dnsmasq")
    if installed is not None:
        return [installed]
    root = debian.unpack("dnsmasq-base", debian.own_suite())
    return [*debian.loader_command(root), str(root / "usr/sbin/dnsmasq")]


@contextmanager
def dns_server(place: Host, records: Sequence[str], log: Path) -> Iterator[None]:
    """Answer at place.address, port 53, from `records` (options of dnsmasq) and for DOMAIN only.

    Every question is in `log`. Raises LabUnavailable.
    """
    options = [
        *("--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="),
        *("--user=root", "--group=root", "--log-queries", "--log-facility=-", "--bind-interfaces"),
        *(f"--listen-address={place.address}", f"--local=/{DOMAIN}/", *records),
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*processes.dies_with_us(), *place.enter, *find(), *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(
            lambda: server.poll() is not None or b"started" in log.read_bytes(), START_SECONDS, "dnsmasq"
        )
        if server.poll() is not None:
            raise LabUnavailable(f"dnsmasq does not run here: {log.read_text(errors='replace')[-300:]}")
        yield
    finally:
        processes.end(server, STOP_SECONDS)
