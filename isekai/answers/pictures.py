"""Tells of which picture a clause says a label: of the query, of the support set, or of a kind."""

import re
from bisect import bisect_right
from collections.abc import Sequence

from isekai.answers.mentions import ANY

QUERYS, PERHAPS, OTHERS = "query's", "perhaps", "others'"
"""PERHAPS: of a picture by its number, or of a thing by its looks; the query, if of no other."""

_NTH = r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|\d+(?:st|nd|rd|th))"
PICTURE = r"(?:image|picture|photo|example|one|figure|panel|frame|shot|support)s?"
_SUBJECT = re.compile(
    # where a subject may stand
    r"(?:\A|[,:;(|—]|\s-|\b(?:and|while|whereas|since|because|that|where|if|say|think|see|know"
    r"|called|named|labell?ed)\b)"
    rf"[^\w{ANY}]{{0,8}}+(?:(?:and|but|so) )?(?:(?:in|for|on) )?(?:the \w+ (?:in|of|from|on) )?"
    # a picture by its number
    rf"(?:(?P<nth>the {_NTH}\b(?! (?:thing|impression|glance|guess|thought|look))(?: {PICTURE}\b)?"
    rf"|{_NTH} {PICTURE}\b|{PICTURE} (?:no\. ?|number )?[#(]?(?:\d+|one|two|three|four|five)\b)"
    # support images
    r"|(?P<others>(?:(?:the|all|both|these|those|other|previous|earlier|my|your) ){0,2}"
    r"(?:(?:previous|earlier|preceding|other|support|reference|labell?ed|context|training|example"
    rf"|two|three|four|prior)(?: \w+)? {PICTURE}|others?|examples)\b)"
    # the query
    r"|(?P<query>(?:it|this|there|here|i|we)\b|the (?:last|final|query|target|test|current|new"
    rf"|latest|present|given|main)\b|(?:last|final|query|target|test) {PICTURE}"
    r"|the (?:image|picture|photo|object|animal|creature|thing|item|answer|label|name)\b))"
)
_OF_PICTURE = re.compile(rf"[\s\"']*\((?:{PICTURE} #?\d+|(?:the )?{_NTH} {PICTURE})\)")
"""Behind a label of a list: "zorp (image 1), blip (image 2)"."""
QUERY = re.compile(
    rf"\bthis\b|\b(?:last|final|query|target|test|current|new) {PICTURE}\b"
    r"|\bthe (?:last|query|target)\b"
)
"""Finds where a text speaks of the query expressly: what else it says is then of others."""

# "A zorp has spikes" is said of all zorps, "the zorp has spikes" perhaps of the query
_BEGIN = re.compile(
    r"(?:\A|\b(?:while|since|because|as|that|whereas|and)\b|[,:;(])\W*(an?|the)?\W*\Z"
)
_HAS = re.compile(
    r"[\s\"']*(?:ha(?:s|ve)(?! been)|had|would(?! be (?:my|the|an?|best|better|correct|right|it)\b)"
    r"|usually|typically|generally|often|normally|tends?|consists?|refers?|is (?:usually|typically"
    r"|known|defined|characteri[sz]ed|described|supposed|always|often))\b"
)
_IS_A = re.compile(
    r"[\s\"']*(?:is|are) an? (?!(?:good|likely|possible|plausible|better|best|match)\b)"
)


def whose(clause: str, mentions: Sequence[re.Match[str]]) -> list[str]:
    """For each mention QUERYS, PERHAPS or OTHERS."""
    subjects: list[re.Match[str]] = []
    for found in _SUBJECT.finditer(clause):
        topic = subjects and not subjects[-1]["query"] and found.start() == subjects[-1].end()
        if clause[found.end() : found.end() + 1] != ")" and not (topic and found["query"]):
            subjects.append(found)  # "in the first image, there is" is still said of the first
    ends = [found.end() for found in subjects]
    owners = []
    last = 0
    for mention in mentions:
        place = bisect_right(ends, mention.start())
        subject = subjects[place - 1] if place else None
        kind = _of_a_kind(clause[last : mention.start()], clause, mention.end())
        if kind:
            owners.append(kind if not (subject and subject["others"]) else OTHERS)
        elif subject and not subject["query"]:
            owners.append(OTHERS if subject["others"] else PERHAPS)
        else:
            owners.append(QUERYS)
        last = mention.end()
    return owners


def _of_a_kind(before: str, clause: str, end: int) -> str:
    """OTHERS for "a zorp has", PERHAPS for "the zorp has", else empty; `end` is the label's."""
    begins = _BEGIN.search(before)
    if not begins:
        return ""
    if _OF_PICTURE.match(clause, end):
        return PERHAPS
    any_of_them = begins[1] in ("a", "an")
    if _HAS.match(clause, end) or (any_of_them and _IS_A.match(clause, end)):
        return OTHERS if any_of_them else PERHAPS
    return ""
