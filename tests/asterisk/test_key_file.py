"""The key's file, as README has it included."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.asterisk import PrivateAsterisk, find

pytestmark = pytest.mark.asterisk

DIALPLAN = """\
[globals]
#tryinclude noojee_key.conf
[calls]
exten => 100,1,NoOp()
"""


@pytest.mark.parametrize("version", [22, 16])
def test_a_key_file_that_is_missing_takes_no_dialplan_down(version: int, tmp_path: Path) -> None:
    with PrivateAsterisk(find(version), tmp_path / "asterisk", DIALPLAN) as asterisk:
        assert "NoOp" in asterisk.rx("dialplan show 100@calls")

        (asterisk.folder / "etc/noojee_key.conf").write_text("[globals](+)\napiKey = the-key\n")
        asterisk.rx("dialplan reload")

        assert "NoOp" in asterisk.rx("dialplan show 100@calls")
        assert "apiKey=the-key" in asterisk.rx("dialplan show globals").replace(" ", "")
