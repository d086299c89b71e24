"""Text is text: whatever it holds, a parser of HTML finds it again, and no element more than was made."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.page.html import content_policy, document, el, escaped, markup

UNSPEAKABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
TEXTS = st.text(alphabet=st.characters(), max_size=40) | st.sampled_from(
    ["</p><script>x</script>", "<!--", "]]>", "&amp;", "&#x3c;", "\"'`", "\u202egnp.exe", "\ud83d", "javascript:x"]
)


class Seen(HTMLParser):
    """What a parser finds."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.values: list[str | None] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.lists(TEXTS, max_size=5), TEXTS)
def test_text_and_attributes_come_back_as_they_were(texts: list[str], value: str) -> None:
    seen = Seen(str(el("div", [el("p", text, title=value) for text in texts])))
    assert seen.tags == ["div", *["p"] * len(texts)]
    assert seen.text == UNSPEAKABLE.sub("\ufffd", "".join(texts))
    assert seen.values == [UNSPEAKABLE.sub("\ufffd", value)] * len(texts)


@given(TEXTS)
def test_what_is_put_together_by_hand_is_escaped_once_more(text: str) -> None:
    inner = el("b", text)
    assert str(el("p", inner)) == f"<p>{inner}</p>"
    assert str(el("p", f"{inner}")) == f"<p>{escaped(str(inner))}</p>"


@pytest.mark.parametrize(
    ("tag", "attributes"),
    [
        ("script", {}),
        ("iframe", {}),
        ("img", {}),
        ("form", {}),
        ("p onclick=x", {}),
        ("p", {"onclick": "x"}),
        ("p", {"ONLOAD": "x"}),
        ("p", {"style": "x"}),
        ("p", {"src": "x"}),
        ("p", {"x y": "x"}),
        ("a", {"href": "https://example.com"}),
        ("a", {"href": "//example.com"}),
        ("a", {"href": "javascript:alert(1)"}),
        ("a", {"href": "../up.html"}),
        ("a", {"href": "/root.html"}),
        ("a", {"href": "data:text/html,x"}),
    ],
)
def test_what_runs_loads_or_leads_away_is_not_made(tag: str, attributes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"made here|leads away"):
        el(tag, "text", **attributes)


def test_nothing_and_lists_and_numbers() -> None:
    assert str(markup(None, 3, [el("b", 1.5), ["x", None]], hidden := None)) == "3<b>1.5</b>x"
    assert hidden is None
    assert str(el("details", open=True, hidden=False, title=None)) == "<details open></details>"
    assert str(el("br")) == "<br>"


def test_a_document_allows_its_own_style_and_nothing_else() -> None:
    style = "p{color:red}"
    page = document("<t>", style, el("p", "x"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert content_policy(style) == policy
    assert escaped(policy) in page
    assert page.index("Content-Security-Policy") < page.index("<style>")
    with pytest.raises(ValueError, match="no markup"):
        document("t", "</style>")
