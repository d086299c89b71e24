"""Who is told of a run once it is over: webhooks and commands; nothing of it changes what the run came to."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.page.summary import family, headline, is_failed, name, results
from engine.spec import AlertSpec

MOST = 20  # checks that an alert names
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
LONGEST_MESSAGE = 300
_FAILED = ("failed", "partial")
_FAMILIES = ("drift", "anomaly", "freshness")
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_JSON = {"Content-Type": "application/json"}
_SLACK_BLOCK = 2900  # characters; 3,000 are allowed

log = logging.getLogger(__name__)
Json = Mapping[str, Any]


class _Undelivered(Exception):  # noqa: N818 - what happened
    """An attempt failed; said without the address, which is a secret."""

    def __init__(self, why: str, *, again: bool = True, after: float = 0.0) -> None:
        super().__init__(why)
        self.again, self.after = again, after


def send(
    alerts: Mapping[str, AlertSpec],
    report: Json,
    *,
    base: Path,
    page: Path | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> list[str]:
    """Sends the alerts that a run calls for, one after the other.

    Args:
        report: what `engine.outcome.RunReport.to_dict` gives.
        base: the folder that commands run in.
        page: of the run.

    Returns:
        A line for each that could not be delivered.
    """
    found, undelivered = events(report), []
    for label, spec in alerts.items():
        chosen = [event for event in spec.on if event in found]
        if chosen and (why := _deliver(spec, message(report, chosen, page), base, sleep)):
            undelivered.append(f"the alert {label} could not be delivered: {why}")
            log.warning("%s", undelivered[-1])
        elif chosen:
            log.info("the alert %s was delivered: %s", label, ", ".join(chosen))
    return undelivered


def events(report: Json) -> set[str]:
    """What alerts can be about, of all that happened in a run; whoever interrupts one knows."""
    if report.get("status") == "interrupted":
        return set()
    return {event for *_, result in results(report) for event in _of(result)} | (
        {"failed"} if report.get("status") in _FAILED or report.get("error") else set()
    )


def _of(result: Json) -> Iterator[str]:
    if is_failed(result):
        yield str(result.get("severity"))
        if family(result) in _FAMILIES:
            yield family(result)


def message(report: Json, chosen: Sequence[str], page: Path | None) -> dict[str, Any]:
    """The JSON of an alert: the verdict, and the checks that it is about, the worst first."""
    about = [
        {
            "source": source.get("name"),
            "check": name(result),
            "severity": result.get("severity"),
            "message": str(result.get("message"))[:LONGEST_MESSAGE],
            "failed_records": result.get("failed_records"),
        }
        for *_, source, result in results(report)
        if set(_of(result)) & set(chosen)
    ]
    about.sort(key=lambda check: ("error", "warning", "info").index(str(check["severity"])))
    error = report.get("error")
    return {
        "version": 1,
        "pipeline": report.get("pipeline"),
        "run_id": report.get("run_id"),
        "status": report.get("status"),
        "as_of": list(report.get("as_of") or ())[-MOST:],
        "created_timestamp": report.get("created_timestamp"),
        "events": list(chosen),
        "headline": headline(report),
        "error": {key: error.get(key) for key in ("code", "message", "where", "fix")} if error else None,
        "checks": about[:MOST],
        "more_checks": max(0, len(about) - MOST),
        "page": str(page) if page else None,
    }


def slack(found: Json) -> dict[str, Any]:
    """The same as Slack takes it: text for notifications, blocks for the channel."""
    lines = [f"*{_mrkdwn(found['headline'])}*"]
    lines += [
        f"• {str(check['severity']).upper()} `{_mrkdwn(check['check'])}` on {_mrkdwn(check['source'])}: "
        f"{_mrkdwn(check['message'])}"
        for check in found["checks"]
    ]
    if found["more_checks"]:
        lines.append(f"… and {found['more_checks']:,} more")
    if found["error"] and found["error"]["fix"]:
        lines.append(f"What to do: {_mrkdwn(found['error']['fix'])}")
    body = ""
    for line in lines:
        if len(body) + len(line) > _SLACK_BLOCK:
            body += "…"
            break
        body += f"{line}\n"
    title = f"{found['pipeline']}: {found['status']}"
    context = _mrkdwn(f"run {found['run_id']}" + (f" · {found['page']}" if found["page"] else ""))
    return {
        "text": _mrkdwn(f"{title}. {found['headline']}"),
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": title[:150]}},
            {"type": "section", "text": {"type": "mrkdwn", "text": body.strip()}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": context[:_SLACK_BLOCK]}]},
        ],
    }


def _mrkdwn(text: Any) -> str:
    """Text that names nobody and links nowhere; a backtick could end what stands as code."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("`", "'")


def _deliver(spec: AlertSpec, found: Json, base: Path, sleep: Callable[[float], object]) -> str | None:
    """None, or why it could not be delivered."""
    attempt = 0
    while True:
        attempt += 1
        try:
            if spec.command is not None:
                _run(spec, found, base)
            else:
                _post(spec, slack(found) if spec.template == "slack" else found)
        except _Undelivered as why:
            if not why.again or attempt > spec.max_retries:
                return f"{why}, at the first attempt" if attempt == 1 else f"{why}, at the last of {attempt} attempts"
            sleep(max(why.after, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))))
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is what it was; its text may hold the address
            return f"{type(error).__name__}, at attempt {attempt}"
        else:
            return None


def _post(spec: AlertSpec, body: Json) -> None:
    import httpx

    from engine.sources.http import UNSENDABLE, quiet

    url = spec.webhook.get_secret_value() if spec.webhook else ""
    try:
        secrets = frozenset({url, str(httpx.URL(url)), httpx.URL(url).raw_path.decode()} - {"/"})
        with (
            quiet(lambda: secrets),
            httpx.Client(timeout=spec.timeout_seconds, follow_redirects=False) as client,
            client.stream("POST", url, content=json.dumps(body), headers=_JSON) as response,
        ):
            status, after = response.status_code, response.headers.get("Retry-After", "")
    except httpx.TimeoutException:
        raise _Undelivered(f"no answer within {spec.timeout_seconds:g} s") from None
    except UNSENDABLE:
        raise _Undelivered("no request can be made of its URL", again=False) from None
    except httpx.TransportError as error:
        raise _Undelivered(f"no connection ({type(error).__name__})") from None
    if not 200 <= status < 300:
        pause = min(30.0, float(after)) if after.isdecimal() else 0.0
        raise _Undelivered(f"HTTP {status}", again=status in _RETRIED, after=pause)


def _run(spec: AlertSpec, body: Json, base: Path) -> None:
    assert spec.command is not None  # noqa: S101 - the caller has looked
    first, *rest = spec.command
    try:
        process = subprocess.Popen(  # noqa: S603 - a list of words that the user declared, and no shell
            [str(base / first) if "/" in first else first, *rest],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=base,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "its words cannot be handed on"
        raise _Undelivered(f"it cannot be started ({why})", again=False) from None
    try:
        process.communicate(json.dumps(body).encode(), timeout=spec.timeout_seconds)
    except subprocess.TimeoutExpired:
        raise _Undelivered(f"no end within {spec.timeout_seconds:g} s") from None
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started, too
            process.communicate()
    if process.returncode:
        raise _Undelivered(f"exit code {process.returncode}")
