"""Tells which labels a text asserts of the query image: neither asks, denies, nor takes back.

The text is plain, each label one private character (`mentions.py`). It is read clause by clause. Of
what is asserted the strongest counts: a final answer before an answer, that before a conclusion,
that before a plain statement. Two labels of one strength are no answer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from isekai.answers import denying, pictures
from isekai.answers.mentions import MENTION

_MENTION = re.compile(MENTION)
_WEAK, _CONCEDED, _PLAIN, _CONCLUDED, _CHOSEN, _ANSWERED, _FINAL = range(1, 8)


def asserted(text: str) -> set[str]:
    """The labels, as the characters they are written as, that the text says most surely."""
    text = _simpler(text)
    said: dict[str, int] = {}
    last = _Clause("", asks=False, begins_line=False)
    clauses = [*_clauses(text), last]
    begins_with_question = _ASKS.match(clauses[0].text)
    for clause, after in pairwise(clauses):
        if clause.begins_line and said and _ASKS.match(clause.text) and not begins_with_question:
            break  # a further example: the model goes on by itself
        if clause.asks:
            found = _confirmed(clause.text, after.text)
        else:
            found = _statements(clause.text, _conceded(clause.text, after.text))
            if not last.asks and _takes_back(clause.text, bool(found)):
                said.clear()
        if _OR.match(clause.text):  # as surely as what it is an alternative to
            surest = max(said.values(), default=0)
            found = [(label, max(strength, surest)) for label, strength in found]
        for label, strength in found:
            said[label] = max(said.get(label, 0), strength)
        last = clause
    surest = max(said.values(), default=0)
    if surest == _WEAK and (pictures.QUERY.search(text) or len(set(_MENTION.findall(text))) > 1):
        return set()
    return {label for label, strength in said.items() if strength == surest}


# ---------------------------------------------------------------- clauses


@dataclass(frozen=True, slots=True)
class _Clause:
    text: str
    asks: bool
    begins_line: bool


_SENTENCE = re.compile(r"(?<=[.!?;])(?=[\s\"')\]]|\Z)")
_CLAUSE = re.compile(
    r"(?=(?<!anything )(?<!everything )(?<!nothing )(?<!all )\bbut\b|\b(?:however|therefore|thus"
    r"|hence|although|though|whereas)\b|,\s*yet\b|\binstead\b(?! of)|(?<!not )\bbecause\b"
    r"|(?:,\s*|\band )so\b|\bso (?:it|this|that|the|i|we|my)\b"
    r"|\b(?:or rather|i mean|no wait|wait|scratch that|make that|correction)\b)"
)


def _clauses(text: str) -> Iterator[_Clause]:
    """The parts of sentences; a question is left whole."""
    for line in text.split("\n"):
        begins_line = True
        for sentence in _SENTENCE.split(line):
            asks = sentence.rstrip(" \"')").endswith("?")
            for clause in [sentence] if asks else _CLAUSE.split(sentence):
                if clause.strip():
                    yield _Clause(clause, asks, begins_line)
                    begins_line = False


_SIMPLER: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b([ei])\.\s?([ge])\."), r"\1\2"),
    (re.compile(r"\bvs\."), "vs"),
    # a line that ends in mid-sentence
    (
        re.compile(
            r"(\b(?:not|(?<![:=|-] )no|an?|the|or|nor|is|called|as)|n't|[:,(]"
            rf"|^[^\w\n]{{0,9}}{pictures.PICTURE} #?\d+)[^\S\n]*\n\s*",
            re.M,
        ),
        r"\1 ",
    ),
    *denying.SIMPLER,
    (re.compile(r"[^\S\n]+"), " "),
)


def _simpler(text: str) -> str:
    for pattern, instead in _SIMPLER:
        text = pattern.sub(instead, text)
    return text


# ---------------------------------------------------------------- what clauses do to each other


_YES = re.compile(
    r"\W*(?:yes|yeah|yep|correct|indeed|sure|certainly|definitely|absolutely|exactly|right|true"
    r"|it is\b|i (?:think|believe) so)\b(?!\W*(?:not|no|and no)\b)"
)
_OR = re.compile(r"\W*or\b")
_NO = re.compile(r"\W*(?:no|nope|nah|actually)\b")
_RETHINKS = re.compile(
    r"\W*(?:(?:oh|hmm|ah|and|but|no|actually|sorry)\b\W*)?(?:or rather|i mean|wait|scratch that"
    r"|make that|correction|on (?:second thoughts?|reflection)|i take (?:that|it) back"
    r"|i(?: was| am|'m) (?:wrong|mistaken)|i stand corrected|my mistake|let me (?:correct|rephrase)"
    r"|i do(?:n't| not) think so|(?:that|this|it)(?:'s| is| was) (?:wrong|incorrect|false))\b"
)
_NOT_SO = re.compile(
    r"\W*(?:(?:but|however|though|although|yet|no|in fact|actually)\b\W*){0,2}"
    r"(?:it|this|that|they)\W*+(?:s|is|are|was|do|does|did|really|clearly|definitely|just|\s)*"
    r"(?:n't|\bnot)\W*(?:really|one|so|true|right|correct|the case|that|it|a match)?\W*\Z"
)
_ASKS = re.compile(
    rf"\W*(?:{pictures.PICTURE} #?\d+\W{{1,3}})?(?:based on [^,]{{0,80}}, )?(?:what|which)\b"
    r".{0,99}\?"
)
_HEDGES = re.compile(
    r"\b(?:looks?|looked|resembles?|similar|reminds?|seems?|seemed|appears?|appeared|might|may|could"
    r"|tempting|tempted|at first|first glance)\b"
)
_CONTRASTS = re.compile(r"\W*(?:but|however|yet|still|in fact)\b")
_CONCESSION = re.compile(r"\W*(?:(?:even )?though|although|while|whereas|despite)\b")


def _confirmed(question: str, reply: str) -> list[tuple[str, int]]:
    """The label that a text asks about, if it says yes to that."""
    asked = _MENTION.findall(question)
    return [(asked[0], _PLAIN)] if len(asked) == 1 and _YES.match(reply) else []


def _takes_back(clause: str, asserts: bool) -> bool:
    """True if what was said before no longer holds: "wait", "it isn't", "no, a blip"."""
    if _RETHINKS.match(clause) or _NOT_SO.match(clause):
        return True
    return asserts and _NO.match(clause) is not None


def _conceded(clause: str, after: str) -> str:
    """`all` of "it looks like a zorp" before "but it is a blip"; the `begin` of "although ..."."""
    if _HEDGES.search(clause) and _CONTRASTS.match(after) and not _HEDGES.search(after):
        return "all"
    return "begin" if _CONCESSION.match(clause) else ""


# ---------------------------------------------------------------- what a clause says


_STRENGTHS = (
    (_FINAL, re.compile(r"\bfinal (?:answer|verdict|choice|guess|decision)\b")),
    (
        _ANSWERED,
        re.compile(
            r"\b(?:answer|conclusion)\b(?:\s+[\w'-]+){0,4}?\s*(?:[:=—]|\s-|\b(?:is|be|remains)\b)"
        ),
    ),
    (
        _CHOSEN,
        re.compile(
            r"\b(?:i|we)(?:'d|'ll| would| will| have to| must)?(?: \w+ly)? (?:say|guess|choose|pick"
            r"|go (?:with|for)|answer|conclude|select|settle on|opt for)\b"
            r"|\bmy (?!second|next|other)(?:\w+ )?(?:guess|choice|pick|bet)\b"
        ),
    ),
    (
        _CONCLUDED,
        re.compile(
            r"\A\W*(?:and )?(?:so|thus|hence|therefore|consequently|accordingly|overall|finally"
            r"|ultimately|as a result|to conclude|in (?:conclusion|short|summary|the end|total)"
            r"|(?:this|that|which|it) (?:means|suggests|indicates|implies))\b"
        ),
    ),
)
_IS_ANSWER = re.compile(
    r"[\s\"']*(?:is|would be|must be) (?:the|my) (?:\w+ )?(?:answer|label|guess)\b"
)
_BY_PICTURE = {pictures.QUERYS: _FINAL, pictures.PERHAPS: _WEAK}


def _statements(clause: str, conceded: str) -> list[tuple[str, int]]:
    """Each label that the clause asserts and how strongly; `conceded` is how much of it is."""
    mentions = list(_MENTION.finditer(clause))
    if not mentions:
        return []
    told = [(value, here.start()) for value, p in _STRENGTHS if (here := p.search(clause))]
    limit = denying.condition(clause)
    found = []
    for mention, denied, fresh, whose in zip(
        mentions, *denying.denials(clause, mentions), pictures.whose(clause, mentions), strict=True
    ):
        conceded = "" if fresh and conceded == "begin" else conceded
        if denied or mention.start() > limit or whose == pictures.OTHERS:
            continue
        strength = max((value for value, at in told if at < mention.start()), default=_PLAIN)
        if _IS_ANSWER.match(clause, mention.end()):
            strength = max(strength, _ANSWERED)
        highest = min(_BY_PICTURE[whose], _CONCEDED if conceded else _FINAL)
        found.append((mention[0], min(strength, highest)))
    return found
