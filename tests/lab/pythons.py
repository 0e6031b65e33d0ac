"""Other versions of Python, each with a virtual environment in the cache for the unit tests."""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import noojee_agi
from lab import debian
from lab.unavailable import LabUnavailable

TOP = Path(__file__).parents[2]
OLDEST, NEWEST = "3.10", "3.14"
DEBIAN_SUITES = {"3.14": ("forky", "sid")}  # what no stable Debian has
_FOR_UNIT_TESTS = ("pytest ", "pytest-timeout ", "hypothesis ")
INSTALL_SECONDS = 240
# With the C library that it was made for; it takes itself for this file, as a virtual environment needs it.
_WRAPPER = """\
#!/bin/sh
exec {loader} --argv0 "$0" --library-path {libraries} {program} "$@"
"""


def with_product(version: str, folder: Path) -> Path:
    """Return a python of that version in a new `folder`, with this checkout's installed product.

    Raises LabUnavailable.
    """
    known = _with_requirements(version)
    _run([str(known), "-m", "venv", "--without-pip", "--symlinks", str(folder)])
    (ours,), (theirs,) = (each.glob("lib/python*/site-packages") for each in (folder, known.parents[1]))
    for package in theirs.iterdir():
        (ours / package.name).symlink_to(package)
    shutil.copytree(Path(noojee_agi.__file__).parent, ours / "noojee_agi")
    python = folder / "bin/python"
    _run([str(python), "-m", "compileall", "-q", str(ours / "noojee_agi")])
    for program in Path(sys.executable).parent.glob("*_record.py"):
        installed = folder / "bin" / program.name
        installed.write_text(f"#!{python}\n{program.read_text().partition(chr(10))[2]}")
        installed.chmod(0o755)
    return python


def _with_requirements(version: str) -> Path:
    """A python of that version that has all that the product and its unit tests need.

    The first call installs that; later ones find it in the cache. Raises LabUnavailable.
    """
    needed = _requirements()
    python = _find(version)
    key = hashlib.sha256("\n".join([str(python), *needed]).encode()).hexdigest()[:12]
    folder = debian.cache() / "pythons"
    folder.mkdir(parents=True, exist_ok=True)
    environment = folder / f"{version}-{key}"
    with _locked(folder / f"{version}.lock"):
        if not environment.is_dir():
            _make(python, environment, needed)
    return environment / "bin/python"


def _requirements() -> list[str]:
    """What setup.cfg says, without the tools that only read the text of the tests."""
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    extras = setup["options.extras_require"]
    tests = extras["test"].split("\n")
    lines = [
        *setup["options"]["install_requires"].split("\n"),
        *extras["web"].split("\n"),
        *(line for line in tests if line.startswith(_FOR_UNIT_TESTS)),
    ]
    return [line for line in lines if line and not line.startswith("#")]


def _find(version: str) -> Path:
    """The machine's own one, else pyenv's, else Debian's. Raises LabUnavailable."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places = [Path(f"/usr/bin/python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python{version}")]
    on_path = shutil.which(f"python{version}")
    for python in [*places, *([Path(on_path)] if on_path else [])]:
        if _is_right(python, version):
            return python
    reasons = [f"no python{version} on this machine: install it, for example by pyenv"]
    for suite in DEBIAN_SUITES.get(version, ()):
        try:
            return _wrapped(debian.unpack(f"python{version}", suite), version)
        except LabUnavailable as reason:
            reasons.append(str(reason))
    raise LabUnavailable("; ".join(reasons))


def _is_right(python: Path, version: str) -> bool:
    """A name of pyenv's may be there and run nothing."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version


def _wrapped(root: Path, version: str) -> Path:
    """The python of an unpacked Debian, as a program that runs on this machine."""
    wrapper = root / f"usr/bin/wrapped-python{version}"
    if not wrapper.exists():
        loader, _, libraries = debian.loader_command(root)
        program = root / f"usr/bin/python{version}"
        unfinished = wrapper.with_suffix(f".{os.getpid()}")
        unfinished.write_text(_WRAPPER.format(loader=loader, libraries=libraries, program=program))
        unfinished.chmod(0o755)
        unfinished.rename(wrapper)
    return wrapper


def _make(python: Path, environment: Path, needed: Sequence[str]) -> None:
    print(f"lab: installing what the unit tests need on {python}", file=sys.stderr, flush=True)
    unfinished = environment.with_name(f"{environment.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed; the lock is ours now
    try:
        _run([str(python), "-m", "venv", "--without-pip", str(unfinished)])
        # Our own pip may be too old for that Python: the newest one runs from its wheel.
        _run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--dest",
                str(unfinished),
                "pip",
            ]
        )
        (wheel,) = unfinished.glob("pip-*.whl")
        pip = [str(unfinished / "bin/python"), str(wheel / "pip")]
        _run([*pip, "install", "--quiet", *needed])
        unfinished.rename(environment)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as expired:
        raise LabUnavailable(f"{' '.join(command)}: not done in {INSTALL_SECONDS} seconds") from expired
    if done.returncode != 0:
        raise LabUnavailable(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
