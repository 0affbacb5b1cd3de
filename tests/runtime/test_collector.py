"""The garbage collector: tuned where the server owns the process, and nowhere else."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

from tests.support.running import ROOT, Running, environment

REPORT = "import gc; print(gc.get_threshold(), gc.get_freeze_count() > 10_000)"
SERVES = f"from stormcellar.cli.main import main; status = main(); {REPORT}; raise SystemExit(status)"
EMBEDS = f"""
from stormcellar import SessionManager, SessionMixin, session_settings
from stormcellar.stores import open_store
session_settings(SessionManager(open_store("memory:"), secrets=["k" * 43]))
{REPORT}
"""


def test_server_sets_its_start_aside(tmp_path: Path) -> None:
    """What was made until it serves is not looked at again, and young objects not so often."""
    with Running(tmp_path, program=("-c", SERVES)) as server:
        server.base()
        server.demo_password()

        assert server.end() == 0
        assert server.line() == "(10000, 10, 10) True"


def test_embedding_leaves_the_collector_alone() -> None:
    """An application that uses the sessions has its own settings."""
    said = subprocess.run(
        [sys.executable, "-c", EMBEDS],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout.strip() == f"{gc.get_threshold()} False"
