"""Reading a file that is not trusted: in a process of its own, with limits of memory and time, and nothing to steal.

The child gets a path and what the format needs, no more; its environment is bare, it can write no file, and what it
hands back is looked through again. A crash, a hang or too much memory end the child, and the read with an error.
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.ipc

from engine.errors import SourceError
from engine.processes import end
from engine.sources import formats
from engine.sources.formats import Job, Part
from engine.spec import Csv, Limits

_LENGTHS = struct.Struct("<QQ")
_MOST = 2**31  # bytes of a message
_BARE = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")


class Child(AbstractContextManager["Child"]):
    """A process that reads files, one after the other; begun with the first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._late = threading.Event()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end(self._process)

    def read(self, job: Job) -> Iterator[Part]:
        """As `engine.sources.formats.read`, of a file that lies on this machine."""
        if isinstance(job.body, bytes):
            raise TypeError("an untrusted file is read where it lies")
        process = self._begun()
        timer = threading.Timer(job.limits.seconds, self._stop)
        timer.daemon = True
        timer.start()
        try:
            yield from self._parts(job, process)
        finally:
            timer.cancel()

    def _begun(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            bare = {name: os.environ[name] for name in _BARE if name in os.environ}
            bare |= {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "POLARS_MAX_THREADS": "1"}
            bare |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engine.sources.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=bare,
            )
        return self._process

    def _stop(self) -> None:
        self._late.set()
        if self._process is not None:
            self._process.kill()

    def _parts(self, job: Job, process: subprocess.Popen[bytes]) -> Iterator[Part]:
        assert process.stdin is not None  # noqa: S101 - a pipe
        assert process.stdout is not None  # noqa: S101 - a pipe
        with suppress(BrokenPipeError):  # it ended: that is said below
            process.stdin.write(_described(job))
            process.stdin.flush()
        while True:
            message = _message(process.stdout)
            if message is None:
                process.kill()  # if it gave what is no message
                raise _ended(job, process.wait(), self._late.is_set())
            head, body = message
            if "end" in head:
                return
            if "error" in head:
                raise SourceError(**head["error"])
            with formats.failures(job):
                part = _part(head, body)
            yield part


def _part(head: dict[str, Any], body: bytes) -> Part:
    """A part as the child gave it, looked through anew."""
    with pa.ipc.open_stream(body) as stream:
        table = stream.read_all()
    table.validate(full=True)
    frame = pl.DataFrame(table) if table.num_columns else pl.DataFrame(height=int(head["rows"]))
    if frame.height != head["rows"]:
        raise ValueError("the process that read it miscounted")
    return Part(frame, int(head["first"]), str(head["place"]), bool(head["open"]), head["kinds"])


def _ended(job: Job, code: int, late: bool) -> SourceError:
    """The child has gone without a word."""
    limits = job.limits
    if late or code == -signal.SIGXCPU:
        message = f"reading it took more than {limits.seconds} seconds"
        return formats.beyond(job, message, "seconds")
    if code in (-signal.SIGKILL, _NO_MEMORY):
        return formats.beyond(job, f"reading it took more than {limits.memory:,} bytes of memory", "memory")
    what = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return formats.fault(
        job,
        f"it broke the process that read it ({what}); nothing else was harmed",
        code="source.crashed",
        fix="leave it out: it is damaged, or made to do harm",
    )


# --- the child -----------------------------------------------------------------------------------------------------

_NO_MEMORY = 77  # exit code


def _described(job: Job) -> bytes:
    plain = {
        "body": str(job.body),
        "form": job.form,
        "origin": job.origin,
        "name": job.name,
        "compression": job.compression,
        "batch": job.batch,
        "texts": sorted(job.texts),
        "slice": list(job.slice),
        "csv": job.csv.model_dump(mode="json"),
        "limits": job.limits.model_dump(mode="json"),
    }
    return json.dumps(plain).encode() + b"\n"


def _job(text: bytes) -> Job:
    plain = json.loads(text)
    job = Job(Path(plain["body"]), plain["form"], plain["origin"], plain["name"], plain["compression"])
    return replace(
        job,
        batch=plain["batch"],
        texts=frozenset(plain["texts"]),
        slice=tuple(plain["slice"]),
        csv=Csv.model_validate(plain["csv"] | {"null_values": tuple(plain["csv"]["null_values"])}),
        limits=Limits.model_validate(plain["limits"]),
    )


def _message(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """What comes next; None once the other side is gone, or gives what is none."""
    lengths = pipe.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head, body = _LENGTHS.unpack(lengths)
    if head > _MOST or body > _MOST:
        return None
    found, content = pipe.read(head), pipe.read(body)
    if len(found) < head or len(content) < body:
        return None
    return json.loads(found), content


def _send(pipe: IO[bytes], head: dict[str, Any], body: bytes = b"") -> None:
    text = json.dumps(head).encode()
    pipe.write(_LENGTHS.pack(len(text), len(body)) + text)
    pipe.write(body)
    pipe.flush()


def _confine(limits: Limits) -> None:
    """Takes away what reading a file has no need of; the time is counted from now on."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + limits.seconds + 1  # ends it also where nobody is left to kill it
    wanted = {"RLIMIT_DATA": limits.memory, "RLIMIT_CPU": seconds, "RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0}
    for name, most in wanted.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    """Reads the jobs that come in, and hands out their parts."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no message
    for line in sys.stdin.buffer:
        job = _job(line)
        _confine(job.limits)
        try:
            for part in formats.read(job):
                _hand_over(pipe, part)
            _send(pipe, {"end": True})
        except SourceError as error:
            if "MemoryError" in error.message or "malloc" in error.message:
                os._exit(_NO_MEMORY)
            facts = ("message", "code", "where", "allowed", "fix")
            _send(pipe, {"error": {fact: getattr(error, fact) for fact in facts}})
        except MemoryError:
            os._exit(_NO_MEMORY)


def _hand_over(pipe: IO[bytes], part: Part) -> None:
    buffer = io.BytesIO()
    table = part.frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    head = {"rows": part.frame.height, "first": part.first, "place": part.place}
    _send(pipe, {**head, "open": part.open_schema, "kinds": part.kinds}, buffer.getvalue())


if __name__ == "__main__":
    main()
