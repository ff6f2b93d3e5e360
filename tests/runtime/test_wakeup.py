"""Signals end a sleep while a process listens to them, and are then those of whoever had them before."""

import os
import subprocess
import sys

# A process of its own, as it forks.
PROGRAM = """
import os, signal
from solidjq.runtime.wakeup import Wakeup

heard = []
for number in (signal.SIGTERM, signal.SIGCHLD):
    signal.signal(number, lambda number, _: heard.append(number))
_, descriptor = os.pipe()
os.set_blocking(descriptor, False)
signal.set_wakeup_fd(descriptor)
wakeup = Wakeup()
wakeup.listen([signal.SIGTERM], waking=[signal.SIGCHLD])
signal.raise_signal(signal.SIGTERM)
wakeup.wait(3600)
assert (wakeup.signals, heard) == ([signal.SIGTERM], [])
if os.fork() == 0:
    signal.raise_signal(signal.SIGTERM)
    os._exit(0 if (heard, signal.set_wakeup_fd(-1)) == ([signal.SIGTERM], -1) else 1)
assert os.wait()[1] == 0
wakeup.restore()
for number in (signal.SIGTERM, signal.SIGCHLD):
    signal.raise_signal(number)
assert (wakeup.signals, heard) == ([signal.SIGTERM], [signal.SIGTERM, signal.SIGCHLD])
if os.fork() == 0:
    os._exit(0 if signal.set_wakeup_fd(-1) == descriptor else 1)
assert os.wait()[1] == 0
assert signal.set_wakeup_fd(-1) == descriptor
"""


def test_the_handlers_of_before_hear_again_what_a_process_has_listened_to() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
