"""What an installation brings: one importable package, which other people's names neither break nor harm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mypy.api
import pytest

from tests.support.backends import free_port
from tests.support.running import ROOT

SOURCES = ("server", "stores", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
WAIT_S = 20.0


def clean() -> dict[str, str]:
    """Return this process's environment without PYTHONPATH, which leads to this repository."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run *command* and return its standard output."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=clean())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments: str | Path, python: Path | None = None) -> None:
    """Run pip offline for *python*, the interpreter of these tests by default."""
    target = () if python is None else ("--python", python)
    run(sys.executable, "-m", "pip", *target, "--disable-pip-version-check", "--quiet", *arguments)


def build_wheel(source: Path, directory: Path) -> Path:
    """Return the wheel of *source*, a folder or an sdist."""
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, source)
    (wheel,) = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, since a build writes beside them."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this project."""
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of another distribution, which has packages called `server` and `stores`."""
    project = tmp_path_factory.mktemp("other")
    for name in ("server", "stores"):
        (project / name).mkdir()
        (project / name / "__init__.py").write_text("whose = 'the other'\n")
    metadata = "[metadata]\nname = other\nversion = 1\n[options]\npackages = server, stores\n"
    (project / "setup.cfg").write_text(metadata)
    (project / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return build_wheel(project, tmp_path_factory.mktemp("other-wheel"))


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of an empty environment."""
    venv.create(tmp_path / "env", with_pip=False)
    return tmp_path / "env" / "bin" / "python"


def installed(python: Path) -> Path:
    """Return the folder where *python* has its packages."""
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


def top_level(python: Path) -> set[str]:
    """Return what can be imported from the packages of *python*."""
    return {path.stem for path in installed(python).iterdir() if path.suffix in ("", ".py", ".pth")} - {
        "__pycache__"
    }


def test_wheel_brings_one_package(wheel: Path, python: Path) -> None:
    """`stormcellar` is all that can be imported, with the files that the login server reads."""
    pip("install", "--no-index", "--no-deps", wheel, python=python)

    assert top_level(python) == {"stormcellar"}
    package = installed(python) / "stormcellar"
    data = ("py.typed", "accounts/common-passwords.txt", "app/static/style.css", "app/templates/base.html")
    assert [name for name in data if not (package / name).is_file()] == []
    assert (python.parent / "stormcellar").is_file()


def test_type_checker_reads_the_installed_package(wheel: Path, python: Path, tmp_path: Path) -> None:
    """A user's program is checked against our types, and a wrong name in it is found."""
    pip("install", "--no-index", "--no-deps", wheel, python=python)
    (tmp_path / "program.py").write_text(
        "from stormcellar import Lifetime, SessionManager, SessionMannager\n"
        "from stormcellar.stores import open_store\n"
        "SessionManager(open_store('memory'), secrets=['k' * 32], lifetime=Lifetime(idle_s='soon'))\n"
    )
    options = ("--strict", "--python-executable", str(python), "--cache-dir", str(tmp_path / "cache"))

    output, _, _ = mypy.api.run([*options, str(tmp_path / "program.py")])

    assert [line.partition(": error: ")[2].partition(";")[0] for line in output.splitlines()[:-1]] == [
        'Module "stormcellar" has no attribute "SessionMannager"',
        'Argument "idle_s" to "Lifetime" has incompatible type "str"',
    ], output


def test_sdist_brings_the_same(source: Path, wheel: Path, tmp_path: Path) -> None:
    """A wheel made from the sdist has the files of the wheel made from the sources."""
    script = "import sys; from setuptools.build_meta import build_sdist; print(build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", script, tmp_path, cwd=source)
    (sdist,) = tmp_path.glob("*.tar.gz")

    again = build_wheel(sdist, tmp_path)

    names = [run(sys.executable, "-m", "zipfile", "-l", each).splitlines() for each in (again, wheel)]
    listed, expected = [{line.split()[0] for line in lines[1:]} for lines in names]
    assert listed == expected


def test_every_package_is_listed() -> None:
    """A new sub-package must be named in setup.cfg, or an installation lacks it."""
    setup = (ROOT / "setup.cfg").read_text()
    listed = set(re.findall(r"^    (stormcellar[\w.]*)$", setup.split("package_dir")[0], re.M))
    roots = {"server": "stormcellar", "stores": "stormcellar.stores"}
    found = {
        ".".join([roots[top], *path.parent.relative_to(ROOT / top).parts])
        for top in roots
        for path in (ROOT / top).rglob("__init__.py")
    }

    assert listed == found


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "the other first"])
def test_distribution_with_the_same_folder_names(
    wheel: Path, other: Path, python: Path, ours_first: bool
) -> None:
    """Another distribution's `server` is neither harmed nor harmful, whichever comes or goes first."""
    ours = "import stormcellar, stormcellar.stores; print(stormcellar.stores.Store.__name__)"
    theirs = "import server, stores; print(server.whose, stores.whose)"

    for each in (wheel, other) if ours_first else (other, wheel):
        pip("install", "--no-index", "--no-deps", each, python=python)
    both = [run(python, "-I", "-c", each).strip() for each in (ours, theirs)]
    pip("uninstall", "--yes", "stormcellar" if ours_first else "other", python=python)
    left = run(python, "-I", "-c", theirs if ours_first else ours).strip()

    assert both == ["Store", "the other the other"]
    assert left == ("the other the other" if ours_first else "Store")


# --- a program that is called server.py ---


def readme_program() -> str:
    """Return the program that the README prints."""
    (program,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    return str(program)


@contextmanager
def served(program: Path, *, site: Path) -> Iterator[str]:
    """Run *program* with the packages in *site*; yields the address that it serves."""
    port = free_port()
    text = program.read_text()
    assert "8000" in text
    program.write_text(text.replace("8000", str(port)))
    process = subprocess.Popen(
        [sys.executable, program.name], cwd=program.parent, env={**clean(), "PYTHONPATH": str(site)}
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/", process)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(WAIT_S)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until something answers at *url*."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        assert process.poll() is None, "the program ended"
        try:
            urllib.request.urlopen(url).close()
            return
        except urllib.error.URLError:
            time.sleep(0.05)
    raise AssertionError("no answer")


@pytest.mark.parametrize("name", ["server.py", "app.py"])
def test_readme_program_beside_files_of_our_folders_names(wheel: Path, tmp_path: Path, name: str) -> None:
    """The README's program runs as printed, also as server.py beside a stores.py and a package `tests`."""
    site, shop = tmp_path / "site", tmp_path / "shop"
    pip("install", "--no-index", "--no-deps", "--target", site, wheel)
    (shop / "tests").mkdir(parents=True)
    (shop / "tests" / "__init__.py").write_text("raise ImportError('the shop has tests of its own')\n")
    for taken in {"server.py", "stores.py"} - {name}:
        (shop / taken).write_text("raise ImportError('the shop has a module of this name')\n")
    (shop / "session.key").write_text(os.urandom(32).hex())
    (shop / name).write_text(readme_program())

    with served(shop / name, site=site) as url:
        visits = [urllib.request.Request(url)]
        with urllib.request.urlopen(visits[0]) as first:
            cookie, body = first.headers["Set-Cookie"].partition(";")[0], first.read()
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Cookie": cookie})) as second:
            again = second.read()

    assert (body, again) == (b"visit 1", b"visit 2")
