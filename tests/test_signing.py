"""What a signed picture says, and to whom it can be shown."""

import io

import c2pa
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from PIL import Image

from isekai import metadata
from isekai.errors import DataError
from isekai.images import bare, decode, encode
from isekai.signing import LABEL, credentials, sign

from . import certificates

FACTS = {
    "prompt": 'a <b>"cactihog"</b> \u202e \x00 & more',
    "concept": "cactihog/cactihog",
    "seed": 2**63 - 1,
    "settings": {"steps": 4, "guidance": 3.5, "lora": None},
}
KIND = "trainedAlgorithmicMedia"
URI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def picture(format: str = "png") -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    return encode(Image.fromarray(noise), format, metadata.packet(FACTS, kind=KIND))


def read(data: bytes, kind: str = "image/png", anchors: str = "") -> tuple[dict, str]:
    """The manifest as the library reads it, and what it thinks of it."""
    trust = {"trust": {"user_anchors": anchors}} if anchors else {}
    with (
        c2pa.Context.from_dict(trust) as context,
        c2pa.Reader(kind, io.BytesIO(data), context=context) as reader,
    ):
        return reader.get_active_manifest(), reader.get_validation_state()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return certificates.write(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("format", ["png", "webp"])
def test_a_signed_picture_says_what_made_it_and_is_the_same_picture(files, format):
    chain, key, root = files
    data = picture(format)
    when = "2026-01-02T03:04:05.678+00:00"
    signed = sign(
        data, credentials(chain, key), facts=FACTS, kind=KIND, when=when, title="a/b/0.png"
    )
    assert decode(signed).tobytes() == decode(data).tobytes()
    assert metadata.read(signed) == FACTS
    manifest, state = read(signed, f"image/{format}", root.read_text())
    assert state == "Trusted"
    assert manifest["title"] == "a/b/0.png"
    assert manifest["claim_generator_info"][0]["name"] == "isekai"
    assert manifest["signature_info"]["common_name"] == "a signer"
    told = {each["label"]: each["data"] for each in manifest["assertions"]}
    (action,) = told["c2pa.actions.v2"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", URI)
    assert action["when"] == when
    assert action["softwareAgent"]["name"] == "isekai"
    assert told[LABEL] == FACTS


def test_a_signature_of_nobody_known_is_valid_but_not_trusted(files, tmp_path):
    chain, key, _ = files
    signed = sign(picture(), credentials(chain, key), facts=FACTS, kind=KIND)
    stranger = certificates.write(tmp_path)[2]
    assert read(signed)[1] == read(signed, anchors=stranger.read_text())[1] == "Valid"


def test_a_pixel_or_a_word_that_changed_breaks_the_signature(files):
    chain, key, root = files
    signed = sign(picture(), credentials(chain, key), facts=FACTS, kind=KIND)
    place = signed.index(b"IDAT") + 100
    pixel = signed[:place] + bytes([signed[place] ^ 1]) + signed[place + 1 :]
    word = signed.replace(b"cactihog/cactihog", b"hedgehog/hedgehog")
    for changed in (pixel, word):
        assert changed != signed
        assert read(changed, anchors=root.read_text())[1] == "Invalid"


def test_what_is_sent_to_a_server_is_not_signed(files):
    chain, key, _ = files
    for format in ("png", "webp"):
        signed = sign(picture(format), credentials(chain, key), facts=FACTS, kind=KIND)
        assert bare(signed) == bare(picture(format))


@pytest.mark.parametrize("algorithm", certificates.KEYS)
def test_every_kind_of_key_that_c2pa_knows_signs(algorithm, tmp_path):
    chain, key, root = certificates.write(tmp_path, algorithm=algorithm)
    own = credentials(chain, key)
    assert own.algorithm == algorithm
    signed = sign(picture(), own, facts=FACTS, kind=KIND)
    manifest, state = read(signed, anchors=root.read_text())
    assert state == "Trusted"
    assert manifest["signature_info"]["alg"].lower() == algorithm


def test_files_that_can_not_sign_are_refused_with_the_reason(files, tmp_path):
    chain, key, _ = files
    other = certificates.write(tmp_path)[1]
    wrong, lock, odd = (tmp_path / name for name in ("wrong.pem", "locked.pem", "odd.pem"))
    wrong.write_bytes(b"\x00hello")
    lock.write_bytes(certificates.locked(certificates.KEYS["es256"](), b"secret"))
    with pytest.raises(DataError, match="not the key of the first certificate"):
        credentials(chain, other)
    with pytest.raises(DataError, match=r"wrong.pem: no certificates in PEM"):
        credentials(wrong, key)
    with pytest.raises(DataError, match=r"wrong.pem: no private key in PEM"):
        credentials(chain, wrong)
    with pytest.raises(DataError, match=r"locked.pem: locked with a passphrase"):
        credentials(chain, lock)
    with pytest.raises(DataError, match="no such file"):
        credentials(chain, tmp_path / "none.pem")
    for made in (ec.generate_private_key(ec.SECP256K1()), dsa.generate_private_key(2048)):
        odd.write_bytes(certificates.locked(made, None))
        single = tmp_path / "single.pem"
        own = certificates._certificate("x", made, "a root", made, (-1, 9), None)
        single.write_bytes(own.public_bytes(Encoding.PEM))
        with pytest.raises(DataError, match="C2PA does not sign with"):
            credentials(single, odd)
    assert "PRIVATE" not in repr(credentials(chain, key))


def test_a_certificate_that_c2pa_does_not_allow_is_refused_in_one_line(tmp_path):
    expired = certificates.write(tmp_path / "old", days=(-30, -1))
    server = certificates.write(tmp_path / "web", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    for chain, key, _ in (expired, server):
        with pytest.raises(DataError, match=r"a/b: can't be signed \(.+\)$") as caught:
            sign(picture(), credentials(chain, key), facts=FACTS, kind=KIND, title="a/b")
        assert "\n" not in str(caught.value)
        assert "PRIVATE" not in str(caught.value)


def test_a_time_stamping_authority_that_does_not_answer_is_no_signature(files):
    chain, key, _ = files
    nobody = "http://127.0.0.1:9/"
    with pytest.raises(DataError, match="can't be signed"):
        sign(picture(), credentials(chain, key), facts=FACTS, kind=KIND, timestamps=nobody)


def test_a_picture_of_unknown_origin_and_other_files_are_not_signed(files):
    own = credentials(*files[:2])
    with pytest.raises(ValueError, match="nothing is said"):
        sign(picture(), own, facts=FACTS, kind="")
    with pytest.raises(ValueError, match="neither"):
        sign(b"hello", own, facts=FACTS, kind=KIND)
    with pytest.raises(DataError, match="can't be signed"):
        sign(picture()[:60], own, facts=FACTS, kind=KIND)
