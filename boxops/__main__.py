import sys

from boxops.cli import main

sys.exit(main())
