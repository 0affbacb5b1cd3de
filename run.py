"""Run the login server; the project must be installed, as `make run` does."""

from stormcellar.cli.main import main

raise SystemExit(main())
