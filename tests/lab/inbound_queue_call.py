"""Places one call through dialplan-examples/inbound-queue.conf and prints what became of it."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from lab import tones
from lab.asterisk import AsteriskFailed, PrivateAsterisk, find
from lab.site import Site
from lab.unavailable import LabUnavailable

EXAMPLES = Path(__file__).resolve().parents[2] / "dialplan-examples"
CALLER_HERTZ, AGENT_HERTZ = 425, 1004
AUDIBLE = 0.02  # of a file's power: noise is below 0.001

# The other ends of the call: a caller with a tone, and the agent's telephone with another.
PARTIES = """
[caller]
exten => dial,1,Set(CALLERID(num)=0395551234)
 same => n,Dial(Local/5550100@inbound-sales/n)
exten => speak,1,Answer()
 same => n,Playtones(425)
 same => n,Wait(4)
 same => n,Hangup()

[agents]
exten => 410,1,Wait(0.5)
 same => n,Answer()
 same => n,Milliwatt()
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="noojee-agi-") as folder:
        try:
            return _call(Path(folder))
        except (LabUnavailable, AsteriskFailed) as exc:
            print(f"dialplan-examples/run: {exc}", file=sys.stderr)
            return 1


def _call(folder: Path) -> int:
    site = Site(folder / "noojee")
    site.cli("account", "add", "Ann")
    site.cli("attach", "Ann", "410")
    installation = find(None)
    extensions = f"[globals]\napiKey = {site.key}\n#include {EXAMPLES / 'inbound-queue.conf'}\n{PARTIES}"
    files = {"queues.conf": (EXAMPLES / "queues.conf").read_text()}
    with PrivateAsterisk(
        installation, folder / "asterisk", extensions, files, site.environment, site.agi_directory
    ) as asterisk:
        print(f"Asterisk {installation.version}: a caller reaches the queue sales, the agent at 410 answers")
        asterisk.originate("dial@caller/n", "speak@caller")
        asterisk.wait_quiet()
        (leg,) = site.wait_for_legs(status="completed")
        seen = re.findall(r"\[h@inbound-sales:3\] NoOp\(\S+ \"(.*)\"\)", asterisk.log())
    return _report(seen, leg)


def _report(seen: list[str], leg: dict[str, object]) -> int:
    audio = Path(str(leg["file"]))
    print(f"\nThe dialplan saw     {seen[-1] if seen else 'nothing'}")
    print("\nThe call record")
    _print(leg, "call_record_id", "call_uniqueid", "source", "destination", "external_reference")
    print("\nThe recording leg")
    _print(leg, "id", "leg", "channel", "extension", "owner", "tag", "status")
    _print(leg, "started_at", "ended_at", "duration_seconds", "bytes", "file")
    print("\nThe audio in the file")
    shares = {"the caller": CALLER_HERTZ, "the agent": AGENT_HERTZ}
    heard = {party: tones.share(audio, hertz) for party, hertz in shares.items()}
    for party, share in heard.items():
        verdict = "is heard" if share > AUDIBLE else "IS NOT HEARD"
        print(f"  {party + ', ' + str(shares[party]) + ' Hz':<19}{verdict}: {share:.1%} of the power")
    good = bool(seen) and seen[-1].startswith("200 OK") and leg["owner"] == "Ann"
    good = good and min(heard.values()) > AUDIBLE
    print("\nThe call was recorded." if good else "\nSOMETHING IS WRONG: see above.")
    return 0 if good else 1


def _print(leg: dict[str, object], *names: str) -> None:
    for name in names:
        print(f"  {name:<19}{leg[name]}")


if __name__ == "__main__":
    sys.exit(main())
