"""Pieces laid out one behind another: embeddings, positions and the image that each token sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_adapters.runtime.seam import Decoder, Look, Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Tokens in a row as a decoder reads them."""

    embeds: Tensor
    """[tokens, width]."""
    positions: Tensor
    """[axes, tokens], long, from the strip's beginning."""
    span: int
    """How many positions it takes."""
    media: tuple[Tensor, ...] = ()
    """The images that begin in it, for cross-attending decoders."""
    sees: Tensor
    """[tokens], long: how many of these images have begun; a token sees the last of them."""

    def __len__(self) -> int:
        return len(self.embeds)

    def __getitem__(self, part: slice) -> "Strip":
        """Some of the tokens at the places they have; all of the images."""
        return Strip(
            embeds=self.embeds[part],
            positions=self.positions[:, part],
            span=self.span,
            media=self.media,
            sees=self.sees[part],
        )


def strip(decoder: Decoder, piece: Piece, features: Sequence[Tensor]) -> Strip:
    """A piece as a decoder reads it. ValueError if what the decoder says of it doesn't fit."""
    embeds, count = decoder.embed(piece, features), len(piece.ids)
    if embeds.ndim != 2 or len(embeds) != count:
        raise ValueError(f"embed gave {list(embeds.shape)} for {count} tokens")
    if piece.marks and len(piece.marks) != len(piece.images):
        raise ValueError(f"a piece has {len(piece.marks)} marks for {len(piece.images)} images")
    device = embeds.device
    sees = torch.zeros(count, dtype=torch.long, device=device)
    for mark in piece.marks:
        sees[mark:] += 1
    positions = piece.positions
    return Strip(
        embeds=embeds,
        positions=counted(count, device) if positions is None else positions.to(device),
        span=count if piece.span is None else piece.span,
        media=tuple(features) if piece.marks else (),
        sees=sees,
    )


def words(decoder: Decoder, ids: Sequence[int], device: torch.device) -> Strip:
    """Tokens of text alone, such as a label's."""
    embedding = decoder.model.get_input_embeddings()
    embeds: Tensor = embedding(torch.tensor(ids, dtype=torch.long, device=device))
    return Strip(
        embeds=embeds,
        positions=counted(len(ids), device),
        span=len(ids),
        sees=torch.zeros(len(ids), dtype=torch.long, device=device),
    )


def counted(count: int, device: torch.device) -> Tensor:
    """[1, count]: positions that count the tokens."""
    return torch.arange(count, device=device).unsqueeze(0)


def joined(strips: Sequence[Strip]) -> Strip:
    """One behind another; the axes of positions are those of the strip that has most."""
    axes = max(len(one.positions) for one in strips)
    positions, sees, span = [], [], 0
    media: list[Tensor] = []
    for one in strips:
        positions.append(one.positions.expand(axes, -1) + span)
        sees.append(one.sees + len(media))
        media.extend(one.media)
        span += one.span
    return Strip(
        embeds=torch.cat([one.embeds for one in strips]),
        positions=torch.cat(positions, dim=1),
        span=span,
        media=tuple(media),
        sees=torch.cat(sees),
    )


def look(rows: Sequence[Strip], carried: Tensor | None, own: Tensor) -> Look:
    """What the tokens of rows of one length see.

    `carried` is the image before the first tokens, if there is one; `own` is `Look.generated`.
    Images that no token of its row sees are left out.
    """
    shown = [[*([] if carried is None else [carried]), *row.media] for row in rows]
    before = 0 if carried is not None else -1
    index = torch.stack([row.sees + before for row in rows])
    first = [max(0, int(row.min())) for row in index]
    kept = [
        media[start : int(row.max()) + 1]
        for media, start, row in zip(shown, first, index, strict=True)
    ]
    shift = torch.tensor(first, device=index.device).unsqueeze(1)
    return Look(
        media=_filled(kept, rows[0].embeds),
        index=torch.where(index < 0, -1, index - shift),
        generated=own,
    )


def _filled(rows: Sequence[Sequence[Tensor]], like: Tensor) -> Tensor:
    """[rows, images, ...], filled up with zeros."""
    most = max(len(row) for row in rows)
    some = next((image for row in rows for image in row), None)
    if some is None:
        return like.new_zeros((len(rows), 0))
    nothing = torch.zeros_like(some)
    return torch.stack([torch.stack([*row, *[nothing] * (most - len(row))]) for row in rows])
