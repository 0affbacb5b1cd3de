"""Run the standalone server."""

from stormcellar.cli import main

raise SystemExit(main())
