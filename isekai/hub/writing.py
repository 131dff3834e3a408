"""Writing to the Hub: patience while it is busy, and its refusals in one line."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from isekai import hub, progress
from isekai.errors import DataError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError
    from tenacity import RetryCallState

T = TypeVar("T")

_TRIES = 6
_LONGEST_WAIT = 600.0
"""Seconds. A Hub that asks for more is left alone; its windows for requests are 300 long."""
_PASSING = (408, 429, 500, 502, 503, 504)


def patiently(call: Callable[[], T]) -> T:
    """What the call gives, tried again while the Hub is busy, for as long as it asks to wait."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    return Retrying(
        stop=stop_after_attempt(_TRIES),
        retry=retry_if_exception(_is_passing),
        wait=_wait,
        before_sleep=_tell,
        reraise=True,
    )(call)


def _is_passing(error: BaseException) -> bool:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        wanted = _asked_to_wait(error)
        return error.response.status_code in _PASSING and (wanted or 0) <= _LONGEST_WAIT
    return isinstance(error, httpx2.TransportError | json.JSONDecodeError)


def _wait(state: "RetryCallState") -> float:
    from tenacity import wait_exponential

    assert state.outcome is not None
    wanted = _asked_to_wait(state.outcome.exception())
    return wanted if wanted is not None else wait_exponential(max=30)(state)


def _asked_to_wait(error: BaseException | None) -> float | None:
    """Seconds that the Hub asks for."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    limit = parse_ratelimit_headers(headers)
    if error.response.status_code == 429 and limit and limit.remaining == 0:
        return float(limit.reset_in_seconds) + 1
    asked = headers.get("Retry-After", "")
    return float(asked) if re.fullmatch(r"\d{1,6}", asked) else None


def _tell(state: "RetryCallState") -> None:
    from huggingface_hub.errors import HfHubHTTPError

    assert state.outcome is not None
    assert state.next_action is not None
    error = state.outcome.exception()
    told = "gives no answer that can be read"
    if isinstance(error, HfHubHTTPError):
        told = f"answers {error.response.status_code}"
    progress.tell(f"the Hub {told}; trying again in {state.next_action.sleep:.0f} s")


@contextmanager
def writing(repo: str, revision: str) -> Iterator[None]:
    """As `hub.reached`, with what can go wrong where something is written."""
    from huggingface_hub.errors import HfHubHTTPError

    with hub.reached(repo, revision, "dataset", here=False):
        try:
            yield
        except HfHubHTTPError as error:
            _refuse(repo, revision, error)
            raise
        except RuntimeError as error:  # threads of the client wrap what they met
            if isinstance(error.__cause__, HfHubHTTPError):
                _refuse(repo, revision, error.__cause__)
                raise error.__cause__ from None
            raise
        except ValueError as error:
            raise DataError(f"{repo}: {_unread(error)}") from None


def _unread(error: ValueError) -> str:
    """What the client makes of a card that is refused, or of an answer that is a gateway's page."""
    if isinstance(error, json.JSONDecodeError):
        return "the Hub answers what can't be read; try again later; what was transferred is kept"
    return f"the Hub refuses it: {' '.join(str(error).split())[:300]}"


def _refuse(repo: str, revision: str, error: "HfHubHTTPError") -> None:
    status = error.response.status_code
    if status == 412:
        raise overtaken(repo, revision) from None
    if status == 403:
        raise DataError(
            f"{repo}: this login may not write there; take a token that may, or another repository"
        ) from None


def overtaken(repo: str, revision: str) -> DataError:
    return DataError(
        f"{repo}: another commit came to '{revision}' meanwhile; run the same command again"
    )
