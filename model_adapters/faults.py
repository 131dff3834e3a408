"""What goes wrong between an adapter and a server: what may pass, what won't, how to mend it."""

import json
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from isekai.errors import IsekaiError
from model_adapters.address import Address

PATIENCE = 600.0
"""Seconds; if a server asks for a longer pause, the run ends."""

_STOPS = (401, 402, 403, 404, 407)
"""What every other request would meet as well."""


_POLICY = ("moderation_blocked", "content_policy_violation", "content_filter", "contentfilter")
"""Codes of OpenAI and Azure, which others took over, for what their moderation turns down."""


class Again(Exception):
    """A fault that may pass: the same request is worth another try."""

    def __init__(
        self,
        reason: str,
        *,
        after: float | None = None,
        overload: bool = False,
        billed: bool = False,
    ) -> None:
        super().__init__(reason)
        self.after = after
        """Seconds that the server asks to wait; None if it doesn't say."""
        self.overload = overload
        """True if fewer requests at a time would help."""
        self.billed = billed
        """True if the server may have done the work, and charge for it."""


class Refused(Exception):
    """The server won't answer this request, however often it is sent."""

    def __init__(self, reason: str, *, policy: bool = False) -> None:
        super().__init__(reason)
        self.policy = policy
        """True if it is for what the request says, not for how it says it."""


def refusal(
    address: Address, status: int, headers: Mapping[str, str], body: str
) -> Again | Refused | IsekaiError:
    """What an HTTP status of 4xx or 5xx means for the request, or for the whole run."""
    said, code = _reason(body)
    said = address.quote(said)
    told = f"HTTP {status}" + (f": {said}" if said else "")
    if code.casefold() in _POLICY:
        return Refused(told, policy=True)
    if code == "model_not_found" or status in _STOPS:
        status = 404 if code == "model_not_found" else status
        return IsekaiError(f"{address.url}: {_mend(address, status, told)}")
    if code in ("insufficient_quota", "billing_hard_limit_reached"):
        return IsekaiError(f"{address.url}: {told}; add credit and run the same command again")
    if status in (408, 409, 425, 429) or status >= 500:
        after = retry_after(headers)
        if after is not None and after > PATIENCE:
            return IsekaiError(
                f"{address.url}: {told}; the server asks to come back in {after:.0f} s: run the "
                "same command again then"
            )
        return Again(told, after=after, overload=status in (429, 503, 529))
    return Refused(told)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, OverflowError):
        return None


def agree(asked: str, told: str) -> bool:
    """True if two names mean one model: `org/` and `:latest` aside, one may be a dated snapshot."""
    asked, told = (name.casefold().removesuffix(":latest") for name in (asked, told))
    if "/" not in asked or "/" not in told:
        asked, told = asked.rpartition("/")[2], told.rpartition("/")[2]
    return asked == told or _dated(asked, told) or _dated(told, asked)


def _dated(name: str, snapshot: str) -> bool:
    date = r"[-@](?:\d{4}-\d\d-\d\d|\d{8}|\d{6}|\d{3,4})"
    return bool(re.fullmatch(re.escape(name.removesuffix("-latest")) + date, snapshot))


def _mend(address: Address, status: int, told: str) -> str:
    if status == 401 and not address.key:
        return "HTTP 401: a key is needed; name its environment variable with -o api_key_env=…"
    if status == 401:  # the server's words tend to hold a part of the key
        return f"HTTP 401: the key in ${address.variable} is not accepted; set another one"
    if status == 404:
        return f"{told}; check the model's name and -o base_url"
    return f"{told}; see what the key in ${address.variable} may do" if address.key else told


def _reason(body: str) -> tuple[str, str]:
    """What the body of a refusal says, and the code that it gives; empty for what it lacks."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return ("" if body.lstrip().startswith("<") else body), ""  # a gateway's page says nothing
    inner = (told.get("error") or told) if isinstance(told, dict) else told
    if not isinstance(inner, dict):
        return inner if isinstance(inner, str) else body, ""
    said = inner.get("message") or inner.get("detail") or body
    return said if isinstance(said, str) else json.dumps(said), str(inner.get("code") or "")
