"""`python -m stormcellar` runs the command line."""

from stormcellar.cli.main import main

raise SystemExit(main())
