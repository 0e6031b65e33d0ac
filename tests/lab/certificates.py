"""Certificates for https, each signed by itself, as `openssl` makes them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from lab.unavailable import LabUnavailable

NAME = "pbx.example.com"


class Pair(NamedTuple):
    certificate: Path
    key: Path

    @property
    def options(self) -> dict[str, str]:
        """For lab.site."""
        return {"http.certificate": str(self.certificate), "http.certificate_key": str(self.key)}


def make(folder: Path, name: str = "pbx", days: int = 365, password: str = "") -> Pair:
    """Files in that folder, for NAME and localhost. password: of the key; empty: none.

    Raises LabUnavailable.
    """
    if not shutil.which("openssl"):
        raise LabUnavailable("no openssl on this machine: apt-get install openssl")
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},DNS:localhost"),
            *("-days", str(days)),
            *("-out", str(pair.certificate), "-keyout", str(pair.key)),
            *(("-passout", f"pass:{password}") if password else ("-nodes",)),
        ],
        check=True,
        capture_output=True,
    )
    return pair
