"""The ledger's tables, as this version of the engine writes them."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

schema_version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, nullable=False))
leases = sa.Table(
    "leases",
    metadata,
    sa.Column("pipeline", sa.String, primary_key=True),
    sa.Column("epoch", sa.Integer, nullable=False),  # grows with each holder
    sa.Column("holder", sa.String, nullable=False),  # host and process, for people
    sa.Column("acquired_at", sa.String, nullable=False),
)
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("pipeline", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),  # running | done | blocked | partial | failed | interrupted
    sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),  # of the lease: a later run has a larger one
    sa.Column("as_of", sa.JSON, nullable=False),
    sa.Column("created_timestamp", sa.String, nullable=False),
    sa.Column("finished_at", sa.String),
    sa.Column("plan", sa.JSON, nullable=False),
    sa.Column("error", sa.JSON),
)
reads = sa.Table(
    "reads",
    metadata,
    sa.Column("read_id", sa.String, primary_key=True),
    sa.Column("pipeline", sa.String, nullable=False),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), nullable=False),
    sa.Column("location", sa.String, nullable=False),
    sa.Column("mode", sa.String, nullable=False),  # full | append | merge
    sa.Column("state", sa.String, nullable=False),  # reading | landed | accepted | blocked | abandoned
    sa.Column("fingerprint", sa.String, nullable=False),  # of all in the declaration that shapes what lands
    sa.Column("started_at", sa.String, nullable=False),
    sa.Column("landed_at", sa.String),
    sa.Column("base", sa.String),  # the read whose table this one extends
    sa.Column("position", sa.JSON),  # where the next read goes on
    sa.Column("seal", sa.JSON),  # of the source: what landed pieces are checked against
    sa.Column("trace", sa.JSON),  # of the source: for its next read
    sa.Column("promise", sa.JSON),
    sa.Column("schema", sa.JSON),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("report", sa.JSON),
    sa.Index("reads_by_source", "pipeline", "source"),
)
pieces = sa.Table(
    "pieces",
    metadata,
    sa.Column("read_id", sa.ForeignKey("reads.read_id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("mark", sa.JSON),
    sa.Column("read", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("failed_by_column", sa.JSON, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("retries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("files", sa.JSON, nullable=False),
    sa.Column("quarantined", sa.JSON),
)
files = sa.Table(
    "files",
    metadata,
    sa.Column("read_id", sa.ForeignKey("reads.read_id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("path", sa.String, nullable=False),  # relative to the workdir
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String),
)
quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("path", sa.String, primary_key=True),  # relative to the workdir
    sa.Column("pipeline", sa.String, nullable=False),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("read_id", sa.ForeignKey("reads.read_id"), nullable=False),
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("created_at", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # held | superseded | replayed | mended | dropped
    sa.Column("ended_by", sa.String),  # the run that did
    sa.Column("ended_at", sa.String),
    sa.Index("quarantine_by_source", "pipeline", "source"),
)
profiles = sa.Table(
    "profiles",
    metadata,
    sa.Column("pipeline", sa.String, primary_key=True),
    sa.Column("source", sa.String, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("read_id", sa.ForeignKey("reads.read_id"), nullable=False),
    sa.Column("created_at", sa.String, nullable=False),  # the created_timestamp of the run
    sa.Column("state", sa.String, nullable=False),  # accepted | blocked, by that run
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("profile", sa.JSON, nullable=False),
)
fits = sa.Table(
    "fits",
    metadata,
    sa.Column("pipeline", sa.String, primary_key=True),
    sa.Column("view", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), nullable=False),
    sa.Column("as_of", sa.String, nullable=False),
    sa.Column("fit", sa.JSON, nullable=False),
)
published = sa.Table(
    "published",
    metadata,
    sa.Column("pipeline", sa.String, primary_key=True),
    sa.Column("view", sa.String, primary_key=True),
    sa.Column("as_of", sa.String, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), nullable=False),
    sa.Column("path", sa.String, nullable=False),  # relative to the output folder
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("definition", sa.String, nullable=False),  # fingerprint of what the values rest on
    sa.Column("created_timestamp", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),  # publishing | published | loaded (into the online store)
    sa.Column("sha256", sa.String),
)
checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("pipeline", sa.String, primary_key=True),
    sa.Column("view", sa.String, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), nullable=False),
    sa.Column("definition", sa.String, nullable=False),  # fingerprint of what the raw values rest on
    sa.Column("tables", sa.JSON, nullable=False),  # source: the files of the table that what is published rests on
    sa.Column("state", sa.JSON),  # what later runs go on from, and its files; none: they read the tables
)
loads = sa.Table(
    "loads",
    metadata,
    sa.Column("pipeline", sa.String, primary_key=True),
    sa.Column("view", sa.String, primary_key=True),
    sa.Column("store", sa.String, nullable=False),  # fingerprint of the online store that "loaded" is about
    sa.Column("files", sa.JSON, nullable=False),  # path: sha256, of a load that has begun
    sa.Column("position", sa.JSON),  # the last key of it that is stored; none once it is done
)
