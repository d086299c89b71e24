"""The harness that benchmarks have in common: who is timed, what is measured, what is kept and shown."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.harness import chart, page, results
from benchmarks.harness.contest import FLOOR, OURS, PEER, Answer, Contender, Rounds, Score, contest
from benchmarks.harness.measure import RunFailed, measure, memory, tree
from benchmarks.harness.results import Goal, Part, ratios
from benchmarks.harness.scenario import Scenario

HEADER = "# /// script\n# dependencies = []\n# ///\n"
MB = 2**20


def script(folder: Path, name: str, body: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(HEADER + body)
    return path


class Numbers:
    """Contenders write a number; 42 is right."""

    name, title = "numbers", "Numbers"
    facts: Mapping[str, str] = {"rows": "1"}

    def __init__(self) -> None:
        self.called: list[tuple[str, bool]] = []

    def environment(self) -> Mapping[str, str]:
        return {}

    def arguments(self, contender: Contender, out: Path) -> Sequence[str | Path]:
        assert list(out.iterdir()) == []
        return [out / "answer"]

    def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
        self.called.append((contender.name, thorough))
        said = (out / "answer").read_text()
        return Answer(None if said == "42" else f"said {said}", figures={"inside": 0.5}, size=2)


WRITES = "import sys\nfrom pathlib import Path\nif sys.argv[1:]: Path(sys.argv[1]).write_text({!r})\n"


def test_only_who_is_right_is_timed_and_in_turn(tmp_path: Path) -> None:
    case = Numbers()
    late = script(
        tmp_path, "late", WRITES.format("42") + "if sys.argv[1:] and sys.argv[2] == 'once': sys.exit('tired')\n"
    )
    there = [
        Contender("floor", script(tmp_path, "floor", WRITES.format("42")), role=FLOOR),
        Contender("ours", script(tmp_path, "ours", WRITES.format("42")), role=OURS),
        Contender("wrong", script(tmp_path, "wrong", WRITES.format("41"))),
        Contender("failing", late, mode=("once",)),
        Contender("slow", script(tmp_path, "slow", WRITES.format("42")), slow=True),
    ]
    found = {s.name: s for s in contest(case, there, Rounds(fast=3, slow=1), work=tmp_path / "work", say=str)}
    assert {name: [run["round"] for run in score.runs] for name, score in found.items()} == {
        "floor": [1, 2, 3],
        "ours": [1, 2, 3],
        "wrong": [],
        "failing": [],
        "slow": [1],
    }
    assert found["wrong"].wrong == "said 41"
    assert not found["wrong"].timed
    assert "tired" in (found["failing"].failure or "")
    assert [thorough for _, thorough in case.called[:4]] == [True] * 4
    assert [name for name, thorough in case.called if not thorough] == [
        *("ours", "slow", "floor"),  # round 1 begins with the second
        *("floor", "ours"),  # round 2
        *("ours", "floor"),  # round 3
    ]
    assert found["ours"].runs[0]["inside"] == 0.5
    assert found["ours"].size == 2
    assert found["ours"].startup is not None


def test_who_turns_wrong_later_keeps_no_time(tmp_path: Path) -> None:
    class Later(Numbers):
        def answer(self, contender: Contender, out: Path, *, thorough: bool) -> Answer:
            return Answer(None if thorough else "another answer")

    [score] = contest(
        Later(), [Contender("x", script(tmp_path, "x", ""))], Rounds(2, first=True), work=tmp_path / "w", say=str
    )
    assert score.wrong == "another answer"
    assert score.runs == []


def test_the_first_round_counts_where_asked(tmp_path: Path) -> None:
    there = [Contender("x", script(tmp_path, "x", WRITES.format("42")))]
    [score] = contest(Numbers(), there, Rounds(fast=2, first=True), work=tmp_path / "w", say=str)
    assert [run["round"] for run in score.runs] == [0, 1]


HOLDS = "b = bytearray(100 << 20); b[::4096] = b'x' * len(b[::4096])\n"


def test_memory_is_that_of_the_whole_tree() -> None:
    """Parent and child hold 100 MB each, until they are told to end."""
    child = HOLDS + "print('up', flush=True); input()"
    parent = (
        HOLDS
        + f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=-1, text=True)\n"
        "p.stdout.readline(); print('up', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = list(tree(process.pid))
        now = sum(memory(pid)[0] for pid in pids)
        process.communicate("go\ngo\n")
    assert len(pids) == 2
    assert 200 * MB < now < 300 * MB


def test_a_peak_between_samples_counts(tmp_path: Path) -> None:
    """What was held for a moment is known from the high-water mark later."""
    body = HOLDS + "del b\nimport time\ntime.sleep(1)"
    found = measure([sys.executable, "-c", body], env=os.environ, cwd=tmp_path, log=tmp_path / "log")
    assert 100 * MB < found.peak < 200 * MB
    assert 0 < found.cpu <= found.wall * (os.cpu_count() or 1) + 0.1


def test_bytes_handed_to_the_disk_are_counted(tmp_path: Path) -> None:
    body = "import os, time\nwith open('x', 'wb') as f:\n    f.write(b'x' * (8 << 20)); f.flush(); os.fsync(f)\n    time.sleep(0.1)"
    found = measure([sys.executable, "-c", body], env=os.environ, cwd=tmp_path, log=tmp_path / "log")
    assert found.written in (0, *range(8 * MB, 9 * MB, 4096))  # nothing where the folder is in memory


def test_a_run_that_fails_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"exit code 3: b / c"):
        measure(
            [sys.executable, "-c", "print('a\\nb\\nc'); raise SystemExit(3)"],
            env=os.environ,
            cwd=tmp_path,
            log=tmp_path / "log",
        )


def scored(name: str, role: str, walls: dict[int, float], **more: object) -> Score:
    runs = [{"round": n, "wall": w, "cpu": w, "peak": w * 1e6, "elsewhere": 0.1} for n, w in walls.items()]
    return Score(name, role, [], runs=runs, **more)  # type: ignore[arg-type]


def test_ratios_are_of_the_same_round() -> None:
    ours, other = scored("ours", OURS, {1: 2.0, 2: 3.0, 3: 9.0}), scored("x", PEER, {2: 6.0, 3: 3.0, 4: 1.0})
    assert ratios(ours, other, "wall") == [0.5, 3.0]
    assert ratios(ours, other, "inside") == []
    assert statistics.median(results.figures(ours, "wall")) == 3.0


def part(case: str, size: str, *scores: Score) -> Part:
    return Part(
        case, size, case.title(), {"rows": "1,000" if size == "S" else "10,000"}, {"begun": "now"}, list(scores)
    )


def test_a_part_that_is_run_again_replaces_just_itself(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for walls, case, size in (
        ({1: 1.0}, "a", "S"),
        ({1: 2.0}, "a", "M"),
        ({1: 3.0}, "b", "S"),
        ({1: 4.0, 2: 5.0}, "a", "S"),
    ):
        results.store(path, part(case, size, scored("ours", OURS, walls)))
    found = {key: [run["wall"] for run in of.scores[0].runs] for key, of in results.load(path).items()}
    assert found == {"M/a": [2.0], "S/a": [4.0, 5.0], "S/b": [3.0]}
    assert set(json.loads(path.read_text())) == {"parts"}


def test_the_page_says_what_is_met_and_who_was_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    monkeypatch.setattr(Scenario, "results", property(lambda self: tmp_path / "results.json"))
    goals = (Goal("wall", 1 / 2, "peer", aim=1 / 4), Goal("wall", 1.1, "floor"), Goal("peak", 1e9))
    scenario = Scenario("x", "Things & others", "What it is.", {"S": 1, "M": 2}, [], goals)
    for size in ("S", "M"):
        scores = [
            scored("floor", FLOOR, {1: 1.0, 2: 1.0}),
            scored("ours", OURS, {1: 2.0, 2: 2.0}),
            scored("peer", PEER, {1: 5.0, 2: 6.0}),
            Score("liar", PEER, ["liar==1"], wrong="41 rows"),
        ]
        results.store(tmp_path / "results.json", part("a", size, *scores))
    text = page.write([scenario]).read_text()
    assert "- wall at most 1/2 of peer: yes (1/2.73); aim 1/4: **no**; by CPU seconds 1/2.73" in text
    assert "- wall at most 1.10 of floor: **no** (2.00); by CPU seconds 2.00" in text
    assert "- peak at most 1000 MB: yes (2 MB)" in text
    assert "- liar: liar==1. **wrong, not timed**: 41 rows." in text
    assert (
        "| Things & others: A | 2.00 | 2.00 | 2 | peer: 0.37 (0.33–0.40) | floor: 2.00 (2.00–2.00) | 3 of 4 |" in text
    )
    drawn = sorted(path.name for path in (tmp_path / "charts").iterdir())
    assert drawn == ["x-peak.svg", "x-sizes.svg", "x-wall.svg"]
    for name in drawn:
        assert ElementTree.parse(tmp_path / "charts" / name).getroot().tag.endswith("svg")
        assert f"charts/{name}" in text


def test_drawings_are_well_formed_whatever_is_in_them() -> None:
    drawn = [
        chart.bars("a < b & c", [("x", [("<script>", "ours", 0.0), ('"', "peer", 12_345.0)])], "s"),
        chart.lines("t", {"ours": ("ours", [(1e6, 300.0)]), "x": ("peer", [(1e5, 5.0), (1e8, 9_999.0)])}, "rows", "MB"),
    ]
    for text in drawn:
        assert "<script>" not in "".join(
            of.text or "" for of in ElementTree.fromstring(text).iter() if of.tag == "script"
        )
        assert ElementTree.fromstring(text).get("viewBox")
