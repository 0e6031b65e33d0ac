"""What the Asterisk that runs must have: our programs where it looks for them, modules, and the key."""

import os
import re

from noojee_agi.actions import access
from noojee_agi.cli import install
from noojee_agi.cli.check import cures, folders, stage
from noojee_agi.cli.check.running import Running
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError

_GLOBAL = "apiKey"
_MODULES = {
    "app_mixmonitor": "nothing is recorded",
    "res_agi": "no program of ours is started",
    "func_env": "a server on another machine does not see that a file is there (STAT)",
    "func_strings": "the dialplan has no QUOTE() and FILTER() for a tag from outside",
}
# Those of Asterisk's own formats/: which module has which suffix.
_FORMATS = {
    **dict.fromkeys(("wav", "wav16"), "format_wav"),
    **dict.fromkeys(("wav49", "WAV"), "format_wav_gsm"),
    **dict.fromkeys(("ulaw", "ul", "mu", "ulw", "pcm", "alaw", "al", "alw", "au", "g722"), "format_pcm"),
    **dict.fromkeys(("sln", "slin", "raw", "sln12", "sln16", "sln24", "sln32", "sln48"), "format_sln"),
    **{name: f"format_{name}" for name in ("gsm", "g729", "g726", "ilbc", "vox", "siren7", "siren14")},
    "ogg": "format_ogg_vorbis",
}


def links(running: Running, programs: str) -> str:
    """Whether Asterisk finds our programs where it looks: its own astagidir, whatever a file says."""
    folder = running.setting("AGI Scripts directory")
    put = cures.ours(programs, "install-agi", folder)
    if not os.path.isdir(folder):
        if part := folders.closed_part(folder):
            raise NoojeeError(*folders.closed(os.path.join(part, "")))
        raise NoojeeError(
            f"astagidir = {folder} is not there", f"{stage.quoted('install', '-d', folder)} && {put}"
        )
    if not os.access(folder, os.X_OK):
        raise NoojeeError(*folders.closed(os.path.join(folder, "x")))
    for name in install.AGI_PROGRAMS:
        _require_link(os.path.join(folder, name), os.path.join(programs, name), put)
    return f"in {folder}"


def _require_link(link: str, program: str, put: str) -> None:
    """Raises NoojeeError."""
    if not os.path.lexists(link):
        raise NoojeeError(f"{link} is not there, so Asterisk does not find it", put)
    if not os.path.islink(link):
        moved = stage.quoted("mv", link, f"{link}.old")
        raise NoojeeError(
            f"{link} is a copy, and does not find what lies beside the program: it must be a link",
            f"{moved} && {put}",
        )
    if os.path.realpath(link) != os.path.realpath(program):
        what = "another noojee-agi" if os.path.exists(link) else "a program that is not there"
        raise NoojeeError(f"{link} leads to {what} ({os.readlink(link)})", put)


def modules(running: Running, config: Config) -> str:
    loaded = _loaded(running)
    for name, without in _MODULES.items():
        if name not in loaded:
            raise NoojeeError(f"{name}.so is not loaded, so {without}", _load(running, name))
    wanted, known = config.recordings_format, _suffixes(running)
    if wanted not in known:
        module = _FORMATS.get(wanted, "")
        if module and os.path.exists(_file_of(running, module)):
            raise NoojeeError(
                f"{module}.so is not loaded, so Asterisk writes no .{wanted} file", _load(running, module)
            )
        raise NoojeeError(
            f"[recordings] format = {wanted} is none that this Asterisk knows",
            cures.option(config, "recordings", "format", "wav"),
        )
    return f"{', '.join(_MODULES)}, and one that writes .{wanted}"


def _loaded(running: Running) -> set[str]:
    """Those that run: one may be there, and have declined to."""
    lines = running.ask("module show").splitlines()
    return {line.split(".so ")[0] for line in lines if ".so " in line and " Not Running " not in line}


def _suffixes(running: Running) -> set[str]:
    rows = [line.split() for line in running.ask("core show file formats").splitlines()]
    return {suffix for row in rows if len(row) == 3 for suffix in row[2].split("|")}


def _file_of(running: Running, module: str) -> str:
    return os.path.join(running.setting("Module directory"), f"{module}.so")


def _load(running: Running, module: str) -> str:
    """Now, and at the next start."""
    if not os.path.exists(_file_of(running, module)):
        return "apt-get install asterisk-modules"
    load = running.cure(f"module load {module}.so")
    conf = os.path.join(running.setting("Configuration directory"), "modules.conf")
    forbidden = [number for number, line in _numbered(conf) if _is_noload(line, module)]
    return f"{cures.remove_lines(conf, forbidden)} && {load}" if forbidden else load


def _is_noload(line: str, module: str) -> bool:
    return bool(re.match(rf"\s*noload\s*=>?\s*{module}(\.so)?\s*(;|$)", line))


def _numbered(path: str) -> list[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return list(enumerate(file.read().splitlines(), 1))
    except OSError:
        return []


def key_of_calls(running: Running, config: Config, digest: str, programs: str) -> str:
    """Whether the dialplan's global is the key. Its value is shown nowhere."""
    values = _globals(running)
    if _GLOBAL not in values:
        raise _no_global(running, values)
    if not access.matches(values[_GLOBAL], digest):
        if config.database_url.startswith("sqlite"):  # nobody else's key
            shown = f'{running.cure("dialplan show globals")} | sed -n "s/^ *{_GLOBAL}=//p"'
            cure = f"{shown} | {cures.ours(programs, 'apikey', 'set')}"
        else:
            cure = f"the line {_GLOBAL} = … below [globals], with the key that apikey new or apikey set had"
        raise NoojeeError(f"the global {_GLOBAL} is not this system's key, so calls answer 401", cure)
    return f"the global {_GLOBAL} is the key"


def has_global(running: Running) -> bool:
    """Whether every call has a key; else those of some endpoints may (set_var)."""
    return _GLOBAL in _globals(running)


def _globals(running: Running) -> dict[str, str]:
    lines = running.ask("dialplan show globals").splitlines()
    return dict(line[3:].split("=", 1) for line in lines if line.startswith("   ") and "=" in line)


def _no_global(running: Running, values: dict[str, str]) -> NoojeeError:
    folder = running.setting("Configuration directory")
    for name in values:
        if name.lower() == _GLOBAL.lower():
            return NoojeeError(
                f"the global is called {name}, and must be {_GLOBAL}", _renamed(running, folder, name)
            )
    if named := _setting_it(folder, rf"\s*{_GLOBAL}\s*=", ("extensions",)):
        return NoojeeError(
            f"{named} has {_GLOBAL}, and the dialplan that is loaded has not", running.cure("dialplan reload")
        )
    if named := _setting_it(folder, rf".*(set_?var\s*=>?\s*_*{_GLOBAL}|Set\(_*{_GLOBAL}\s*=)", ("",)):
        return stage.NotSeen(f"no global {_GLOBAL}; {named} sets it for some calls, and others answer 401")
    return NoojeeError(
        f"there is no global {_GLOBAL}, so calls answer 401",
        f"the line {_GLOBAL} = YOUR-KEY below [globals] in {folder}/extensions.conf,"
        f" then {running.cure('dialplan reload')}",
    )


def _renamed(running: Running, folder: str, name: str) -> str:
    file = _setting_it(folder, rf"\s*{re.escape(name)}\s*=", ("",)) or f"{folder}/extensions.conf"
    change = stage.quoted("sed", "-i", rf"s/^ *{name} *=/{_GLOBAL} =/", file)
    return f"{change} && {running.cure('dialplan reload')}"


def _setting_it(folder: str, pattern: str, beginnings: tuple[str, ...]) -> str:
    """The first file of the configuration with such a line; empty when there is none that we can read."""
    names = sorted(os.listdir(folder)) if os.access(folder, os.R_OK) else []
    names.sort(key=lambda name: not name.startswith(beginnings))
    for name in names:
        path = os.path.join(folder, name)
        if name.endswith(".conf") and any(re.match(pattern, line) for _, line in _numbered(path)):
            return path
    return ""
