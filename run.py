"""Run the standalone server."""

from server.cli import main

raise SystemExit(main())
