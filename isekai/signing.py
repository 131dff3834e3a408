"""C2PA: says in a picture's file, signed, what made it; with the extra `c2pa`."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isekai import __version__, metadata
from isekai.errors import DataError
from isekai.files import explained
from isekai.images import media_type
from isekai.plugins import missing
from isekai.types import DigitalSource

LABEL = "isekai.image"
"""The assertion that holds the facts, beside `c2pa.actions.v2`."""

_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A certificate chain and the key of its first certificate."""

    chain: str
    """PEM, the signer's own first."""
    key: str = field(repr=False)
    """PEM, PKCS #8."""
    algorithm: str
    """As C2PA calls it, such as `es256`."""
    fingerprint: str
    """SHA-256 of the signer's certificate, hexadecimal."""


def credentials(certificate: Path, key: Path) -> Credentials:
    """Read both files and see that they belong together; DataError if they can't sign."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
    except ModuleNotFoundError as error:
        raise missing(error, "signing") from error
    try:
        chain = x509.load_pem_x509_certificates(_read(certificate))
    except ValueError:
        raise DataError(f"{certificate}: no certificates in PEM; give the signer's first") from None
    try:
        private = serialization.load_pem_private_key(_read(key), password=None)
    except TypeError:
        raise DataError(f"{key}: locked with a passphrase; give a copy without one") from None
    except ValueError:
        raise DataError(f"{key}: no private key in PEM") from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    own = chain[0].public_key().public_bytes(*form)
    if own != private.public_key().public_bytes(*form):
        raise DataError(f"{key}: not the key of the first certificate in {certificate}")
    return Credentials(
        chain="".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in chain),
        key=private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
        algorithm=_algorithm(private, key),
        fingerprint=hashlib.sha256(chain[0].public_bytes(serialization.Encoding.DER)).hexdigest(),
    )


def sign(
    data: bytes,
    credentials: Credentials,
    *,
    facts: Mapping[str, object],
    kind: DigitalSource,
    when: str = "",
    title: str = "",
    timestamps: str = "",
) -> bytes:
    """The file with a manifest that says it was created, by what, and from which `facts`.

    Pixels and XMP stay as they are. Every call gives other bytes: a manifest holds random and time.
    `kind` must not be empty: C2PA wants to know what made a picture. `when` is ISO 8601,
    `timestamps` the URL of a time-stamping authority (RFC 3161); without one the signature is worth
    no more once the certificate has run out. DataError where the certificate is not one that C2PA
    allows.
    """
    try:
        import c2pa  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise missing(error, "signing") from error
    if not kind:
        raise ValueError("nothing is said of what made the picture")
    format = media_type(data)
    if format is None:
        raise ValueError("neither PNG, JPEG, WebP nor GIF")
    info = c2pa.C2paSignerInfo(
        credentials.algorithm,
        credentials.chain.encode(),
        credentials.key.encode(),
        timestamps.encode() or None,
    )
    signed = io.BytesIO()
    try:
        with (
            c2pa.Context.from_dict(_SETTINGS) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(_manifest(facts, kind, when, title), context) as builder,
        ):
            builder.sign(signer, format, io.BytesIO(data), signed)
    except c2pa.C2paError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{title or 'a picture'}: can't be signed ({reason})") from None
    return signed.getvalue()


def _manifest(
    facts: Mapping[str, object], kind: DigitalSource, when: str, title: str
) -> dict[str, object]:
    us = {"name": "isekai", "version": __version__}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": metadata.uri(kind),
        "softwareAgent": us,
        **({"when": when} if when else {}),
    }
    return {
        "claim_generator_info": [us],
        "title": title,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": LABEL, "data": dict(facts)},
        ],
    }


def _algorithm(key: object, path: Path) -> str:
    """C2PA's name for what a key signs with."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    name = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else type(key).__name__
    if name not in curves:
        raise DataError(f"{path}: C2PA does not sign with {name}; RSA, P-256 to P-521, Ed25519 can")
    return curves[name]


def _read(path: Path) -> bytes:
    try:
        with explained(path):
            return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
