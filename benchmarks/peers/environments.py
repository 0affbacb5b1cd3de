"""The environments of the peers' servers: a virtual environment or a folder of node modules."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BUILD_S = 600


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """A virtual environment with the Python that runs this program."""

    def missing(self) -> str | None:
        """Return the reason why it cannot be built on this machine, or None."""
        if importlib.util.find_spec("ensurepip") is None:
            return "this Python has no ensurepip, so it cannot make a virtual environment"
        return None

    def build(self, folder: Path, pins: Path) -> None:
        """Build it in *folder* with the requirements in *pins*; raise RuntimeError on failure."""
        _run([sys.executable, "-m", "venv", str(folder)])
        quiet = ("--quiet", "--disable-pip-version-check")
        _run([f"{folder}/bin/python", "-m", "pip", "install", *quiet, "--requirement", str(pins)])

    def interpreter(self, folder: Path) -> list[str]:
        """Return the command that runs a server in it."""
        # Isolated mode: modules in the folder of the server cannot replace installed ones.
        return [f"{folder}/bin/python", "-I"]


@dataclass(frozen=True, slots=True)
class NodeEnvironment:
    """A folder of node modules.

    Args:
        at_least: The oldest usable major and minor version of node.
    """

    at_least: tuple[int, int]

    def missing(self) -> str | None:
        """Return the reason why it cannot be built on this machine, or None."""
        for program in ("node", "npm"):
            if shutil.which(program) is None:
                return f"no {program} on PATH"
        output = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
        found = re.match(r"v(\d+)\.(\d+)\.", output)
        if found is None or (int(found[1]), int(found[2])) < self.at_least:
            wanted = ".".join(map(str, self.at_least))
            return f"needs node {wanted} or later; found {output.strip() or 'no version'}"
        return None

    def build(self, folder: Path, pins: Path) -> None:
        """Build it in *folder* with the dependencies in *pins*; raise RuntimeError on failure."""
        shutil.copy(pins, folder / "package.json")
        options = ("--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund")
        _run(["npm", "install", "--prefix", str(folder), *options])

    def interpreter(self, folder: Path) -> list[str]:
        """Return the command that runs a server in it."""
        return ["env", "NODE_ENV=production", f"NODE_PATH={folder}/node_modules", "node"]


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=BUILD_S)
    except subprocess.CalledProcessError as exc:
        raise RuntimeError(_reason(exc.stderr) or f"{command[0]}: status {exc.returncode}") from None
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise RuntimeError(str(exc)) from None


def _reason(stderr: str) -> str:
    """Return the first line that pip or npm marks as an error, else the last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "npm error"))]
    return (errors or lines[-1:] or [""])[0]
