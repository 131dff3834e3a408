"""Throw-away certificate chains, for signing in tests."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEYS = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "es512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


def write(
    folder: Path,
    *,
    algorithm: str = "es256",
    days: tuple[int, int] = (-1, 30),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
) -> tuple[Path, Path, Path]:
    """A chain of two, the signer's key, and the root alone, as PEM files. `days` are from now."""
    root_key, key = KEYS["es256"](), KEYS[algorithm]()
    root = _certificate("a root", root_key, "a root", root_key, (-400, 400), None)
    own = _certificate("a signer", key, "a root", root_key, days, usage)
    folder.mkdir(parents=True, exist_ok=True)
    chain, secret, anchor = (folder / name for name in ("chain.pem", "key.pem", "root.pem"))
    pem = serialization.Encoding.PEM
    chain.write_bytes(own.public_bytes(pem) + root.public_bytes(pem))
    anchor.write_bytes(root.public_bytes(pem))
    secret.write_bytes(locked(key, None))
    return chain, secret, anchor


def locked(key, passphrase: bytes | None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )


def _certificate(subject, key, issuer, issuer_key, days, usage) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    is_root = usage is None
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days[0]))
        .not_valid_after(now + datetime.timedelta(days[1]))
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(
            x509.KeyUsage(not is_root, *[False] * 4, is_root, is_root, False, False), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if usage:
        made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return made.sign(issuer_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    names = ((NameOID.COMMON_NAME, text), (NameOID.ORGANIZATION_NAME, "Tests of isekai"))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in names])
