"""``python -m verydeep`` is the command ``verydeep``."""

import sys

from .cli import main

sys.exit(main())
