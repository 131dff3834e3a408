"""How the released code writes a conversation down, and what of it the loss is taken over."""

from collections.abc import Sequence

from model_adapters.lcl_shikra.tokens import PAD, Tokens

ROLES = ("USER", "ASSISTANT")
END = "</s>"
"""Closes an answer."""

IGNORED = -100
"""A label that no loss is taken over."""

LIMIT = 2048
"""Tokens of a piece at most (`truncation_size` of the released evaluation)."""


def written(opening: str, messages: Sequence[str]) -> str:
    """`opening`, a blank, and the messages of user and assistant in turn.

    An empty message leaves its role's name alone: there the model goes on.
    """
    told = [opening, " "]
    for place, message in enumerate(messages):
        role, end = ROLES[place % 2], (" ", END)[place % 2]
        told.append(f"{role}: {message}{end}" if message else f"{role}:")
    return "".join(told)


def joined(pieces: Sequence[Sequence[int]]) -> list[int]:
    """The pieces of an episode as one sequence, the query's last.

    Each was tokenised by itself and has its own `<s>`. The closing `</s>` stays with the first
    example alone; the other examples lose their last token, whatever it is.
    """
    *support, query = pieces
    ids = [id for piece in support[:1] for id in piece]
    return ids + [id for piece in support[1:] for id in piece[:-1]] + list(query)


def kept(ids: Sequence[int], limit: int, pictures: frozenset[int]) -> list[int]:
    """Which positions stay of a piece that has to fit into `limit` tokens.

    Those within it if no token of a picture lies beyond it; else all of the pictures', and of the
    others those that come first.
    """
    if not any(id in pictures for id in ids[limit:]):
        return list(range(min(limit, len(ids))))
    spare = len(ids) - limit
    others = [place for place, id in enumerate(ids) if id not in pictures]
    gone = set(others[max(len(others) - spare, 0) :])
    return [place for place in range(len(ids)) if place not in gone]


def supervised(tokens: Tokens, prompt: str) -> list[int]:
    """The labels that training puts to a written conversation: its answers, each with its `</s>`.

    All else is IGNORED, and so is everything where the count of tokens, made round by round, comes
    out otherwise than for the whole, as the released code has it.
    """
    labels = tokens.encode(prompt)
    whole = sum(id != PAD for id in labels)
    labels[0] = IGNORED
    at = 1
    for spoken in prompt.split(END):
        asked, marked, answer = spoken.partition(_ANSWERS)
        if not marked or _ANSWERS in answer:
            break
        # The <s> that each count holds stands for the </s> of the round before. The blank behind
        # the role is a token of its own here, and a part of the answer's first in the whole.
        given = len(tokens.encode(asked + marked)) - 2
        labels[at : at + given] = [IGNORED] * len(labels[at : at + given])
        at += len(tokens.encode(spoken))
    labels[at:] = [IGNORED] * len(labels[at:])
    return labels if at == whole else [IGNORED] * len(labels)


_ANSWERS = f" {ROLES[1]}: "
