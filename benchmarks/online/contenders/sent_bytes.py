# /// script
# dependencies = []
# ///
"""What the store takes at least: all it holds in the end, made ready beforehand, handed over by its own means.

Redis: the commands that write every hash, piped by its own client. SQLite: the rows in the order of their keys, copied
by the database itself. Nothing is read, looked for, encoded or compared.
"""

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path


def main(folder: Path) -> None:
    started = time.monotonic()
    if "REDIS_PORT" in os.environ:
        with (folder / "ready.resp").open("rb") as commands:
            client = ["redis-cli", "-p", os.environ["REDIS_PORT"], "--no-auth-warning", "--pipe"]
            subprocess.run(client, stdin=commands, check=True)
    else:
        with sqlite3.connect(folder / "repo" / "data" / "online.db") as connection:
            connection.execute("ATTACH ? AS ready", [str(folder / "ready.db")])
            connection.execute("INSERT INTO online_users SELECT * FROM ready.online_users")
        connection.close()
    print("inside", time.monotonic() - started, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
