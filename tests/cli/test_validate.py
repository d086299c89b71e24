"""``maestro validate DATA --checks FILE``, and JUnit XML: Parquet in place, here and in S3; rows set aside."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import polars as pl
import pytest

from engine import Suite
from engine.errors import DataError
from tests.cli.conftest import Maestro, Said
from tests.servers.ceph import ACCESS_KEY, BUCKET, SECRET_KEY, Ceph

CHECKS = "unique_columns: [id]\nrange_constraints: {score: [0, 100]}\non_violation: {range: quarantine}\n"
FIRST = pl.DataFrame({"id": [1, 2, 3], "score": [1.0, 200.0, 3.0]})
SECOND = pl.DataFrame({"id": [4, 2], "score": [-1, 2]})
BROKEN = [("data/a.parquet", 1, 2, 200.0), ("data/b/b.parquet", 0, 4, -1.0)]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a folder of Parquet files whose types differ, and checks that they break."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "b").mkdir(parents=True)
    FIRST.write_parquet("data/a.parquet")
    SECOND.write_parquet("data/b/b.parquet")
    SECOND.write_parquet("data/.hidden.parquet")
    Path("checks.yaml").write_text(CHECKS)
    return tmp_path


def report(said: Said) -> Any:
    [found] = said.json["sources"].values()
    return found


def samples(said: Said) -> list[tuple[Any, ...]]:
    [range_] = [r for r in report(said)["results"] if r["check_name"] == "range_validation"]
    return [(row["origin"], row["origin_row"], row["score"]) for row in range_["sample"]]


def cases(path: str | Path) -> dict[str, list[str]]:
    return {
        f"{case.get('classname')}.{case.get('name')}": [c.tag for c in case if c.tag != "properties"]
        for case in ElementTree.parse(path).getroot().iter("testcase")
    }


# --- where the data lies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "rows", "origins"),
    [
        ("data", 5, ["data/a.parquet", "data/b/b.parquet"]),
        ("data/", 5, ["data/a.parquet", "data/b/b.parquet"]),
        ("data/**/*.parquet", 5, ["data/a.parquet", "data/b/b.parquet"]),
        ("data/a.parquet", 3, ["data/a.parquet"]),
    ],
)
def test_parquet_is_judged_where_it_lies(
    maestro: Maestro, lake: Path, monkeypatch: pytest.MonkeyPatch, target: str, rows: int, origins: list[str]
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda **_: pytest.fail("nothing is copied"))
    said = maestro("validate", target, "--checks", "checks.yaml", "--json")
    assert said.code == 0
    assert (report(said)["version"], report(said)["rows"]) == (1, rows)
    assert samples(said) == [(origin, row, score) for origin, row, _, score in BROKEN if origin in origins]
    shown = maestro("validate", target, "--checks", "checks.yaml").out
    assert "data/a.parquet row 1: score=200.0" in shown
    assert {p.name for p in lake.iterdir()} == {"data", "checks.yaml"}


def test_what_text_formats_hold(maestro: Maestro, lake: Path) -> None:
    pl.concat([FIRST, SECOND], how="vertical_relaxed").write_csv("all.csv")
    pl.concat([FIRST, SECOND], how="vertical_relaxed").write_ndjson("all.ndjson")
    for name in ("all.csv", "all.ndjson", "all.*sv"):
        said = maestro(
            "validate",
            name,
            "--checks",
            "checks.yaml",
            "--json",
            "--format",
            Path(name).suffix[1:].replace("*sv", "csv"),
        )
        found = report(said)
        assert (said.code, found["rows"], found["warnings"], found["quarantined"]) == (0, 5, 1, 2), name


@pytest.mark.parametrize(
    ("target", "code", "exit_code"),
    [
        ("empty", "data.no_file", 3),
        ("none.parquet", "data.no_file", 3),
        ("none/*.parquet", "data.no_file", 3),
        ("data/broken.parquet", "data.unreadable", 3),
        ("nothing", "validate.format", 2),
    ],
)
def test_what_cannot_be_read(maestro: Maestro, lake: Path, target: str, code: str, exit_code: int) -> None:
    (lake / "empty").mkdir()
    (lake / "data" / "broken.parquet").write_text("no Parquet")
    said = maestro("validate", target, "--checks", "checks.yaml", "--json", "--junit", "j.xml")
    assert (said.code, said.json["error"]["code"]) == (exit_code, code)
    assert list(cases("j.xml").values()) == [["error"]], "a CI system sees it too"


def test_a_wrong_pattern_has_its_place(maestro: Maestro, lake: Path) -> None:
    Path("checks.yaml").write_text("unique_columns: [id]\npatterns:\n  id: '(a'\n")
    said = maestro("validate", "data", "--checks", "checks.yaml")
    assert said.code == 2
    assert said.err.startswith("checks.yaml:3:3: '(a' is no regular expression: unclosed group [config.pattern]")


def test_foreign_keys_need_a_pipeline(maestro: Maestro, lake: Path) -> None:
    Path("checks.yaml").write_text("foreign_keys: {id: users.id}\n")
    said = maestro("validate", "data", "--checks", "checks.yaml", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "validate.references")


def test_functions_lie_beside_the_checks(maestro: Maestro, lake: Path) -> None:
    (lake / "rules").mkdir()
    (lake / "rules" / "our_rules_here.py").write_text(
        "import polars as pl\n\ndef positive():\n    return pl.col('score') > 0\n"
    )
    (lake / "rules" / "checks.yaml").write_text("custom: {positive: {function: 'our_rules_here:positive'}}\n")
    said = maestro("validate", "data", "--checks", "rules/checks.yaml", "--json")
    assert (said.code, report(said)["results"][0]["failed_records"]) == (1, 1)


# --- rows set aside -----------------------------------------------------------------------------------------------


def test_quarantined_rows_go_to_a_file(maestro: Maestro, lake: Path) -> None:
    said = maestro("validate", "data", "--checks", "checks.yaml", "--quarantine", "bad.parquet", "--json")
    assert (said.code, report(said)["quarantined"]) == (0, 2)
    aside = pl.read_parquet("bad.parquet")
    about = aside["quarantine"].struct.unnest()
    found = zip(about["origin"], about["row"], aside["id"], aside["score"], strict=True)
    assert list(found) == BROKEN
    assert about["checks"].to_list() == [["range.score"]] * 2
    assert {p.name for p in lake.iterdir()} == {"data", "checks.yaml", "bad.parquet"}
    assert (
        maestro("validate", "data/a.parquet", "--checks", "checks.yaml", "--quarantine", "bad.parquet", "-q").code == 0
    )
    assert pl.read_parquet("bad.parquet").height == 1, "of this call only"
    FIRST.head(1).write_parquet("good.parquet")
    maestro("validate", "good.parquet", "--checks", "checks.yaml", "--quarantine", "bad.parquet")
    assert not Path("bad.parquet").exists(), "rows of an earlier call are not taken for this one's"


def test_quarantined_rows_of_a_text_file(maestro: Maestro, lake: Path) -> None:
    FIRST.write_csv("all.csv")
    assert maestro("validate", "all.csv", "--checks", "checks.yaml", "--quarantine", "bad.parquet").code == 0
    assert pl.read_parquet("bad.parquet")["id"].to_list() == [2]


@pytest.mark.parametrize(
    ("target", "checks", "quarantine", "words"),
    [
        ("data", CHECKS, "none/bad.parquet", "there is no folder"),
        ("data", CHECKS, "data", "data is a folder"),
        ("data", CHECKS, "data/b/b.parquet", "no quarantine file"),
        ("data", "unique_columns: [id]\n", "bad.parquet", "no check quarantines rows"),
        ("data", CHECKS, "checks.yaml", "with the suffix .parquet"),
        ("data", CHECKS, "bad.csv", "with the suffix .parquet"),
        ("data", CHECKS, "bad", "with the suffix .parquet"),
        ("data", CHECKS, "mine.parquet", "is there already, and no quarantine file"),
        ("data/a.parquet", CHECKS, "text.parquet", "is there already, and no quarantine file"),
        ("data", CHECKS, "empty.parquet", "is there already, and no quarantine file"),
        ("pipeline.yaml", None, "bad.parquet", "quarantined by its runs"),
    ],
)
def test_a_quarantine_that_makes_no_sense(
    maestro: Maestro, lake: Path, target: str, checks: str | None, quarantine: str, words: str
) -> None:
    Path("checks.yaml").write_text(checks or "")
    FIRST.write_parquet("mine.parquet")
    Path("text.parquet").write_text("no Parquet")
    pl.DataFrame().write_parquet("empty.parquet")
    before = {path: path.read_bytes() for path in lake.rglob("*") if path.is_file()}
    arguments = ["--checks", "checks.yaml"] if checks else []
    said = maestro("validate", target, *arguments, "--quarantine", quarantine)
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert {path: path.read_bytes() for path in lake.rglob("*") if path.is_file()} == before


def test_checks_in_a_file_whose_name_is_a_quarantine_s(maestro: Maestro, lake: Path) -> None:
    (lake / "checks.parquet").write_text(CHECKS)
    said = maestro("validate", "data", "--checks", "checks.parquet", "--quarantine", "checks.parquet")
    assert said.code == 2
    assert "checks.parquet is the file of checks" in said.err
    assert (lake / "checks.parquet").read_text() == CHECKS


def test_a_quarantine_is_left_alone_where_no_row_goes_there(maestro: Maestro, lake: Path) -> None:
    """A file that is none is neither replaced nor removed, whether or not there are such rows."""
    SECOND.write_parquet("mine.parquet")
    FIRST.head(1).write_parquet("good.parquet")
    for target in ("good.parquet", "data"):
        said = maestro("validate", target, "--checks", "checks.yaml", "--quarantine", "mine.parquet")
        assert said.code == 2
        assert pl.read_parquet("mine.parquet").equals(SECOND)


# --- JUnit XML ----------------------------------------------------------------------------------------------------


def test_junit_of_one_file(maestro: Maestro, lake: Path) -> None:
    arguments = ["validate", "data/a.parquet", "--checks", "checks.yaml", "--junit", "j.xml"]
    assert maestro(*arguments, "-q") == Said(0, "", "")
    expected = {"uniqueness.id": [], "range.score": ["system-out"], "row_count": []}
    assert cases("j.xml") == {f"a.parquet.{name}": tags for name, tags in expected.items()}
    strict = maestro(*arguments, "--strict", "--json")
    assert (strict.code, strict.json["ok"]) == (1, False)
    assert cases("j.xml")["a.parquet.range.score"] == ["failure"]
    assert "range.score" in maestro(*arguments, "--strict", "-q").out


@pytest.mark.parametrize("command", ["run", "validate"])
def test_junit_of_a_pipeline(maestro: Maestro, folder: Path, command: str) -> None:
    for name, code in {"pipeline": 0, "blocked": 1}.items():
        assert maestro(command, f"{name}.yaml", "--junit", "j.xml").code == code
        found = cases("j.xml")
        assert found["users.range.experience_years"] == ["system-out"]
        assert found["users.uniqueness.user_id"] == []
        assert found.get("activities.categorical.task_type") == (["failure"] if code else None)
        assert ElementTree.parse("j.xml").getroot().get("name") == "small"
    for name, code in {"wrong": 2, "absent": 3}.items():
        assert maestro(command, f"{name}.yaml", "--junit", "j.xml").code == code
        assert cases("j.xml") == {f"{name}.yaml.maestro": ["error"]}


@pytest.mark.parametrize("command", ["run", "validate"])
def test_junit_where_nothing_can_be_written_stops_before_anything_is_read(
    maestro: Maestro, folder: Path, command: str
) -> None:
    said = maestro(command, "absent.yaml", "--junit", "none/j.xml", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "junit.target")
    assert not (folder / ".maestro").exists()
    assert not (folder / "none").exists()


def test_the_schema_of_reports(maestro: Maestro, lake: Path) -> None:
    schema = maestro("schema", "--report").json
    said = maestro("validate", "data", "--checks", "checks.yaml", "--json").json
    assert next(iter(said)) == "version"
    jsonschema.Draft202012Validator(schema).validate(said)


# --- S3 -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(ceph_server: Ceph) -> Ceph:
    store = ceph_server.store()
    for name, frame in {"a": FIRST, "b/b": SECOND, ".hidden": SECOND}.items():
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        store.pipe(f"{BUCKET}/scores/day=1/{name}.parquet", buffer.getvalue())
    store.pipe(f"{BUCKET}/scores.csv", FIRST.write_csv().encode())
    return ceph_server


@pytest.fixture
def credentials(bucket: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": bucket.url,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("key", ["scores", "scores/day=1/", "scores/**/*.parquet"])
@pytest.mark.usefixtures("credentials")
def test_parquet_in_s3_is_judged_where_it_lies(maestro: Maestro, lake: Path, key: str) -> None:
    said = maestro(
        *("validate", f"s3://{BUCKET}/{key}", "--checks", "checks.yaml", "--json", "--quarantine", "bad.parquet")
    )
    assert said.code == 0, said.out
    day = f"s3://{BUCKET}/scores/day=1"
    assert samples(said) == [(f"{day}/a.parquet", 1, 200.0), (f"{day}/b/b.parquet", 0, -1.0)]
    assert report(said)["rows"] == 5
    assert pl.read_parquet("bad.parquet")["id"].to_list() == [2, 4]
    assert SECRET_KEY not in said.out


@pytest.mark.usefixtures("credentials")
def test_text_in_s3(maestro: Maestro, lake: Path) -> None:
    said = maestro("validate", f"s3://{BUCKET}/scores.csv", "--checks", "checks.yaml", "--json")
    assert (said.code, report(said)["rows"], report(said)["warnings"]) == (0, 3, 1)


@pytest.mark.parametrize(
    ("name", "value", "key", "code"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "scores", "source.access_denied"),
        ("AWS_ENDPOINT_URL", "not a url", "scores", "config.value"),
        ("AWS_REGION", "us-east-1", "nothing/here", "source.no_match"),
    ],
)
@pytest.mark.usefixtures("credentials")
def test_s3_that_cannot_be_read(
    maestro: Maestro, lake: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, key: str, code: str
) -> None:
    monkeypatch.setenv(name, value)
    said = maestro("validate", f"s3://{BUCKET}/{key}", "--checks", "checks.yaml", "--json")
    assert said.json["error"]["code"] == code
    assert said.code == (2 if code.startswith("config") else 3)


@pytest.mark.usefixtures("credentials")
def test_a_suite_reads_s3_itself(bucket: Ceph) -> None:
    suite = Suite({"unique_columns": ["id"]})
    assert suite.validate(f"s3://{BUCKET}/scores/day=1/a.parquet").ok
    found = suite.validate(f"s3://{BUCKET}/scores/**/*.parquet")
    assert (found.rows, found.results[0].failed_records) == (5, 1)
    assert suite.validate(f"s3://{BUCKET}/scores/day=1/*.parquet").rows == 3, "hidden ones are left out"
    with pytest.raises(DataError, match="could not be read"):
        suite.validate(f"s3://{BUCKET}/none/*.parquet")
