"""How a response comes out: failed, abstained, right or wrong, by its text or its likelihoods."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai.errors import IsekaiError
from isekai.scoring import malformed, outcome, ranked
from isekai.types import Response

TWO = ("dovrik", "tulmab")


def test_an_error_is_a_failure_even_if_its_text_holds_the_label():
    response = Response(text="dovrik", error="HTTP 500: dovrik")
    assert outcome(response, TWO, "dovrik") == (None, "failed")


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("<think>it is spiky, so", "length", (None, "failed")),
        ("", "length", (None, "failed")),
        ("<think>it is spiky, so", "stop", (None, "abstain")),
        ("<think>it is spiky, so", None, (None, "abstain")),
        ("dovrik\nUser: and", "length", ("dovrik", "correct")),
        ("tulmab, bec", "length", ("tulmab", "wrong")),
    ],
)
def test_a_text_cut_off_before_any_answer_has_failed_and_is_no_abstention(text, finish, expected):
    assert outcome(Response(text=text, finish=finish), TWO, "dovrik") == expected


def scored(a, b, tokens=None, **more):
    counts = dict(zip(TWO, tokens, strict=True)) if tokens else None
    return Response(
        text="dovrik", label_logprobs={"dovrik": a, "tulmab": b}, label_tokens=counts, **more
    )


def test_log_likelihoods_go_before_the_text_and_a_tie_abstains():
    assert outcome(scored(-1.0, -0.5), TWO, "tulmab") == ("tulmab", "correct")
    assert outcome(scored(-1.0, -0.5), TWO, "dovrik") == ("tulmab", "wrong")
    assert outcome(scored(-0.7, -0.7), TWO, "dovrik") == (None, "abstain")
    assert outcome(scored(-0.7, -0.7, finish="length"), TWO, "dovrik") == (None, "abstain")
    assert outcome(scored(-1.0, -0.5, error="reset"), TWO, "tulmab") == (None, "failed")


def test_each_ranking_compares_what_it_says():
    response = scored(-3.0, -2.5, tokens=(3, 2))
    prior = {"dovrik": -4.0, "tulmab": -3.0}
    assert ranked(response, ranking="sum") == "tulmab"
    assert ranked(response, ranking="mean") == "dovrik"  # -1.0 a token, not -1.25
    assert ranked(response, ranking="prior", prior=prior) == "dovrik"  # +1.0, not +0.5
    assert outcome(response, TWO, "dovrik", ranking="mean") == ("dovrik", "correct")
    assert outcome(response, TWO, "tulmab", ranking="prior", prior=prior) == ("dovrik", "wrong")


def test_a_tie_of_what_is_compared_abstains():
    assert ranked(scored(-3.0, -2.0, tokens=(3, 2)), ranking="mean") is None
    prior = {"dovrik": -2.0, "tulmab": -1.0}
    assert ranked(scored(-3.0, -2.0), ranking="prior", prior=prior) is None


logprobs = st.floats(-50, 0)


@given(logprobs, logprobs, st.integers(1, 9), logprobs)
def test_rankings_agree_where_labels_have_equal_tokens_and_an_equal_prior(a, b, tokens, prior):
    by_sum = ranked(scored(a, b), ranking="sum")
    if abs(a - b) > 1e-6:  # nearer ones may tie by rounding
        assert ranked(scored(a, b, tokens=(tokens, tokens)), ranking="mean") == by_sum
        even = dict.fromkeys(TWO, prior)
        assert ranked(scored(a, b), ranking="prior", prior=even) == by_sum


@given(logprobs, logprobs, st.sampled_from(["sum", "mean", "prior"]))
def test_no_ranking_depends_on_the_order_of_labels(a, b, ranking):
    prior = {"dovrik": -1.0, "tulmab": -2.0}
    backwards = Response(
        text="",
        label_logprobs={"tulmab": b, "dovrik": a},
        label_tokens={"tulmab": 3, "dovrik": 2},
    )
    one = ranked(scored(a, b, tokens=(2, 3)), ranking=ranking, prior=prior)
    assert ranked(backwards, ranking=ranking, prior=prior) == one


def test_a_ranking_that_lacks_what_it_compares_is_refused_with_what_is_missing():
    with pytest.raises(IsekaiError, match=r"label_tokens; take ranking 'sum'"):
        outcome(scored(-1.0, -2.0), TWO, "dovrik", ranking="mean")
    for prior in (None, {"dovrik": -1.0}):
        with pytest.raises(IsekaiError, match=r"ask the control 'text'"):
            outcome(scored(-1.0, -2.0), TWO, "dovrik", ranking="prior", prior=prior)
    with pytest.raises(ValueError, match="without label_logprobs"):
        ranked(Response(text="dovrik"), ranking="sum")


def test_a_ranking_leaves_answers_in_words_alone():
    assert outcome(Response(text="dovrik"), TWO, "dovrik", ranking="mean")[1] == "correct"
    assert outcome(Response(text="dovrik"), TWO, "dovrik", ranking="prior")[1] == "correct"


@pytest.mark.parametrize(
    ("scores", "tokens", "problem"),
    [
        ({"dovrik": 0.0}, None, "label_logprobs has"),
        ({"dovrik": 0.0, "tulmab": float("nan")}, None, "no finite number"),
        ({"dovrik": 0.0, "tulmab": float("-inf")}, None, "no finite number"),
        ({"dovrik": 0.0, "tulmab": "-1"}, None, "no finite number"),
        ({"dovrik": 0.0, "tulmab": -9.0}, {"dovrik": 2}, "label_tokens has"),
        ({"dovrik": 0.0, "tulmab": -9.0}, {"dovrik": 2, "tulmab": 0}, "no whole number"),
        ({"dovrik": 0.0, "tulmab": -9.0}, {"dovrik": 2, "tulmab": 1.5}, "no whole number"),
        ({"dovrik": 0.0, "tulmab": -9.0}, {"dovrik": 2, "tulmab": True}, "no whole number"),
    ],
)
def test_malformed_log_likelihoods_and_token_counts_are_named(scores, tokens, problem):
    told = malformed(Response(text="", label_logprobs=scores, label_tokens=tokens), TWO)
    assert told is not None
    assert problem in told


def test_what_is_well_formed_has_no_problem():
    assert malformed(Response(text=""), TWO) is None
    assert malformed(scored(0.0, -9.0), TWO) is None
    assert malformed(scored(0.0, -9.0, tokens=(2, 3)), TWO) is None
    numpys = scored(np.float32(-1.5), np.float64(-2), tokens=(np.int64(2), np.int32(3)))
    assert malformed(numpys, TWO) is None
