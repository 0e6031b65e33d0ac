"""TLS by the server itself: a reload takes a renewed certificate, and a bad one does not replace it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lab import certificates
from lab.certificates import NAME, Pair
from lab.curl import CurlFailed, curl
from lab.postgresql import free_port
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until


def is_trusted(served: Served, pair: Pair) -> bool:
    """Whether who trusts this certificate gets an answer."""
    port = served.http.rpartition(":")[2]
    url = f"https://{NAME}:{port}/openapi.json"
    try:
        answer = curl(url, resolve=f"{NAME}:{port}:127.0.0.1", cacert=str(pair.certificate))
    except CurlFailed as failure:
        if "certificate" not in str(failure):
            raise
        return False
    return answer.status == 200


def put(pair: Pair, place: Pair) -> None:
    shutil.copy(pair.certificate, place.certificate)
    shutil.copy(pair.key, place.key)


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Pair, Pair]:
    return certificates.make(tmp_path, "first", days=10), certificates.make(tmp_path, "second", days=20)


def days_left(served: Served) -> int:
    """As /metrics says."""
    metrics = curl(f"{served.http}/metrics", insecure=True).content.decode()
    return round(float(metrics.partition("\nnoojee_agi_certificate_days_left ")[2].split("\n")[0]))


def test_a_renewed_certificate_is_taken_with_a_reload(tmp_path: Path, pairs: tuple[Pair, Pair]) -> None:
    first, second = pairs
    used = Pair(tmp_path / "used.pem", tmp_path / "used.key")
    put(first, used)
    options = {"http.listen": f"127.0.0.1:{free_port()}", **used.options}
    with Served(Site(tmp_path / "site"), options) as served:
        wait_until(lambda: is_trusted(served, first), 10, "the first certificate")
        assert not is_trusted(served, second)
        put(second, used)
        assert days_left(served) == 10  # of the one in use
        served.reload()
        wait_until(lambda: is_trusted(served, second), 10, "the second certificate")
        assert not is_trusted(served, first)
        assert days_left(served) == 20
        shutil.copy(first.key, used.key)  # half of a renewal
        served.reload()
        wait_until(lambda: "the certificate before stays in use" in served.site.log(), 10, "a word about it")
        assert is_trusted(served, second)
