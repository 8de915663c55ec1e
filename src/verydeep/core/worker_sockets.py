"""Where processes that read photos leave their sockets, whose names operating systems bound."""

from __future__ import annotations

import os
import sys
import tempfile
from multiprocessing import util

LONGEST = 107 if sys.platform == "linux" else 103  # bytes of a socket's path, in sockaddr_un without its end
OF_A_SOCKET = len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # what multiprocessing appends to the folder for temporary files
SHORT = "/tmp"


def place_sockets() -> None:
    """Has multiprocessing's folder of sockets made where their paths are short enough.

    It is made once for a process and those that it begins, in TMPDIR. Schedulers set that to long paths, for which a
    process that reads could not send what it read, and would be waited for in vain. Later versions of Python see to
    it themselves.
    """
    usual = tempfile.gettempdir()
    if sys.platform == "win32" or len(os.fsencode(usual)) + OF_A_SOCKET <= LONGEST:  # Windows has pipes
        return
    tempfile.tempdir = SHORT
    try:
        util.get_temp_dir()
    finally:
        tempfile.tempdir = usual
