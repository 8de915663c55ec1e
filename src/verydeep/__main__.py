"""``python -m verydeep`` is the command ``verydeep``."""

import sys

from .cli.main import main

sys.exit(main())
