"""Who is told of a run, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from engine.errors import Problem
from engine.spec.rules import Place, wrong_host
from engine.spec.scalars import Finite, Spec, Text, unique

Event = Literal["error", "warning", "drift", "anomaly", "freshness", "failed"]


class AlertSpec(Spec):
    """A webhook that is called, or a command that is run, after a run with one of these events."""

    on: Annotated[
        tuple[Event, ...],
        Field(
            strict=False,
            min_length=1,
            description="error, warning: a check failed as one; drift, anomaly, freshness: a check of that family "
            "failed, however badly; failed: the run could not come to its end",
        ),
        AfterValidator(unique),
    ]
    webhook: Annotated[SecretStr | None, Field(description="http:// or https:// URL that JSON is posted to")] = None
    template: Annotated[
        Literal["json", "slack"], Field(description="webhook: the JSON that commands get too, or as Slack takes it")
    ] = "json"
    command: Annotated[
        tuple[Text, ...] | None,
        Field(
            strict=False,
            min_length=1,
            repr=False,
            json_schema_extra={"writeOnly": True},  # its words may be secret
            description="program and arguments, run without a shell, with JSON on its standard input; paths with a / "
            "start from the pipeline file",
        ),
    ] = None
    timeout_seconds: Annotated[Finite, Field(gt=0, le=300, description="of one attempt")] = 10.0
    max_retries: Annotated[int, Field(ge=0, le=10, description="attempts after the first, with growing pauses")] = 3

    def problems(self, path: Place) -> Iterator[Problem]:
        """Mistakes that no single key shows."""
        if (self.webhook is None) == (self.command is None):
            what = "neither a webhook nor a command" if self.webhook is None else "a webhook and a command"
            message = f"the alert has {what}"
            yield Problem("config.alert", message, path, allowed="webhook, or command", fix="give one of the two")
        if self.command is not None and "template" in self.model_fields_set:
            message = "template has no use with a command, which gets plain JSON"
            yield Problem("config.alert", message, (*path, "template"), fix="remove it")
        if self.webhook is not None and (wrong := _wrong_url(self.webhook.get_secret_value())):
            allowed = "http://host/… or https://host/…"
            yield Problem("config.url", wrong, (*path, "webhook"), allowed=allowed, fix="write the whole URL")


def _wrong_url(url: str) -> str | None:
    """What is wrong with a webhook, without repeating it."""
    if not url.startswith(("http://", "https://")):
        return "the webhook is no http:// or https:// URL"
    if any(c.isspace() or not c.isprintable() for c in url):
        return "the webhook has blanks or control characters in it"
    return wrong_host(url)
