"""Leave a made-up night in a database, to try the commands on it by hand: ``python tests/programs/night.py URL``.

The database must not have a queue yet: five thousand failures among real ones would be a nuisance.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from solidjq.database.opening import open_database
from solidjq.database.setup import initialize
from solidjq.database.tables import jobs
from support.night import FAILURES, make_night


def main() -> None:
    """Make the night, and say how to look at it."""
    url = sys.argv[1] if len(sys.argv) > 1 else "sqlite:night.sqlite3"
    database = open_database(url)
    created, _ = initialize(database)
    if jobs.name not in created:
        sys.exit(f"night: {url} has a queue already; name an empty database")
    night = make_night(database)
    sys.stdout.write(f"{FAILURES:,} failures, {len(night.killers)} jobs that killed their process. To look at them:\n")
    sys.stdout.write(
        f"  export JQ_DATABASE_URL={url}\n  jq incidents list\n  jq suspects\n  jq retry --safe --dry-run\n"
    )


if __name__ == "__main__":
    main()
