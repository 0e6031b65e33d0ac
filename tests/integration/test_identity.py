"""Root works as whoever could lead it elsewhere, or not at all: on real folders of real users."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.loaded_command import loaded
from lab.site import PROGRAMS

from integration.recorder import exit_code, forked
from noojee_agi.cli import identity
from noojee_agi.cli.install import AGI_PROGRAMS
from noojee_agi.errors import ConfigurationError
from noojee_agi.recordings import history

NOBODY = pwd.getpwnam("nobody")
DAEMON = pwd.getpwnam("daemon")
ROOT = [0, 0, 0]
NO_NAME = 54321
NO_GROUP = 65534


@pytest.fixture
def top() -> Iterator[Path]:
    """A folder of root's that everybody can enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user: run this test as root")
    folder = Path(tempfile.mkdtemp(prefix="noojee-agi-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def folder(path: Path, uid: int = 0, mode: int = 0o755) -> Path:
    path.mkdir()
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path


def link(path: Path, target: Path | str, uid: int = 0) -> Path:
    path.symlink_to(target)
    os.lchown(path, uid, uid)
    return path


def site(top: Path, recordings: Path, **options: Path) -> str:
    """A configuration of root's with these recordings."""
    conf = top / "noojee_agi.conf"
    state = options.get("state", recordings)
    database = options.get("database", state)
    conf.write_text(
        f"[recordings]\ndirectory = {recordings}\n[state]\ndirectory = {state}\n"
        f"[database]\nurl = sqlite:///{database}/noojee.db\n"
    )
    conf.chmod(0o644)
    return str(conf)


def become(work: Callable[[], object]) -> tuple[list[int], list[int], str]:
    """Who a process is after work: its user ids, its groups, and the error."""
    hears, tells = os.pipe()

    def tell() -> None:
        problem = ""
        try:
            work()
        except (ConfigurationError, OSError) as exc:
            problem = str(exc)
        answer = [os.getresuid(), sorted({*os.getresgid(), *os.getgroups()}), problem]
        os.write(tells, json.dumps(answer).encode())

    child = forked(tell)
    os.close(tells)
    with open(hears, encoding="utf-8") as answer:
        users, groups, problem = json.load(answer)
    assert exit_code(child) == 0
    return users, groups, problem


def who(conf: str) -> object:
    """The name of the user that a command acts as; the error, if it refuses."""
    users, _, problem = become(lambda: identity.begin(conf))
    assert len(set(users)) == 1, users
    return problem or pwd.getpwuid(users[0]).pw_name


# Each makes a layout below a folder of root's and returns the recordings' path.
def _as_the_readme_has_it(top: Path) -> Path:
    return folder(folder(top / "asterisk", NOBODY.pw_uid) / "noojee", NOBODY.pw_uid, 0o750)


def _on_a_disk_of_their_own(top: Path) -> Path:
    return folder(folder(top / "srv") / "noojee", NOBODY.pw_uid, 0o750)


def _by_a_link_of_roots(top: Path) -> Path:
    disk = folder(folder(top / "disk") / "noojee", NOBODY.pw_uid)
    return link(top / "noojee", f"../{top.name}/./{disk.relative_to(top)}/")


def _by_a_link_in_front(top: Path) -> Path:
    folder(folder(top / "disk") / "noojee", NOBODY.pw_uid)
    return link(top / "spool", top / "disk") / "noojee"


def _attack_by_a_link_to_what_is_open(top: Path) -> Path:
    folder(top / "open", mode=0o1777)
    return link(folder(top / "asterisk", NOBODY.pw_uid) / "noojee", top / "open", NOBODY.pw_uid)


def _attack_by_a_link_to_what_is_roots(top: Path) -> Path:
    folder(top / "etc")
    return link(folder(top / "asterisk", NOBODY.pw_uid) / "noojee", top / "etc", NOBODY.pw_uid)


def _attack_by_a_link_in_a_sticky_folder(top: Path) -> Path:
    folder(top / "etc")
    return link(folder(top / "tmp", mode=0o1777) / "noojee", top / "etc", NOBODY.pw_uid)


def _attack_by_a_link_further_up(top: Path) -> Path:
    folder(folder(top / "etc") / "noojee")
    return link(folder(top / "asterisk", NOBODY.pw_uid) / "spool", top / "etc", NOBODY.pw_uid) / "noojee"


def _attack_by_the_way_back(top: Path) -> Path:
    folder(top / "etc")
    folder(top / "asterisk", NOBODY.pw_uid)
    return top / "asterisk" / ".." / "etc"


def _root_folder_below_anothers(top: Path) -> Path:
    return folder(folder(top / "asterisk", NOBODY.pw_uid) / "noojee")


@pytest.mark.parametrize(
    "layout",
    [_as_the_readme_has_it, _on_a_disk_of_their_own, _by_a_link_of_roots, _by_a_link_in_front],
)
def test_root_acts_as_asterisks_user_in_the_usual_places(top: Path, layout: Callable[[Path], Path]) -> None:
    conf = site(top, layout(top))

    users, groups, problem = become(lambda: identity.begin(conf))

    assert (users, problem) == ([NOBODY.pw_uid] * 3, "")
    assert groups == [NOBODY.pw_gid]


@pytest.mark.parametrize(
    "attack",
    [
        *(_attack_by_a_link_to_what_is_open, _attack_by_a_link_to_what_is_roots),
        *(_attack_by_a_link_in_a_sticky_folder, _attack_by_a_link_further_up, _attack_by_the_way_back),
        _root_folder_below_anothers,
    ],
)
def test_whoever_can_change_the_way_gets_no_more_than_himself(
    top: Path, attack: Callable[[Path], Path]
) -> None:
    """Refused or not: what follows is done, or said, by a process that is he."""
    conf = site(top, attack(top))

    users, groups, problem = become(lambda: identity.begin(conf))

    assert (users, groups) == ([NOBODY.pw_uid] * 3, [NOBODY.pw_gid])
    assert problem == "" or "so root acts as that user, who cannot write" in problem


def test_root_works_as_root_where_all_is_roots(top: Path) -> None:
    assert who(site(top, folder(top / "noojee", mode=0o750))) == "root"
    sticky = folder(top / "tmp", mode=0o1777)
    assert who(site(top, folder(sticky / "noojee", mode=0o750))) == "root"


@pytest.mark.parametrize(
    ("between", "last"), [(0o777, 0o755), (0o775, 0o755), (0o2775, 0o755), (0o755, 0o1777), (0o755, 0o770)]
)
def test_what_is_in_nobody_knows_whose_hands_is_refused(top: Path, between: int, last: int) -> None:
    recordings = folder(folder(top / "srv", mode=between) / "noojee", mode=last)

    said = who(site(top, recordings))

    assert re.search(r"belongs to root, but others can write there.*chmod g-w,o-w /tmp/", str(said))


def test_links_that_go_round_in_a_circle_are_an_error(top: Path) -> None:
    link(top / "a", "b")
    link(top / "b", "a")

    assert "Too many levels of symbolic links" in str(who(site(top, top / "a")))


def _state(top: Path, recordings: Path) -> str:
    return site(top, recordings, state=folder(top / "state", NOBODY.pw_uid))


def _day(top: Path, recordings: Path) -> str:
    folder(folder(recordings / "2026") / "11", NOBODY.pw_uid)
    return site(top, recordings)


def _linked_year(top: Path, recordings: Path) -> str:
    link(recordings / "2026", folder(top / "disk", NOBODY.pw_uid))
    return site(top, recordings)


def _month_of_a_linked_year(top: Path, recordings: Path) -> str:
    year = folder(top / "disk")
    folder(year / "11", NOBODY.pw_uid)
    link(recordings / "2026", year)
    return site(top, recordings)


def _second_way(top: Path, recordings: Path) -> str:
    """To a place that is walked anyway, but by way of another user's link."""
    link(recordings / "2025", link(folder(top / "his", NOBODY.pw_uid) / "there", folder(recordings / "2024")))
    return site(top, recordings)


def _spool(top: Path, recordings: Path) -> str:
    folder(recordings / ".spool", NOBODY.pw_uid)
    return site(top, recordings)


def _database(top: Path, recordings: Path) -> str:
    return site(top, recordings, database=folder(top / "database", NOBODY.pw_uid))


def _socket(top: Path, recordings: Path) -> str:
    conf = site(top, recordings)
    socket = folder(top / "run", NOBODY.pw_uid) / "agi.sock"
    Path(conf).write_text(f"{Path(conf).read_text()}[server]\nsocket = {socket}\n")
    return conf


MIXES = [_state, _day, _linked_year, _month_of_a_linked_year, _second_way, _spool, _database, _socket]


@pytest.mark.parametrize("mix", MIXES)
def test_root_that_stays_root_works_in_no_folder_of_another_user(
    top: Path, mix: Callable[[Path, Path], str]
) -> None:
    said = who(mix(top, folder(top / "noojee")))

    assert re.search(r"user nobody can change /tmp/.*, where root does not work: give ", str(said))


def test_whoever_can_write_the_configuration_decides_first(top: Path) -> None:
    """He decides where everything is, so all is done as him: his own recordings work, another's do not."""
    his, other = folder(top / "his", NOBODY.pw_uid), folder(top / "other", DAEMON.pw_uid)
    conf = Path(site(top, his))
    os.chown(conf, NOBODY.pw_uid, NOBODY.pw_gid)
    assert who(str(conf)) == "nobody"

    site(top, other)
    users, _, problem = become(lambda: identity.begin(str(conf)))

    assert users == [NOBODY.pw_uid] * 3
    assert f"{conf} is user nobody's, so root acts as that user, who cannot write in {other}" in problem


def test_a_configuration_in_a_folder_of_asterisks_is_read_as_asterisk(top: Path) -> None:
    """It may be a link to what only root can read."""
    secret = top / "shadow"
    secret.write_text("[root:secret]\n")
    secret.chmod(0o600)
    conf = link(folder(top / "etc", NOBODY.pw_uid) / "noojee_agi.conf", secret, NOBODY.pw_uid)

    users, _, problem = become(lambda: identity.begin(str(conf)))

    assert (users, problem) == ([NOBODY.pw_uid] * 3, f"{conf}: cannot be read: Permission denied")


def test_a_configuration_that_a_group_can_write_is_refused(top: Path) -> None:
    conf = Path(site(top, _as_the_readme_has_it(top)))
    conf.chmod(0o660)

    assert f"chmod g-w,o-w {conf}" in str(who(str(conf)))


def test_the_history_is_read_only_as_who_root_has_become(top: Path) -> None:
    """The way to it may be another user's link to what only root can read."""
    secret = folder(top / "secret", mode=0o700)
    machine = history._machine()
    (secret / "history").write_text(f"machine {machine}\nhost what-only-root-knows\n")
    state = link(folder(top / "his", NOBODY.pw_uid) / "state", secret, NOBODY.pw_uid)
    conf = site(top, _as_the_readme_has_it(top), state=state)

    def begin() -> None:
        raise ConfigurationError(identity.begin(conf).server_name)

    assert become(begin)[2] == os.uname().nodename


def test_a_user_without_a_name_has_no_group_of_anybodys(top: Path) -> None:
    """His folder's group may be root's."""
    recordings = folder(top / "noojee", NO_NAME)
    os.chown(recordings, NO_NAME, 0)
    conf = site(top, recordings)

    users, groups, problem = become(lambda: identity.begin(conf))

    assert (users, groups, problem) == ([NO_NAME] * 3, [NO_GROUP], "")


def test_roots_rights_are_gone_for_good(top: Path) -> None:
    conf = site(top, _as_the_readme_has_it(top))

    def try_again() -> None:
        identity.begin(conf)
        with pytest.raises(PermissionError):
            os.setuid(0)
        with pytest.raises(PermissionError):
            os.setgroups([0])
        Path("/proc/self/status").read_text().index("CapEff:\t0000000000000000")

    assert become(try_again)[2] == ""


def test_a_server_that_is_root_takes_no_configuration_of_another_user(top: Path) -> None:
    conf = site(top, folder(top / "noojee"))

    def reload() -> None:
        identity.begin(conf)
        site(top, top / "noojee", state=folder(top / "state", NOBODY.pw_uid))
        identity.load(conf)

    users, _, problem = become(reload)

    assert (users, "user nobody can change" in problem) == (ROOT, True)


def test_a_configuration_that_is_away_for_a_moment_ends_no_server(top: Path) -> None:
    """What is no ConfigurationError ends it: SIGHUP shall leave the configuration as it was."""
    conf = site(top, folder(top / "noojee"))

    def reload() -> None:
        identity.begin(conf)
        Path(conf).unlink()
        with pytest.raises(ConfigurationError):
            identity.load(conf)

    assert become(reload)[2] == ""


def run(conf: str, *words: str) -> subprocess.CompletedProcess[str]:
    return loaded(PROGRAMS / "noojee-agi").run(words, "", {"NOOJEE_AGI_CONF": conf, "HOME": "/root"})


def of_root(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.lstat().st_uid == 0]


def _lay_the_trap(top: Path, victim: Path) -> Path:
    """What Asterisk's user has prepared in a folder of root's that all can write; returns the recordings."""
    recordings = _attack_by_a_link_to_what_is_open(top)
    spool = folder(top / "open/.spool", NOBODY.pw_uid)
    aside = folder(spool / "rejected", NOBODY.pw_uid)
    line = (
        '{"event": "finished", "leg_id": "\\nssh-ed25519 AAAA\\n", "status": "failed",'
        ' "ended_at": "2025-01-01T00:00:00+00:00"}'
    )
    for event in (spool / "journal", spool / "1-finished-x.json"):
        event.write_text(line)
        os.chown(event, NOBODY.pw_uid, NOBODY.pw_gid)
    for number in range(2000):  # one of the next process ids
        link(aside / f"{event.name}.reason.{os.getpid() + number}.tmp", victim, NOBODY.pw_uid)
    return recordings


@pytest.mark.parametrize("words", [("sync",), ("check",), ("apikey", "new"), ("db", "upgrade")], ids=" ".join)
def test_the_way_to_root_by_a_link_and_a_spool_file_is_closed(top: Path, words: tuple[str, ...]) -> None:
    victim = top / "authorized_keys"
    victim.write_text("root's")
    state = folder(top / "state", NOBODY.pw_uid)
    conf = site(top, _lay_the_trap(top, victim), state=state)

    done = run(conf, *words)

    assert "Traceback" not in done.stderr
    assert (victim.read_text(), of_root(state), of_root(top / "open")) == ("root's", [], [])


def test_the_recordings_folder_may_change_at_any_moment(top: Path) -> None:
    """No moment is the wrong one: the owner of the folder above was seen, not what it holds."""
    asterisk = folder(top / "asterisk", NOBODY.pw_uid)
    folder(top / "etc")
    conf = site(top, asterisk / "noojee")
    folder(asterisk / "real", NOBODY.pw_uid)
    attacker = os.fork()
    if not attacker:
        while True:
            for target in ("real", top / "etc"):
                os.symlink(target, asterisk / "new")
                os.replace(asterisk / "new", asterisk / "noojee")
    try:
        users = [become(lambda: identity.begin(conf))[0] for _ in range(10)]
    finally:
        os.kill(attacker, 9)
        os.waitpid(attacker, 0)

    assert users == [[NOBODY.pw_uid] * 3] * 10


def exchanged_when_seen(path: Path, other: Path, looks: int = 1) -> None:
    """Let the owner of path put other in its place as soon as root has looked at it so often."""
    lstat, left = os.lstat, [looks]

    def look(seen: str) -> os.stat_result:
        status = lstat(seen)
        if seen == str(path):
            left[0] -= 1
            if left[0] == 0:
                path.rename(path.with_suffix(".old"))
                other.rename(path)
        return status

    os.lstat = look  # type: ignore[assignment]


def test_what_is_put_in_the_place_of_what_was_seen_does_not_make_root_stay_root(top: Path) -> None:
    """In a sticky folder the owner of an entry may put one of root's there instead (rename(2))."""
    sticky = folder(top / "tmp", mode=0o1777)
    recordings, roots = folder(sticky / "noojee", NOBODY.pw_uid), folder(sticky / "roots")
    conf = site(top, recordings)

    def begin() -> None:
        exchanged_when_seen(recordings, roots)
        identity.begin(conf)

    users, _, problem = become(begin)

    assert users == [NOBODY.pw_uid] * 3
    assert "so root acts as that user, who cannot write in" in problem


# --- install-agi ---


@pytest.mark.parametrize("old", ["", "start_record.py.new"])
def test_links_in_a_folder_of_asterisks_are_made_by_asterisk(top: Path, old: str) -> None:
    agi_bin = folder(top / "agi-bin", NOBODY.pw_uid)
    if old:
        link(agi_bin / old, top / "elsewhere", NOBODY.pw_uid)

    done = run("", "install-agi", str(agi_bin))

    assert done.returncode == 0, done.stderr
    made = {path.name: path.lstat().st_uid for path in agi_bin.iterdir()}
    assert made == dict.fromkeys(filter(None, [*AGI_PROGRAMS, old]), NOBODY.pw_uid)


def test_root_makes_no_link_where_another_user_leads_it(top: Path) -> None:
    etc = folder(top / "etc")
    agi_bin = link(folder(top / "lib", NOBODY.pw_uid) / "agi-bin", etc, NOBODY.pw_uid)

    done = run("", "install-agi", str(agi_bin))

    assert (done.returncode, list(etc.iterdir())) == (1, [])
    assert f"so root acts as that user, who cannot write in {agi_bin}: chown nobody: " in done.stderr


def test_a_folder_that_another_user_has_named_is_not_roots_to_write_in(top: Path) -> None:
    etc, asterisk = folder(top / "etc"), folder(top / "asterisk", NOBODY.pw_uid)
    (asterisk / "asterisk.conf").write_text(f"[directories]\nastagidir => {etc}\n")

    done = loaded(PROGRAMS / "noojee-agi").run(["install-agi"], "", {"AST_CONFIG_DIR": str(asterisk)})

    assert (done.returncode, list(etc.iterdir())) == (1, [])
    assert f"names {etc}, and user nobody can change that: name the folder yourself" in done.stderr


def test_who_names_a_folder_of_his_is_acted_for_whatever_he_puts_in_its_place(top: Path) -> None:
    sticky = folder(top / "tmp", mode=0o1777)
    agi_bin, roots = folder(sticky / "agi-bin", NOBODY.pw_uid), folder(sticky / "roots")
    conf = folder(top / "asterisk", NOBODY.pw_uid) / "asterisk.conf"
    conf.write_text(f"[directories]\nastagidir => {agi_bin}\n")

    def install() -> None:
        exchanged_when_seen(agi_bin, roots)
        identity.act_for_namer(str(agi_bin), str(conf))
        identity.act_for(str(agi_bin))

    users, _, problem = become(install)

    assert users == [NOBODY.pw_uid] * 3
    assert "so root acts as that user, who cannot write in" in problem
