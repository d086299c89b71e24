"""Sources of other packages: how they are found, held to the protocol, and what is said of those that are of no use."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Pipeline, load_pipeline, run_pipeline
from engine.cli import main
from engine.errors import ConfigError, MaestroError, SourceError
from engine.plugin import kinds
from engine.problems import _schema_of
from engine.spec.plugins import plug_ins
from tests.plugin.packages import installed

GOOD = '''
"""A plug-in."""
from typing import Literal
import polars as pl
from engine.plugin import Chunk, SecretStr, SourceError, SourceSpec, TransientSourceError, plain

class Words:
    """Words, one by one.

    Not shown."""

    kind = "words"
    left = []

    class Spec(SourceSpec):
        type: Literal["words"]
        words: str
        size: int = 2
        token: SecretStr | None = None

    def __init__(self, name, spec, base):
        self.spec, self.location = spec, f"words of {base.name}"
        if spec.words == "fail at once":
            raise RuntimeError(f"no {spec.token.get_secret_value()}")

    def open(self, request):
        return plain(self.chunks)

    def chunks(self):
        words = self.spec.words.split()
        try:
            for number, start in enumerate(range(0, len(words), self.spec.size)):
                part = words[start : start + self.spec.size]
                if part[0] == "crash":
                    raise KeyError(f"the key {self.spec.token.get_secret_value()}")
                if part[0] == "eager":
                    yield Chunk(number, "x", pl.DataFrame({"word": part}), len(part))
                if part[0] == "text":
                    yield "x"
                if part[0] == "again":
                    number = 0
                yield Chunk(number, f"part {number}", pl.LazyFrame({"word": part}), len(part), last=part[0] != "half")
        finally:
            self.left.append(len(words))

class Renamed(Words):
    """Announced under another name than its own."""

class Bare:
    pass
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs packages for this process: ``package, {name: target}, {module: text}``."""
    number = 0

    def install(package: str, announced: dict[str, str], modules: dict[str, str] | None = None) -> None:
        nonlocal number
        number += 1
        folder = tmp_path / f"site{number}"
        folder.mkdir()
        monkeypatch.syspath_prepend(installed(folder, package, announced, modules or {}))
        _schema_of.cache_clear()

    yield install
    _schema_of.cache_clear()
    for name in ("words_source", "broken_source"):
        sys.modules.pop(name, None)


@pytest.fixture
def words(site: Callable[..., None]) -> None:
    site("maestro-words", {"words": "words_source:Words"}, {"words_source": GOOD})


def pipeline(tmp_path: Path, **keys: Any) -> Pipeline:
    return Pipeline(base=tmp_path, name="p", sources={"s": {"type": "words", **keys}})


def test_a_plug_in_is_read_like_any_source(tmp_path: Path, words: None) -> None:
    declared = pipeline(tmp_path, words="a b c", column_mapping={"word": "w"}, critical_columns=["w"])
    [source] = run_pipeline(declared).sources
    assert (source.metrics.records_read, source.metrics.chunks) == (3, 2)
    assert source.location == f"words of {tmp_path.name}"
    assert sys.modules["words_source"].Words.left == [3], "the reading has been ended"


def test_both_doors_give_the_same(tmp_path: Path, words: None) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nname: p\nsources: {s: {type: words, words: a b, token: abcd}}\n")
    assert load_pipeline(path) == pipeline(tmp_path, words="a b", token="abcd")
    assert load_pipeline(path).sources["s"] == pipeline(tmp_path, words="a b", token="abcd").sources["s"]
    again = Pipeline(name="p", sources=dict(load_pipeline(path).sources))
    assert again.sources == load_pipeline(path).sources


def test_mistakes_have_their_place_and_no_secret(tmp_path: Path, words: None) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "version: 1\nname: p\nsources:\n  s:\n    type: words\n    word: a b\n    size: x\n    token: 1234567\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path)
    told = {(p.code, p.line, p.message, p.fix) for p in caught.value.problems}
    assert told == {
        ("config.unknown_key", 6, "unknown key 'word'", "did you mean 'words'?"),
        ("config.type", 7, "size: expected a whole number, got the text 'x'", "change size to what is allowed"),
        ("config.type", 8, "token: expected a text", "change token to what is allowed"),
    }


def test_it_is_listed(words: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [kind["type"] for kind in listed] == ["database", "file", "api", "s3", "words"]
    assert listed[1]["keys"][0] == "path"
    assert listed[1]["target"] == "engine.sources.file:FileSource"
    assert listed[4] == {
        "type": "words",
        "description": "Words, one by one.",
        "package": "maestro-words 1.0",
        "target": "words_source:Words",
        "keys": ["words", "size", "token"],
        "problem": None,
    }
    assert main(["sources"]) == 0
    assert "Words, one by one." in capsys.readouterr().out


def test_the_built_in_kinds_are_where_the_list_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    for kind in kinds()[:4]:
        module, _, name = kind.target.partition(":")
        assert getattr(import_module(module), name).kind == kind.type
        assert kind.description
        assert kind.problem is None


@pytest.mark.parametrize(
    ("announced", "problem"),
    [
        ("broken_source:Words", "broken_source cannot be imported: ZeroDivisionError: division by zero"),
        ("no_such_module:Words", "no_such_module cannot be imported: ModuleNotFoundError"),
        ("words_source:Nothing", "words_source cannot be imported: AttributeError"),
        ("words_source:Bare", "Bare is no source: it has no method open"),
        ("words_source:Renamed", 'Renamed is no source: its Spec does not say type: Literal["odd"]'),
    ],
)
def test_one_that_cannot_be_used_says_why(
    site: Callable[..., None], capsys: pytest.CaptureFixture[str], announced: str, problem: str
) -> None:
    site("maestro-odd", {"odd": announced}, {"words_source": GOOD, "broken_source": "1 / 0\n"})
    assert main(["sources", "--json"]) == 0
    odd = json.loads(capsys.readouterr().out)[-1]
    assert odd["type"] == "odd"
    assert problem in odd["problem"]
    with pytest.raises(ConfigError) as caught:
        Pipeline(name="p", sources={"s": {"type": "odd", "words": "a"}})
    [told] = caught.value.problems
    assert (told.code, told.path) == ("config.plug_in", ("sources", "s", "type"))
    assert problem in told.message
    assert "maestro-odd 1.0" in str(told.fix)
    Pipeline(name="p", sources={"s": {"type": "file", "path": "a.csv"}})  # others do not mind


def test_a_name_belongs_to_one(site: Callable[..., None], words: None) -> None:
    site("maestro-more-words", {"words": "words_source:Words", "file": "words_source:Words"})
    found = plug_ins()
    assert found["words"].problem is not None
    assert "maestro-more-words 1.0" in found["words"].problem
    assert found["file"].problem is not None
    assert Pipeline(name="p", sources={"s": {"type": "file", "path": "a.csv"}}).sources["s"].type == "file"
    with pytest.raises(ConfigError, match="both announce words"):
        Pipeline(name="p", sources={"s": {"type": "words", "words": "a"}})


def test_an_unknown_type_names_those_there_are(words: None) -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline(name="p", sources={"s": {"type": "word", "words": "a"}})
    [told] = caught.value.problems
    assert told.allowed == "database, file, api, s3, words"
    assert told.fix == "did you mean 'words'?"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("a b crash", "source.plug_in", "the plug-in 'words' failed: KeyError: 'the key ***'"),
        ("fail at once", "source.plug_in", "the plug-in 'words' failed: RuntimeError: no ***"),
        ("eager", "source.plug_in", "gave a Chunk with a frame of type DataFrame, not a Chunk with a LazyFrame"),
        ("text", "source.plug_in", "gave str, not a Chunk"),
        ("a b again c", "source.misnumbered", "there are two pieces with the number 0"),
        ("a b half c", "source.misnumbered", "piece 1 never came to its last part"),
    ],
)
def test_what_goes_wrong_in_it_names_it(tmp_path: Path, words: None, text: str, code: str, message: str) -> None:
    with pytest.raises(MaestroError) as caught:
        run_pipeline(pipeline(tmp_path, words=text, token="s3cr3t-t0ken"))
    assert isinstance(caught.value, SourceError)
    assert (caught.value.code, caught.value.where) == (code, "sources.s")
    assert message in caught.value.message
    assert "s3cr3t" not in str(caught.value)
