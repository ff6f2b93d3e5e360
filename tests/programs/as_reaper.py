"""``jq`` as the parent of what loses its parent below it, as process 1 is; then runs as ``python -m solidjq_cli``."""

import ctypes
import os
import sys

PR_SET_CHILD_SUBREAPER = 36  # of Linux

assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-m", "solidjq_cli", *sys.argv[1:]])  # noqa: S606
