"""HTML that escapes by construction: text is text, only what `el` made is markup.

There is no way to a script, an inline style, an event or an address outside the folder of the pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_TAG = re.compile(r"^[a-z][a-zA-Z0-9]*$")
_ATTRIBUTE = re.compile(r"^[a-zA-Z][a-zA-Z0-9-]*$")
_LOCAL = re.compile(r"^(#[\w.:-]*|[\w-][\w.-]*\.html(#[\w.:-]*)?)$")
_FORBIDDEN = frozenset({"script", "iframe", "object", "embed", "base", "form", "img", "image", "use", "foreignObject"})
_VOID = frozenset({"br", "hr", "meta", "link", "col"})
# Control characters mean nothing in HTML, lone surrogates are no Unicode, and those that turn the direction of writing
# around would show something else than what is there.
_UNSPEAKABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


class Markup:
    """HTML that is safe as it stands; only this module makes any."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


Node = Markup | str | int | float | None | Iterable[Any]  # of nodes; a number is written as Python writes it


def escaped(text: str) -> str:
    """``text`` as HTML shows it, in an element or in an attribute."""
    return _UNSPEAKABLE.sub("\ufffd", text).translate(_ENTITIES)


def markup(*nodes: Node) -> Markup:
    """Nodes one after another."""
    parts: list[str] = []
    _write(nodes, parts)
    return Markup("".join(parts))


def el(tag: str, *children: Node, **attributes: str | int | float | bool | None) -> Markup:
    """An element.

    Args:
        attributes: ``class_`` for ``class``, ``data_at`` for ``data-at``; None and False are left out, True has no
            value.

    Raises:
        ValueError: it could run something, load something, or lead away.
    """
    if not _TAG.match(tag) or tag in _FORBIDDEN:
        raise ValueError(f"no element {tag!r} is made here")
    parts = [f"<{tag}"]
    for key, value in attributes.items():
        if value is not None and value is not False:
            parts.append(_attribute(key.removesuffix("_").replace("_", "-"), value))
    parts.append(">")
    if tag not in _VOID:
        _write(children, parts)
        parts.append(f"</{tag}>")
    return Markup("".join(parts))


def _attribute(name: str, value: str | int | float | bool) -> str:
    if not _ATTRIBUTE.match(name) or name.lower().startswith("on") or name.lower() in ("style", "src", "srcset"):
        raise ValueError(f"no attribute {name!r} is made here")
    if value is True:
        return f" {name}"
    if name == "href" and not _LOCAL.match(str(value)):
        raise ValueError(f"{value!r} leads away")
    return f' {name}="{escaped(str(value))}"'


def _write(node: Node, parts: list[str]) -> None:
    if node is None:
        return
    if isinstance(node, Markup):
        parts.append(node.text)
    elif isinstance(node, str):
        parts.append(escaped(node))
    elif isinstance(node, int | float):
        parts.append(str(node))
    else:
        for child in node:
            _write(child, parts)


def document(title: str, style: str, *body: Node) -> str:
    """A whole page that may load nothing and run nothing; its own style is allowed by its hash."""
    policy = el("meta", http_equiv="Content-Security-Policy", content=content_policy(style))
    head = markup(
        el("meta", charset="utf-8"),
        policy,
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
    )
    # A style element holds raw text: what could end it is refused rather than escaped.
    if "<" in style:
        raise ValueError("a style holds no markup")
    whole = markup(Markup("<head>"), head, Markup(f"<style>{style}</style></head>"), el("body", *body))
    return f'<!doctype html>\n<html lang="en">{whole}</html>\n'


def content_policy(style: str) -> str:
    """The policy of a page with this style, for its meta element and for the header it is served with."""
    import base64
    import hashlib

    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
