"""Run the standalone server."""

from stormcellar.cli.main import main

raise SystemExit(main())
