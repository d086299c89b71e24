"""Pages in a real browser: what it shows is what the JSON says, it asks for nothing, it fits, keys lead through it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.page import archive, chart, index, run
from engine.page import figures as figures_module
from engine.page.summary import headline, summary
from tests.page.reports import EMAIL, Json, check, everything, many, source, validation
from tests.servers.chromium import Browser, Tab

OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true })"
FIGURES = "[...document.querySelectorAll('data')].map(d => [d.dataset.at, d.dataset.sum, d.value, d.textContent])"
# Every text of the page against the colours that lie behind it, as WCAG 2 computes contrast.
CONTRAST = """(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const lum = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 }); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c } return [255, 255, 255] };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; (n = walker.nextNode());) {
    if (!n.textContent.trim() || !n.parentElement.getClientRects().length) continue;
    const a = lum(parse(getComputedStyle(n.parentElement).color)), b = lum(behind(n.parentElement));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push([n.textContent.slice(0, 40), ratio]);
  }
  return bad })()"""
SPILLING = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('.skip') &&
  e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"""
FOCUSED = "[document.activeElement.tagName, document.activeElement.getBoundingClientRect().top + scrollY, document.activeElement.outerHTML.slice(0, 60)]"


def written(folder: Path, html: str, name: str = "page.html") -> str:
    path = folder / name
    path.write_bytes(html.encode("utf-8", "backslashreplace"))
    return path.as_uri()


def looked_up(report: Any, at: str) -> Any:
    """RFC 6901, plainly."""
    for part in at.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        report = report[int(key)] if isinstance(report, list) else report[key]
    return report


def figures(tab: Tab) -> tuple[dict[str, tuple[float, str]], dict[str, tuple[float, str]]]:
    """The page's figures by their place in the JSON, and its sums by name: value and text."""
    found = tab.value(FIGURES)
    return (
        {at: (float(value), text) for at, _, value, text in found if at},
        {name: (float(value), text) for _, name, value, text in found if name},
    )


@pytest.mark.parametrize("make", [everything, many])
def test_the_figures_are_those_of_the_json_and_nothing_is_asked_for(
    browser: Browser, tmp_path: Path, make: Any
) -> None:
    report: Json = make()
    url = written(tmp_path, run.render(report))
    with browser.tab() as tab:
        tab.open(url)
        assert (tab.complaints(), tab.asked()) == ([], [url])
        placed, sums = figures(tab)
        title, text = tab.value("[document.title, document.querySelector('#verdict').textContent]")
        told, path = tab.value(
            "[document.querySelector('main').textContent, document.querySelector('.path').textContent]"
        )
    assert title == f"{report['pipeline']}: {report['status']}, {report['created_timestamp']}"
    assert "Blocked: " in text
    for at, (value, shown) in placed.items():
        assert value == looked_up(report, at), at
        if not at.startswith(("/seconds", "/stages")):
            assert shown == f"{looked_up(report, at):,}", at
    results = [r for s in report["sources"] for r in s["validation"]["results"]]
    assert {name: value for name, (value, _) in sums.items()} == {
        "rows_read": sum(s["balance"]["read"] for s in report["sources"]),
        "checks": len(results),
        "errors": sum(not r["passed"] and r["severity"] == "error" for r in results),
        "warnings": sum(not r["passed"] and r["severity"] == "warning" for r in results),
        "quarantined": sum(s["balance"]["quarantined"] for s in report["sources"]),
        "published": sum(sum(view["rows"]) for view in report["views"]),
        **({"drifted": 2} if make is everything else {}),
    }
    assert all(shown == f"{value:,.0f}" for value, shown in sums.values())
    expected = {f"/sources/{i}/balance/{k}" for i, s in enumerate(report["sources"]) for k in s["balance"]}
    assert {at for at in placed if "/balance/" in at} == {at for at in expected if "carried_over" not in at}
    stages = {at: shown for at, (_, shown) in placed.items() if at.startswith("/seconds")}
    assert stages["/seconds/read"] == "12.3 s"
    assert placed["/stages/0/cpu_seconds"][1] == "18.5 s"
    assert "writer 1.25 s" in path
    assert "source" not in path, "it took no time to speak of"
    assert "(again: late or changed rows)" in told
    assert "went on from saved state: 1,200 rows of events read, 300 new ones of activities." in told
    assert "2 rows of activities came too late to move what was published" in told
    assert "1 row of activities had changed or gone." in told
    assert stages["/seconds/feast"] == "1 min 15 s"


@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("make", [everything, "index"])
def test_it_fits_and_can_be_read(browser: Browser, tmp_path: Path, width: int, dark: bool, make: Any) -> None:
    html = index.render("shop", past_runs()) if make == "index" else run.render(make())
    with browser.tab(width=width, dark=dark, touch=width < 500) as tab:
        tab.open(written(tmp_path, html))
        assert (tab.value(CONTRAST), tab.complaints()) == ([], [])
        tab.value(OPEN_ALL)
        assert tab.value("document.documentElement.scrollWidth") <= width
        assert (tab.value(SPILLING), tab.value(CONTRAST)) == ([], [])
        size = tab.value("getComputedStyle(document.documentElement).fontSize")
        assert int(size.removesuffix("px")) >= 15


def test_what_is_hostile_stays_text(browser: Browser, tmp_path: Path) -> None:
    with browser.tab() as tab:
        tab.open(written(tmp_path, run.render(everything())))
        assert tab.value("document.scripts.length + document.images.length + document.styleSheets.length") == 1
        assert "owned" not in tab.value("document.title")
        assert "<script>document.title='owned'</script>" in tab.value("document.querySelector('main').textContent")
        # Also where something found its way into the page all the same: the policy refuses it.
        tab.value(
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title=1'}))"
        )
        tab.value("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/x'}))")
        tab.value("document.body.setAttribute('style', 'display:none')")
        assert tab.value("[document.title.length > 1, getComputedStyle(document.body).display]") == [True, "block"]
        refused = [event["blockedReason"] for event in tab.heard("Network.loadingFailed")]
        assert refused == ["csp"], "asked for and refused before it left"


def test_keys_lead_through_it_in_order(browser: Browser, tmp_path: Path) -> None:
    with browser.tab() as tab:
        tab.open(written(tmp_path, run.render(everything())))
        seen = []
        for _ in range(60):
            tab.key("Tab", 9)
            seen.append(tab.value(FOCUSED))
        assert 'href="#verdict"' in seen[0][2]
        assert "index.html" in seen[1][2]
        below = [top for _, top, _ in seen[1:] if top is not None]
        turn = below.index(max(below))
        assert below[: turn + 1] == sorted(below[: turn + 1]), "focus goes down the page"
        assert {tag for tag, _, _ in seen} >= {"A", "SUMMARY", "DIV"}
        tab.value("document.querySelector('summary').focus()")
        tab.key("Enter", 13, "\r")
        assert tab.value("document.querySelector('details').open") is True
        outline = tab.value("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


def test_it_is_made_of_what_readers_of_pages_go_by(browser: Browser, tmp_path: Path) -> None:
    with browser.tab() as tab:
        tab.open(written(tmp_path, run.render(everything())))
        tab.value(OPEN_ALL)
        assert tab.value("document.documentElement.lang") == "en"
        counts = "['main', 'header', 'footer', 'h1'].map(s => document.querySelectorAll(s).length)"
        assert tab.value(counts) == [1, 1, 1, 1]
        levels = [int(h[1]) for h in tab.value("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => h.tagName)")]
        assert levels[0] == 1
        assert all(later - before <= 1 for before, later in itertools.pairwise(levels))
        assert tab.value("[...document.querySelectorAll('th')].every(t => t.scope)") is True
        assert tab.value("[...document.querySelectorAll('table')].every(t => t.caption.textContent)") is True
        silent = (
            "[...document.querySelectorAll('svg')].filter(s => !s.getAttribute('aria-label') && !s.ariaHidden).length"
        )
        assert tab.value(silent) == 0
        targets = (
            "[...document.querySelectorAll('a[href^=\"#\"]')].every(a => document.getElementById(a.hash.slice(1)))"
        )
        assert tab.value(targets) is True
        identities = "[...document.querySelectorAll('[id]')].map(e => e.id)"
        assert len(tab.value(identities)) == len(set(tab.value(identities)))
        verdict, failed, first = tab.value("[...document.querySelectorAll('h2')].map(h => h.id)")[:3]
        assert (verdict, failed, first) == ("verdict", "failed", "drift")


def test_distributions_are_drawn_in_proportion(browser: Browser, tmp_path: Path) -> None:
    report = everything()
    [drift] = [r for r in report["sources"][0]["validation"]["results"] if r["check_name"] == "drift_validation"][:1]
    bins = drift["details"]["bins"]
    with browser.tab() as tab:
        tab.open(written(tmp_path, run.render(report)))
        widths = tab.value(
            "[...document.querySelector('.bins').querySelectorAll('svg')].map(s => [...s.querySelectorAll('rect')].map(r => r.getBoundingClientRect().width))"
        )
    most = max(max(b["baseline"], b["current"]) for b in bins)
    longest = max(max(pair) for pair in widths)
    for found, b in zip(widths, bins, strict=True):
        assert found == pytest.approx([b["baseline"] / most * longest, b["current"] / most * longest], abs=0.5)


def test_a_histogram_is_drawn_in_proportion() -> None:
    counts = [4, 0, 1, 2]
    heights = re.findall(r"M(\d+) 20v-([\d.]+)h9V20z", str(chart.histogram(counts, "x")))
    assert [(int(x), float(h)) for x, h in heights] == [(0, 20), (20, 5), (30, 10)]


def test_it_prints_on_pages_with_everything_open(browser: Browser, tmp_path: Path) -> None:
    with browser.tab() as tab:
        tab.open(written(tmp_path, run.render(everything())))
        assert tab.printed().startswith(b"%PDF")
        tab.call("Emulation.setEmulatedMedia", media="print")
        inner = "getComputedStyle(document.querySelector('.failure details'), '::details-content').contentVisibility"
        assert tab.value(inner) == "visible"
        tab.call("Emulation.setEmulatedMedia", media="screen")
        assert tab.value(inner) == "hidden"
        tab.call("Emulation.setEmulatedMedia", media="print")
        assert tab.value("getComputedStyle(document.querySelector('.contents')).display") == "none"


def test_personal_values_are_masked() -> None:
    report = everything()
    html = run.render(report)
    assert EMAIL not in html
    assert "paid" in html
    report["sources"][0]["pii"] = []
    assert EMAIL in run.render(report)


def test_a_thousand_checks_make_a_page_below_a_megabyte() -> None:
    for failed in (0, 500, 1000):
        report = many(1000, failed)
        html = run.render(report)
        assert len(html.encode("utf-8", "backslashreplace")) < 1_000_000
        assert all(f"a_column_with_a_name_{i}<" in html for i in range(1000))


def test_long_names_and_rows_give_way_before_checks_do() -> None:
    report = many(1000, 1000)
    for result in report["sources"][0]["validation"]["results"]:
        result["column"] = f"{result['column']}_{'long' * 15}"
        result["message"] += "; and so on" * 100
        result["sample"] = [{f"column_{j}": "value" * 50 for j in range(12)}] * 5
    html = run.render(report)
    assert len(html.encode()) <= 1_000_000
    assert all(f"a_column_with_a_name_{i}_long" in html for i in range(1000))


def test_more_checks_than_fit_are_counted() -> None:
    html = run.render(many(6_000, 2_500))
    assert len(html.encode()) <= 1_000_000
    lines = html.count("a_column_with_a_name_")
    failed, rest = (int(n.replace(",", "")) for n in re.findall(r"and ([\d,]+) more (?:failed )?checks", html))
    assert 0 < 2_500 - failed <= 6_000 - rest < 6_000
    assert lines > 2_500 - failed


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"sources": [{"name": "a"}], "views": [{}], "seconds": {}, "status": "odd"},
        {"sources": [source("a", [], validation=None, profile=None, balance=None, metrics=None, promise=None)]},
        {"sources": [source("a", [check("drift", "x", False)])], "run_id": "r"},
        {"sources": [source("a", [check("anomaly", None, False)], profile={"columns": [{}]})]},
        {"sources": [source("a", [check("range", None) | {"details": None, "sample": None}])]},
    ],
)
def test_it_renders_without_what_it_may_lack(report: Json) -> None:
    assert run.render(report).endswith("</html>\n")
    assert json.dumps(summary(report))


@pytest.mark.parametrize(
    ("status", "results", "error", "said"),
    [
        ("done", [], None, "Done. No checks are declared."),
        ("done", [check("range", "a")], None, "Done. The one check passed."),
        ("done", [check("range", "a")] * 3, None, "Done. All 3 checks passed."),
        ("done", [check("range", "a", False, "warning")] * 2, None, "Done, with 2 warnings in 2 checks."),
        ("blocked", [check("range", "a", False)], None, "Blocked: 1 ERROR check failed on t. Nothing was published."),
        ("failed", [], {"message": "no such table."}, "Failed: no such table."),
        ("partial", [], {"message": "gone"}, "Failed part way: gone. What it had landed or published stays."),
        ("interrupted", [], None, "Interrupted. It can be gone on with."),
    ],
)
def test_the_verdict_in_a_sentence(status: str, results: list[Json], error: Json | None, said: str) -> None:
    sources = [{"name": "t", "validation": validation(results)}]
    assert headline({"status": status, "sources": sources, "error": error}) == said


def past_runs() -> list[dict[str, Any]]:
    runs = []
    for i in range(9):
        line = summary(everything())
        line |= {"run_id": f"run-{i}", "created_timestamp": f"2025-10-0{i + 1}T00:00:00Z", "seconds": 10.0 + i}
        line |= {"status": "failed" if i == 3 else "done", "errors": i % 2, "warnings": i % 3}
        line["nulls"] = {"orders.price": 0.08 if i == 8 else 0.001, "users.user_id": 0.0}
        line["rows"] = {"orders": 500 + 200 * i, "users": None if i == 4 else 500}
        runs.append(line)
    return runs


def test_the_index_tells_every_run_and_draws_the_trends(browser: Browser, tmp_path: Path) -> None:
    runs = past_runs()
    for line in runs:
        written(tmp_path, run.render(everything()), f"{line['run_id']}.html")
    url = written(tmp_path, index.render("shop", runs), "index.html")
    with browser.tab() as tab:
        tab.open(url)
        assert (tab.complaints(), tab.asked()) == ([], [url])
        rows = tab.value(
            "[...document.querySelectorAll('.runs tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
        )
        links = tab.value("[...document.querySelectorAll('.runs a')].map(a => a.getAttribute('href'))")
        cards = tab.value("[...document.querySelectorAll('.cards h3')].map(h => h.textContent)")
        points = tab.value("document.querySelectorAll('.cards svg')[2].querySelector('.line').getAttribute('d')")
        assert len(tab.value("[...document.querySelectorAll('.strip a')].map(a => a.ariaLabel)")) == 9
        tab.value("document.querySelector('.runs a').click()")
        tab.browser.wait("Page.loadEventFired", tab.session)
        assert tab.value("document.querySelector('header a').textContent") == "All runs"
    assert links == [f"run-{i}.html" for i in reversed(range(9))]
    assert [(row[0], row[3], row[4]) for row in rows] == [
        (f"2025-10-0{i + 1} 00:00", "2,001,000", str(i % 2 + i % 3)) for i in reversed(range(9))
    ]
    assert cards == ["Failed checks", "Time", "Rows of orders", "Rows of users", "Nulls in orders.price"]
    heights = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", points)]
    rows_of_orders = [line["rows"]["orders"] for line in runs]
    most = max(rows_of_orders)
    assert heights == pytest.approx([44 - 40 * n / most for n in rows_of_orders], abs=0.01)


def test_runs_are_kept_and_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "KEPT", 3)
    kept = archive.Archive(tmp_path / "reports", "shop")
    for i in range(5):
        kept.keep(everything() | {"run_id": f"run-{i}", "created_timestamp": f"2025-10-0{i + 1}T00:00:00Z"})
    names = {f"run-{i}.{suffix}" for i in (2, 3, 4) for suffix in ("html", "json")}
    assert {path.name for path in kept.folder.iterdir()} == names | {"index.html", "index.json"}
    assert [line["run_id"] for line in kept.lines()] == ["run-2", "run-3", "run-4"]
    before = kept.lines()
    (kept.folder / "index.json").write_text("{ damaged")
    (kept.folder / "run-3.json").write_text("damaged too")
    assert kept.lines() == [before[0], before[2]]
    kept.keep(everything() | {"run_id": "run-4", "status": "done", "created_timestamp": "2025-10-05T00:00:00Z"})
    assert [(line["run_id"], line["status"]) for line in kept.lines()] == [("run-2", "blocked"), ("run-4", "done")]
    assert not [path for path in kept.folder.iterdir() if path.name.startswith(".")]
    (published,) = kept.publish(tmp_path / "one", "run-4")
    assert "index.html" not in published.read_text()
    assert {path.name for path in kept.publish(tmp_path / "all")} == {"index.html", "run-2.html", "run-4.html"}


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "index", "a" * 200])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a run"):
        archive.Archive(tmp_path / "reports", "shop").keep(everything() | {"run_id": name})


@pytest.mark.parametrize(
    ("write", "value", "said"),
    [
        (figures_module.whole, 1234567, "1,234,567"),
        (figures_module.whole, None, "–"),
        (figures_module.number, 31.4159265, "31.42"),
        (figures_module.number, 16090.53, "16,090.5"),
        (figures_module.number, 1234567.0, "1,234,567"),
        (figures_module.number, 0.00001234, "1.234e-05"),
        (figures_module.number, None, "–"),
        (figures_module.number, "inf", "inf"),
        (figures_module.percent, 0.08, "8.0 %"),
        (figures_module.percent, 0, "0.0 %"),
        (figures_module.percent, 0.00001, "0.001 %"),
        (figures_module.seconds, 0.4213, "0.42 s"),
        (figures_module.seconds, 12.345, "12.3 s"),
        (figures_module.seconds, 59.97, "1 min 00 s"),
        (figures_module.seconds, 7384, "2 h 03 min"),
        (figures_module.size, 1023, "1,023 B"),
        (figures_module.size, 123_456_789, "117.7 MiB"),
    ],
)
def test_figures_are_written_for_people(write: Any, value: Any, said: str) -> None:
    assert write(value) == said
