"""Run ``jq`` as process 1 of a container: with a host name and pids of its own, and the files of this machine.

``in_pod.py NAME ARGUMENT...``. With ``--pids-of-host`` before the name, it has this machine's pids.
"""

import os
import socket
import sys

INSIDE = "JQ_TEST_INSIDE_POD"

if os.environ.pop(INSIDE, None) is None:
    own_pids = sys.argv[1] != "--pids-of-host"
    arguments = sys.argv[1 if own_pids else 2 :]
    pids = ["--pid", "--fork", "--kill-child", "--mount-proc"] if own_pids else []
    command = ["unshare", "--uts", *pids, sys.executable, __file__, *arguments]
    os.execvpe("unshare", command, {**os.environ, INSIDE: "1"})  # noqa: S606
socket.sethostname(sys.argv[1])
os.execv(sys.executable, [sys.executable, "-m", "solidjq_cli", *sys.argv[2:]])  # noqa: S606
