"""The sign step: copies of drawn images that say, signed, what made them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from isekai import files, intake, metadata, progress, signing
from isekai.errors import DataError, IsekaiError
from isekai.intake import Images
from isekai.signing import Credentials
from isekai.types import ImageRecord

_LEDGER = "signed.jsonl"
_MANIFEST = "manifest.json"
_PATH = re.compile(r"[\w-]+/[\w-]+/\d+\.(png|webp)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A row of signed.jsonl: a signed copy, and what it is a copy of."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    id: str
    """SHA-256 of the signed file."""
    path: str
    """The same as in the images folder."""
    image_id: str
    """SHA-256 of the image in the ledger."""
    certificate: str
    """SHA-256 of the certificate that signed."""


def run(
    folder: Path,
    *,
    certificate: Path,
    key: Path,
    out: Path = Path("signed"),
    timestamps: str = "",
    force: bool = False,
) -> Path:
    """Write a signed copy of every image of `folder` into `out`, and return it.

    Copies, never the images themselves: a signature holds random and time, while the ledger, the
    dataset and every prediction know an image by the hash of its bytes. Copies that are there and
    belong to the same image and certificate stay; others are refused, unless `force` replaces
    them. `timestamps` is the URL of a time-stamping authority.
    """
    found = intake.read(folder)
    _refuse(found, out)
    own = signing.credentials(certificate, key)
    with files.lock(out), files.explained(out):
        files.sweep_temporaries(out)
        there = dict(_standing(out, found, own, force))
        left = [row.record for row in found.rows if row.record.path not in there]
        if not left and (out / _MANIFEST).exists():
            progress.tell(f"{out}: all signed, nothing to do")
            return out
        (out / _MANIFEST).unlink(missing_ok=True)
        files.write_jsonl(out / _LEDGER, there.values())
        with files.Journal(out / _LEDGER) as journal, progress.bar(len(left)) as advance:
            for record in left:
                row, data = _signed(found, record, own, timestamps)
                files.write_bytes(out / record.path, data)
                journal.append([row])
                there[record.path] = row
                advance()
        files.write_jsonl(out / _LEDGER, [there[row.record.path] for row in found.rows])
        files.write_json(out / _MANIFEST, _manifest(found, own))
        progress.tell(f"{out}: {len(left)} signed, {len(there)} in all")
    return out


def _refuse(found: Images, out: Path) -> None:
    """Never sign what isn't the ledger's, nor write among files that are not ours."""
    changed = [row for row in found.rejected if row.path is not None]
    if changed:
        raise DataError(
            f"{found.folder}: {changed[0].path}: {changed[0].reason}; `isekai verify` names all"
        )
    if out.resolve().is_relative_to(found.folder.resolve()):
        raise IsekaiError(f"{out}: lies in the images folder; give --out a folder elsewhere")
    with files.explained(out):
        others = out.is_dir() and not (out / _LEDGER).exists()
        names = sorted(path.name for path in out.iterdir()) if others else []
    if any(not name.startswith(".") for name in names):
        raise DataError(f"{out}: holds other files; give --out a new or empty folder")


def _standing(
    out: Path, found: Images, own: Credentials, force: bool
) -> Iterator[tuple[str, Signed]]:
    """Copies that stay; DataError for one of another image or certificate, unless `force`."""
    images = {row.record.path: row.record.id for row in found.rows}
    for row in files.read_jsonl(out / _LEDGER, Signed):
        if not _PATH.fullmatch(row.path):
            raise DataError(f"{out / _LEDGER}: '{row.path}' is not the path of an image")
        path = out / row.path
        if images.get(row.path) != row.image_id or row.certificate != own.fingerprint:
            if not force:
                raise DataError(
                    f"{out}: {row.path} was signed for another image or by another certificate; "
                    "give --force to replace such copies, or another --out"
                )
            path.unlink(missing_ok=True)
        elif path.is_file() and files.sha256(path.read_bytes()) == row.id:
            yield row.path, row


def _signed(
    found: Images, record: ImageRecord, own: Credentials, timestamps: str
) -> tuple[Signed, bytes]:
    image = found.read(record)
    kind = metadata.digital_source(image)
    if not kind:
        raise DataError(
            f"{found.folder / record.path}: its file does not say whether a model or an algorithm "
            "made it, as with pictures of your own; only images that say so are signed"
        )
    data = signing.sign(
        image,
        own,
        facts=metadata.of(record),
        kind=kind,
        when=record.drawn_at,
        title=record.path,
        timestamps=timestamps,
    )
    row = Signed(
        id=files.sha256(data),
        path=record.path,
        image_id=record.id,
        certificate=own.fingerprint,
    )
    return row, data


def _manifest(found: Images, own: Credentials) -> dict[str, object]:
    return {
        "kind": "signed images",
        "complete": True,
        "images": len(found.rows),
        "of": found.digest,
        "certificate": own.fingerprint,
        "environment": files.environment("c2pa-python", "cryptography"),
    }
