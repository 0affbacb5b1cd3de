"""What a peer's server runs in, a folder of its own: a virtual environment, or node modules."""

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
    """A virtual environment of the Python that runs this."""

    def missing(self) -> str | None:
        """Return why it cannot be made here, or None."""
        if importlib.util.find_spec("ensurepip") is None:
            return "this Python cannot make a virtual environment: no ensurepip"
        return None

    def build(self, folder: Path, pins: Path) -> None:
        """Make it in *folder*, with the requirements of *pins*; RuntimeError if that fails."""
        _run([sys.executable, "-m", "venv", str(folder)])
        quiet = ("--quiet", "--disable-pip-version-check")
        _run([f"{folder}/bin/python", "-m", "pip", "install", *quiet, "--requirement", str(pins)])

    def interpreter(self, folder: Path) -> list[str]:
        """Return what runs a server in it."""
        # Isolated: not even the modules beside the server can stand in for installed ones.
        return [f"{folder}/bin/python", "-I"]


@dataclass(frozen=True, slots=True)
class NodeEnvironment:
    """A folder of node modules.

    Args:
        at_least: The oldest major and minor version of node that will do.
    """

    at_least: tuple[int, int]

    def missing(self) -> str | None:
        """Return why it cannot be made here, or None."""
        for program in ("node", "npm"):
            if shutil.which(program) is None:
                return f"no {program} on PATH"
        told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
        found = re.match(r"v(\d+)\.(\d+)\.", told)
        if found is None or (int(found[1]), int(found[2])) < self.at_least:
            wanted = ".".join(map(str, self.at_least))
            return f"node {wanted} or later is needed, this one says {told.strip() or 'nothing'}"
        return None

    def build(self, folder: Path, pins: Path) -> None:
        """Make it in *folder*, with the dependencies of *pins*; RuntimeError if that fails."""
        shutil.copy(pins, folder / "package.json")
        options = ("--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund")
        _run(["npm", "install", "--prefix", str(folder), *options])

    def interpreter(self, folder: Path) -> list[str]:
        """Return what runs a server in it."""
        return ["env", "NODE_ENV=production", f"NODE_PATH={folder}/node_modules", "node"]


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=BUILD_S)
    except subprocess.CalledProcessError as exc:
        raise RuntimeError(_reason(exc.stderr) or f"{command[0]}: status {exc.returncode}") from None
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise RuntimeError(str(exc)) from None


def _reason(stderr: str) -> str:
    """Return the first line in which pip or npm names an error, else the last."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "npm error"))]
    return (errors or lines[-1:] or [""])[0]
