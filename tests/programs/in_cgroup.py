"""``jq`` in a control group: joins the one that JQ_TEST_CGROUP names, then runs as ``python -m solidjq_cli``."""

import os
import sys
from pathlib import Path

(Path(os.environ["JQ_TEST_CGROUP"]) / "cgroup.procs").write_text(str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "solidjq_cli", *sys.argv[1:]])  # noqa: S606
