"""python -m zkpy.cli.shell"""

import sys

from zkpy.cli.shell.main import main

sys.exit(main())
