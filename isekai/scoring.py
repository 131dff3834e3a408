"""Scores a response: by the log-likelihoods of the labels where there are any, else by its text."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

from isekai.answers import read_answer, spelling
from isekai.errors import IsekaiError
from isekai.lcl_metric import accuracy_lcl
from isekai.types import Outcome, Ranking, Response

__all__ = ["accuracy_lcl", "malformed", "outcome", "ranked", "read_answer", "spelling"]


def outcome(
    response: Response,
    labels: Sequence[str],
    target: str,
    *,
    ranking: Ranking = "sum",
    prior: Mapping[str, float] | None = None,
) -> tuple[str | None, Outcome]:
    """The answer and how it came out; `ranking` and `prior` are those of `ranked`.

    A response with an error has failed, and so has one that was cut off before it said anything
    that can be read: neither is an answer. Log-likelihoods of the labels go before the text.
    """
    if response.error is not None:
        return None, "failed"
    if response.label_logprobs is not None:
        answer = ranked(response, ranking=ranking, prior=prior)
    else:
        answer = read_answer(response.text, labels)
        if answer is None and response.finish == "length":
            return None, "failed"
    if answer is None:
        return None, "abstain"
    return answer, "correct" if answer == target else "wrong"


def ranked(
    response: Response, *, ranking: Ranking, prior: Mapping[str, float] | None = None
) -> str | None:
    """The label with the largest log-likelihood; None at an exact tie.

    `sum` takes the log-likelihoods as they are, `mean` divides them by the label's tokens. `prior`
    subtracts those that the labels have behind the same words without pictures: what is left is
    what the pictures say for a label (domain-conditional PMI: Holtzman et al., arXiv:2104.08315).
    The caller takes them from the control `text` of the same episode, shot count and query.
    IsekaiError where tokens or prior are missing.
    """
    scores = _scores(response, ranking, prior)
    best = max(scores.values())
    first = [label for label, score in scores.items() if score == best]
    return first[0] if len(first) == 1 else None


def _scores(
    response: Response, ranking: Ranking, prior: Mapping[str, float] | None
) -> Mapping[str, float]:
    """What `ranking` compares, by label."""
    sums = response.label_logprobs
    if not sums:
        raise ValueError("a response without label_logprobs can't be ranked")
    if ranking == "mean":
        tokens = response.label_tokens
        if tokens is None or set(tokens) != set(sums):
            raise IsekaiError(
                "ranking 'mean' needs how many tokens each label has, and a response brings no "
                "label_tokens; take ranking 'sum'"
            )
        return {label: value / tokens[label] for label, value in sums.items()}
    if ranking == "prior":
        if prior is None or set(prior) != set(sums):
            raise IsekaiError(
                "ranking 'prior' needs the log-likelihoods of the same labels without pictures, "
                "and there are none; ask the control 'text', too, or take ranking 'sum'"
            )
        return {label: value - prior[label] for label, value in sums.items()}
    return sums


def malformed(response: Response, labels: Sequence[str]) -> str | None:
    """What is wrong with the log-likelihoods of a response or their tokens, if anything."""
    for field in ("label_logprobs", "label_tokens"):
        given = getattr(response, field)
        if given is not None and set(given) != set(labels):
            return f"{field} has {sorted(given)}, the labels are {sorted(labels)}"
    for score in (response.label_logprobs or {}).values():
        if not isinstance(score, Real) or not math.isfinite(score):
            scores = dict(response.label_logprobs or {})
            return f"label_logprobs has a value that is no finite number: {scores}"
    for count in (response.label_tokens or {}).values():
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            tokens = dict(response.label_tokens or {})
            return f"label_tokens has a value that is no whole number of at least 1: {tokens}"
    return None
