# /// script
# dependencies = []
# ///
"""The floor: the server's fastest way out, and nothing done with what comes.

PostgreSQL: psql and a binary COPY. MariaDB has no such thing: its own client's unbuffered text output.
"""

import os
import subprocess
import sys
from urllib.parse import unquote, urlsplit


def main(url: str, table: str, _: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "postgresql":
        command = ["psql", "-q", "-c", f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT binary)", url]
        env = dict(os.environ)
    else:
        where = [f"--host={parts.hostname}", f"--port={parts.port}", f"--user={parts.username}", parts.path.strip("/")]
        command = ["mariadb", "--no-defaults", *where, "--quick", "--batch", "--raw", "-e", f"SELECT * FROM {table}"]
        env = os.environ | {"MYSQL_PWD": unquote(parts.password or "")}
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])
