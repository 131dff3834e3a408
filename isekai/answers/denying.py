"""Tells which labels of a clause are denied, and from where on a clause only supposes.

A denial reaches from its word to the next label, and from there on to those joined to it by "or",
"and" or a list; a new subject with a verb ends it ("it has no spikes, so it is a blip").
"""

import re
from bisect import bisect_left
from collections.abc import Sequence

from isekai.answers.mentions import ANY, MENTION


def _any(*phrases: str) -> str:
    return "(?:" + "|".join(phrases) + ")"


# ---------------------------------------------------------------- what denies in other words


_GAP = rf"[^\w{ANY}]{{1,5}}"
SIMPLER: tuple[tuple[re.Pattern[str], str], ...] = (
    # denials that deny nothing
    (
        re.compile(
            r"\b(?:no|little|without|beyond)(?: any| an?)? (?:doubt|question|hesitation|mistake)\b"
            r"|\bno (?:wonder|denying)\b|\bnot (?:only|just|merely|simply)\b|\bnothing but\b"
            r"|\b(?:none|nothing|no one|no) (?:other|else|less) than\b"
            r"|(?:\bnot|n't|\bcannot|\bnever) (?:(?:\w+ )?anything (?:but|except|\w+ than)"
            r"|doubt|deny|be denied|help but|(?:hard|difficult) to (?:see|tell|say))\b"
            r"|\b(?:if|unless) i(?:'m| am) (?:not |very much |totally )?mistaken\b"
            r"|(?:\bi(?:'m| am) )?(?:\bnot (?:\w+ly |quite |100% )?|\bun)(?:sure|certain)"
            r"\s*(?=[,;:.—]|-\s)"
        ),
        " ",
    ),
    # comparisons that deny one side: "less a zorp than a blip"
    (re.compile(rf"\bless ((?:[\w-]+ ){{0,4}}{MENTION}{_GAP})than\b"), r"not \1but"),
    (re.compile(rf"\bnot so much ((?:[\w-]+ ){{0,4}}{MENTION}{_GAP})as\b"), r"not \1but"),
    (
        re.compile(rf"({MENTION}{_GAP})(?:is |seems |looks )?less (?:\w+ )?than\b"),
        r"\1is wrong, but",
    ),
)
"""What to put for phrases whose denial isn't where their words are."""


# ---------------------------------------------------------------- before a label


_DENIES = (
    *("not", "never", "neither", "nor", "none", "nothing", "nobody", "non", "cannot", "eg"),
    *("hardly", "barely", "scarcely", "rarely", "seldom", "unlike(?:ly)?", "doubt(?:s|ful)?"),
    *("den(?:y|ies)", "reject(?:s|ed)?", "exclud(?:e[sd]?|ing)", "except", "refuse[sd]?"),
    *("declined?", "rul(?:e|es|ed|ing) out", "fail(?:s|ed)? to", "far from", "mistook", "nowhere"),
    *("fake", "false", "wrong", "incorrect", "mistaken(?:ly)?", "unable", "impossible"),
    *("improbable", "implausible", "unclear", "unsure", "uncertain", "insufficient"),
    *("inconclusive", "whether", "between", "such as", "for (?:example|instance)"),
    "(?:instead|absence|lack|devoid|free|opposite) of",
    "(?:opposed|contrary|compared|contrast|comparison) (?:to|with)",
    "(?:differ\\w*|distinct|distinguish\\w*) from",
    "(?:confused?|mistak(?:e|en|ing)) (?:\\w+ )?(?:with|for)",
    *("(?:anything|everything|all) but", "(?:apart|aside) from", "other than"),
    *("too \\w+ (?:to|for)", "lacks? what"),
    "(?:by|in|at|on|under) no \\w+",
    # what was or might be thought
    *("at first", "initially", "originally", "thought (?:it|this|that)", "used to be"),
    *("(?:was|were) (?:going|about|tempted) to", "wanted to (?:say|answer|call)"),
    "(?:one|some|people|many|others|few|someone|anyone)(?: \\w+)? (?:might|may|could|would)",
    "(?:would|could|might|should)(?: have|'ve) been",
    # what else there is
    *("(?:second|next|other|alternative) (?:guess|choice|option|candidate)", "runner-up"),
    "(?:options|choices|candidates|labels|classes) (?:are|were|include)",
    "(?:invalid|unknown|unexpected|unsupported) (?:label|class|category|name|word)",
    "no (?:\\w+ )?(?:evidence|signs?|indications?|proof|ways?|chance|trace|reason|hints?|basis"
    "|longer|means|possibility|need|such thing|sense)",
    "no (?:(?!it|this|that|and|so)\\w+ ){1,2}(?:suggest|indicate|support|implie|point|show|match"
    "|resemble|look|i|are)s?",
    "(?:is|are|was|were|do|does|did|ca|wo|would|could|should|has|have|had|ai)nt",
    # the commonest in other languages
    *("kein\\w*", "nicht", "pas", "n'est", "não", "geen", "niet", "inte", "ikke", "не", "нет"),
)
_DENIAL = re.compile(rf"\b{_any(*_DENIES)}\b|n't\b|[≠¬]|!=|不是|没有|沒有|不像|并非")
_DENIED_NOUN = re.compile(
    # "no spikes" denies spikes: only what the noun phrase itself holds
    r"\b(?:no(?!\s*[,.!:;—-])|without|lacks?|lacking|minus|sans|less|sin)"
    r"(?: (?:an?|the|any|such|of|like|to|be|being|as|more|other|further|visible|clear))*"
    r"(?:[ ,]+(?:of (?:an?|the)\b|(?!(?:an?|the|and|or|but|so|it|this|that|i|is|are|was|has|have"
    r"|looks?|seems?|means?|which|with)\b)[\w'%-]+)){0,4}[\s\"'(\[]*\Z"
    r"|\b(?:almost|nearly)(?: an?| the)?[\s\"']*\Z|\bthan\b[^,:;]*\Z|[❌✗✘✖]\W*\Z"
    r"|\A\W*over (?:an? |the )?[\s\"']*\Z"
)
_NEW_SUBJECT = re.compile(
    r"(?:(?<!that)[,:;(—]|\s-)\s*(?:(?:and|so|then|but|rather|actually) ){0,2}"
    r"(?:(?:it|this|that|these|they|there|which|(?:the|its) (?:[\w'-]+ ){1,5}?)\s*"
    r"(?:'s|'re|'d|\b(?:is|are|was|were|be|looks?|seems?|appears?|must|could|might|may|should|would"
    r"|can|has to|resembles?|means?|makes?|shows?|match(?:es)?)\b)"
    r"|(?:i|we)(?:'d|'ll|\b(?: would| will)?) (?:\w+ly )?(?:think|believe|say|guess|go|choose|pick"
    r"|call|see|conclude)\b"
    r"|(?:maybe|perhaps|possibly|probably|likely|most likely|more likely|definitely|making"
    r"|meaning|just|my (?:best )?guess)\b)(?!\s*,)"
    r"|\band (?:is|looks|seems|appears|resembles|matches|therefore|thus)\b"
    r"|\b(?:(?<!no )means|making (?:it|this|that))\b"
)


# ---------------------------------------------------------------- behind a label


_ADVERBS = r"(?:(?:both|also|very|quite|\w+ly) ){0,2}"
_WRONG = _any(
    *("wrong", "incorrect", "false", "excluded", "ruled out", "absent", "missing", "unlikely"),
    *("(?:less|least) \\w+", "improbable", "implausible", "impossible", "doubtful", "untrue"),
    *("rejected", "eliminated", "out", "an? (?:mistake|error|stretch)"),
)
_DENIED_AFTER = re.compile(
    r"[\s\"')\]]{0,9}"
    + _any(
        r"(?:is|was|are|were|does|do|did|can|could|would|should|has|have|will|may|might|must)"
        r"\s?(?:not|never)\b",
        r"\w{0,6}n't\b",
        r"(?:cannot|isnt|wasnt|doesnt|cant)\b",
        r"(?:is|was|are|were) (?:no|both not|neither)\b",
        r"(?:is|was|are|were|seems?|looks?|sounds?|(?:would|can|could|must|should|may) be"
        rf"|ha(?:s|ve) been) {_ADVERBS}{_WRONG}\b",
        # a list of labels with a verdict each
        rf"(?:[:=|(—]|\s-)[\s:=|(—-]{{0,9}}{_ADVERBS}(?:[❌✗✘✖]|(?:no|not|nope|never|false|wrong"
        r"|incorrect|absent|missing|0%)(?=\s?(?:[).,;:!|\]\"']|\Z))"
        r"|not (?:it|present|found|likely|right|correct)\b)",
        r"[❌✗✘✖]",
        r"out\b(?! of)",
        r"no\b(?=[\s.!]{0,9}(?:[,;]|\Z))",
        r"[:=|(—\s-]{0,3}(?:excluded|eliminated|rejected|ruled out)\b",
        r"(?:,? ?which )?(?:it|this|that) (?:is|was)\s?(?:n't|not\b)",
        r"not (?:found|present|visible|shown|seen|detected|there|here)\b",
        r",? ?or (?:not|something|some|anything|another|none|neither|else)\b",
        r",? ?(?:but )?only (?:with|when|where)\b",
        r",? ?(?:but )?(?:only )?(?:if|unless|provided|assuming)\b(?! (?:anything|i|you|we|my)\b)",
        r"differ\b|are (?:different|similar|alike)\b",
        r"is the (?:other|first|second|third|previous|wrong)\b",
        r"(?:では|じゃ)(?:ない|ありません|なく)",
    )
)


# ---------------------------------------------------------------- from label to label


_TOGETHER = re.compile(
    r"(?:\b(?:or|nor|and|from|versus|vs)\b\.?|[/&])(?: (?:an?|the|even|any))?[\s\"'(\[]*\Z"
)
_LISTED = re.compile(r"\A[\s\"')]*,\s*(?:an? |the )?[\s\"'(]*\Z")
_LIST_GOES_ON = re.compile(
    rf"[\s\"')]{{0,9}},?\s?(?:(?:or|nor)\b|and (?:an? |the )?[\"'(]{{0,9}}{MENTION})"
)
_OF_ALL = re.compile(
    r"\b(?:(?:one|any|either|none|neither) of|tell|decide|determine|choose|identify|distinguish"
    r"|between|whether|options|choices|candidates)\b"
)
"""With a denial, it is of all labels that follow."""


def denials(clause: str, mentions: Sequence[re.Match[str]]) -> tuple[list[bool], list[bool]]:
    """For each mention, whether it is denied, and whether a new subject begins before it."""
    begins = [found.start() for found in _NEW_SUBJECT.finditer(clause)]
    denied: list[bool] = []
    fresh: list[bool] = []
    together: list[bool] = []
    of_all = False
    last = 0
    for mention in mentions:
        start, end = mention.span()
        between = clause[last:start]
        listed = _LISTED.match(between) and _LIST_GOES_ON.match(clause, end)
        together.append(bool(listed or _TOGETHER.search(between)))
        place = bisect_left(begins, start)
        fresh.append(place > 0 and begins[place - 1] >= last)
        before = clause[begins[place - 1] : start] if fresh[-1] else between
        denies = bool(_DENIAL.search(before) or _DENIED_NOUN.search(before))
        of_all = (of_all and not fresh[-1]) or (denies and bool(_OF_ALL.search(before)))
        denied.append(denies or of_all or (together[-1] and denied[-1:] == [True]))
        last = end
        if after := _DENIED_AFTER.match(clause, end):
            last = after.end()
            first = len(denied) - 1
            while first and together[first]:
                first -= 1
            denied[first:] = [True] * (len(denied) - first)
    return denied, fresh


# ---------------------------------------------------------------- conditions


_IF = re.compile(
    r"(?<!even )(?<!as )\bif\b(?! (?:anything|forced|pressed|pushed|asked|(?:i|you|we)(?:'m|'d| had"
    r"| have to| were to| was to| must| am| may| look| remember| recall| see| ask| want)\b))"
    r"|\b(?:unless|suppos(?:e|ing)|assuming|provided|in case|as long as|depending on|otherwise"
    r"|or else|as if it (?:were|was)|(?:were|had|should) (?:it|this|that|the))\b"
)


def condition(clause: str) -> int:
    """Where the clause begins to depend on a condition; its end, if it doesn't."""
    found = _IF.search(clause)
    return found.start() if found else len(clause)
