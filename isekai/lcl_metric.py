"""The accuracy of the released Link-Context-Learning code, with its quirks, beside the strict one.

What `ISEKAIMetrics` and `ImageNetTest100Metrics` compute at commit 7a4c33b of its repository.
"""

from collections.abc import Iterable, Sequence

_DELETED = ("The answer is", "there is", "in the image", '"', "'", ".")
"""What the released code deletes from a reference answer, one after the other."""


def accuracy_lcl(
    text: str,
    target: str,
    labels: Sequence[str],
    *,
    pairs: Iterable[tuple[str, str]] | None = None,
) -> bool | None:
    """True where the released metric counts an answer as right; None where it isn't defined.

    `text` is what the model said, as it said it; `target` the name of the query's class, or the
    whole decoded reference (then what counts is behind the last "ASSISTANT:", up to "</s>"). It is
    defined for two labels alone: (positive, negative), in the order of the annotation. `pairs`,
    all of a data set in its order, make it the ImageNet-100 variant, which finds the other name by
    a look-up of the target there instead of taking it from `labels`.

    Right is: the target is somewhere in the text, and what is left of the text without any target
    doesn't hold the other name. Only the target is normalised, and that differently from the other
    name, which is lower-cased and no more. Hence the quirks, all kept here:

    - an answer in capitals is wrong, and so is the name as the support set spells it, if it has
      capitals, a full stop or an apostrophe, unless the model leaves those out;
    - letters count, not words: "concatenate" is right for "cat"; where the target is a part of the
      other name ("fox", "kit fox"), the other name is right, too;
    - whoever names both is wrong, whatever else the text says; whoever denies is read as naming;
    - a name that consists of deleted phrases ("in the image") becomes empty: any text holds it;
    - where the target is neither label, or has lost a full stop or an apostrophe, the other name is
      the last of the two that differs from it, and that may be its own full spelling;
    - duplicate names in `pairs` have the partner that was listed last.

    Where the released code dies, so does this: ValueError names its exception (UnboundLocalError
    for labels that are one name, KeyError for a target that isn't in `pairs`).
    """
    if len(labels) != 2:
        return None
    wanted = _normalised(target)
    other = _differing(wanted, labels) if pairs is None else _looked_up(wanted, pairs)
    return wanted in text and other not in text.replace(wanted, "")


def _normalised(reference: str) -> str:
    """The class name in a reference answer, lower-cased."""
    name = reference.rpartition("ASSISTANT:")[2].partition("</s>")[0]
    for phrase in _DELETED:
        name = name.replace(phrase, "")
    return name.strip().lower()


def _differing(wanted: str, labels: Sequence[str]) -> str:
    others = [name for label in labels if (name := label.lower()) != wanted]
    if not others:
        raise ValueError(
            f"both labels are '{wanted}': the released metric raises UnboundLocalError here"
        )
    return others[-1]


def _looked_up(wanted: str, pairs: Iterable[tuple[str, str]]) -> str:
    partner: dict[str, str] = {}
    for one, other in pairs:
        partner[one.lower()] = other.lower()
        partner[other.lower()] = one.lower()
    if wanted not in partner:
        raise ValueError(
            f"no pair has a name spelled '{wanted}': the released metric raises KeyError here"
        )
    return partner[wanted]
