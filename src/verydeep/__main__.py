"""``python -m verydeep`` is the command ``verydeep``."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
