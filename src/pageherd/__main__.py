"""`python -m pageherd`."""

from pageherd.cli.main import main

raise SystemExit(main())
