"""Wall seconds, CPU seconds, peak memory and bytes written of one fresh process with all its descendants (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
EVERY = 0.01  # seconds between samples of the memory


class RunFailed(Exception):  # noqa: N818 - reads better in a report
    """A run ended with an error or took too long; the text is the end of what it said."""


@dataclass(frozen=True)
class Measurement:
    """Seconds, and bytes.

    Attributes:
        peak: of resident memory.
        written: handed to disks, as the kernel counted it when last looked at; what went to memory only is left out.
        elsewhere: CPU seconds that all other processes of the machine took meanwhile, servers among them.
    """

    wall: float
    cpu: float
    peak: int
    written: int = 0
    elsewhere: float = 0.0


def measure(
    command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path, log: Path, timeout: float = 1800
) -> Measurement:
    """Runs ``command`` to its end.

    CPU is that of the process and of all it waited for. The peak is the largest sum of the resident memory of the tree
    at one moment, or the largest high-water mark of one of its processes if that is more (a peak between samples).
    Not ru_maxrss: after a vfork it starts at the peak of the process that forked.
    """
    done = threading.Event()
    with log.open("wb") as out:
        busy, started = _busy(), time.monotonic()
        process = subprocess.Popen(command, env=env, cwd=cwd, stdout=out, stderr=out, start_new_session=True)
        sampler = _Sampler(process.pid, done)
        sampler.start()
        killer = threading.Timer(timeout, _kill, [process.pid])
        killer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - started
        except BaseException:
            _kill(process.pid)
            raise
        finally:
            killer.cancel()
            done.set()
    process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
    sampler.join()
    if process.returncode != 0:
        said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        late = f" after {timeout:g} s" if wall >= timeout else ""
        raise RunFailed(f"exit code {process.returncode}{late}: {' / '.join(said[-2:])}"[:400])
    cpu = usage.ru_utime + usage.ru_stime
    elsewhere = max(0.0, _busy() - busy - cpu)
    return Measurement(wall, cpu, sampler.peak, sum(sampler.written.values()), elsewhere)


class _Sampler(threading.Thread):
    def __init__(self, pid: int, done: threading.Event) -> None:
        super().__init__(daemon=True)
        self._pid, self._done, self.peak = pid, done, 0
        self.written: dict[int, int] = {}

    def run(self) -> None:
        while not self._done.wait(EVERY):
            pids = list(tree(self._pid))
            found = [memory(pid) for pid in pids]
            self.peak = max(self.peak, sum(now for now, _ in found), *(highest for _, highest in found))
            for pid in pids:
                with contextlib.suppress(OSError, KeyError):
                    self.written[pid] = int(_fields(PROC / str(pid) / "io")["write_bytes"])


def tree(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    with contextlib.suppress(OSError):
        for task in (PROC / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes now and at most; a process that has ended, or not begun its own program, has none."""
    with contextlib.suppress(OSError):
        lines = _fields(PROC / str(pid) / "status")
        if "VmRSS" in lines:
            return _bytes(lines["VmRSS"]), _bytes(lines["VmHWM"])
    return 0, 0


def _fields(path: Path) -> dict[str, str]:
    found = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in found}


def _bytes(text: str) -> int:
    return int(text.split()[0]) * 1024


def _busy() -> float:
    """CPU seconds that the machine has spent on anything since it started: all but idle and waiting for disks."""
    user, nice, system, _, _, *interrupts = map(int, (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(interrupts[:2])) / os.sysconf("SC_CLK_TCK")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
