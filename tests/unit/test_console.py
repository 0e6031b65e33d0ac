"""Where Asterisk's command line is, by asterisk.conf as Asterisk reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from noojee_agi.asterisk import console
from noojee_agi.cli import install

DEBIAN = """\
[directories](!)
astrundir => /of/a/template
astagidir => /of/a/template/agi-bin
[options]
;verbose = 3
systemname = pbx1 ; ours
"""
OWN = """\
[directories]
astrundir => /run/own ; not the usual one
astagidir = /srv/agi-bin
[files]
astctl = own.ctl
"""


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (DEBIAN, "/var/run/asterisk/asterisk.ctl"),
        (OWN, "/run/own/own.ctl"),
        (DEBIAN + "[directories](+)\nastrundir => /run/more\n", "/run/more/asterisk.ctl"),
        ("", "/var/run/asterisk/asterisk.ctl"),
    ],
)
def test_a_template_of_asterisk_conf_counts_for_nothing(tmp_path: Path, text: str, path: str) -> None:
    conf = tmp_path / "asterisk.conf"
    conf.write_text(text)

    assert console.at(str(conf)) == console.Console(str(conf), path)


def test_programs_are_linked_where_asterisk_looks_and_not_where_a_template_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asterisk.conf").write_text(DEBIAN)
    monkeypatch.setattr(install, "USUAL_AGI_FOLDERS", (str(tmp_path),))

    assert install.agi_folder({"AST_CONFIG_DIR": str(tmp_path)}) == str(tmp_path)
