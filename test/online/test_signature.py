"""Signed networks: those of a trusted key pass as they are, and a single changed bit is noticed."""

import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from spiking_controller.errors import ConfigError, ModelContractError
from spiking_controller.networks.checkpoint import parse_checkpoint
from spiking_controller.online.signature import Signer, TrustedKeys, create_key_pair, fingerprint_of
from spiking_controller.resources import share_path

NETWORKS = share_path("models", "planar_reach.safetensors").read_bytes()
KEY, OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32)), Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER, OTHER_SIGNER = Signer(KEY), Signer(OTHER_KEY)
TRUSTED = TrustedKeys([KEY.public_key()])
SIGNED = SIGNER.sign(NETWORKS)
SIGNATURE_END = SIGNED.index(b'"', SIGNED.index(SIGNER.fingerprint.encode()))


def test_signed_networks_pass_and_are_read_like_unsigned_ones() -> None:
    TRUSTED.check(SIGNED, "topic")
    assert parse_checkpoint(SIGNED, "topic").metadata == parse_checkpoint(NETWORKS, "topic").metadata


def test_the_other_process_trusts_the_same_keys() -> None:
    both = TrustedKeys([KEY.public_key(), OTHER_KEY.public_key()])
    there = TrustedKeys.from_hex(both.to_hex())
    assert there.fingerprints == both.fingerprints == [SIGNER.fingerprint, OTHER_SIGNER.fingerprint]
    for signer in (SIGNER, OTHER_SIGNER):
        there.check(signer.sign(NETWORKS), "topic")


def test_networks_that_are_signed_again_carry_the_new_signature_only() -> None:
    assert SIGNER.sign(OTHER_SIGNER.sign(NETWORKS)) == SIGNED


def test_unsigned_networks_are_refused() -> None:
    with pytest.raises(ModelContractError, match=r"^topic: is not signed, but only networks signed with a key of"):
        TRUSTED.check(NETWORKS, "topic")


def test_networks_of_an_unknown_key_are_refused() -> None:
    with pytest.raises(ModelContractError, match=rf"the key {OTHER_SIGNER.fingerprint[:12]}, which is not one of"):
        TRUSTED.check(OTHER_SIGNER.sign(NETWORKS), "topic")


def test_a_trusted_key_that_is_only_claimed_is_refused() -> None:
    claimed = OTHER_SIGNER.sign(NETWORKS).replace(OTHER_SIGNER.fingerprint.encode(), SIGNER.fingerprint.encode())
    with pytest.raises(ModelContractError, match="does not fit the content"):
        TRUSTED.check(claimed, "topic")


def test_a_signature_does_not_move_to_other_networks() -> None:
    signature = SIGNED[SIGNATURE_END - 128 : SIGNATURE_END]
    other = SIGNER.sign(share_path("models", "panda_reach.safetensors").read_bytes())
    end = other.index(b'"', other.index(SIGNER.fingerprint.encode()))
    with pytest.raises(ModelContractError, match="does not fit the content"):
        TRUSTED.check(other[: end - 128] + signature + other[end:], "topic")


def test_what_a_trusted_key_has_signed_for_another_purpose_is_refused() -> None:
    blank = SIGNED[: SIGNATURE_END - 128] + b"0" * 128 + SIGNED[SIGNATURE_END:]
    bare = KEY.sign(blank).hex().encode()
    with pytest.raises(ModelContractError, match="does not fit the content"):
        TRUSTED.check(SIGNED[: SIGNATURE_END - 128] + bare + SIGNED[SIGNATURE_END:], "topic")


@pytest.mark.parametrize("place", ["before", "after"])
def test_networks_with_two_signatures_are_refused(place: str) -> None:
    start = SIGNED.index(b'"spiking_controller_signature"')
    entry = SIGNED[start : SIGNATURE_END + 1]
    data = entry + SIGNED if place == "before" else SIGNED + entry
    with pytest.raises(ModelContractError, match=r"^topic: is signed 2 times"):
        TRUSTED.check(data, "topic")


# The header, with the signature in it, is a hundredth of the file and must not be missed.
POSITIONS = st.one_of(
    st.integers(0, len(SIGNED) - 1), st.integers(0, SIGNATURE_END + 8), st.integers(SIGNATURE_END - 230, SIGNATURE_END)
)


@given(position=POSITIONS, bit=st.integers(0, 7))
def test_one_flipped_bit_is_noticed_wherever_it_is(position: int, bit: int) -> None:
    changed = bytearray(SIGNED)
    changed[position] ^= 1 << bit
    with pytest.raises(ModelContractError, match=r"^topic: "):
        TRUSTED.check(bytes(changed), "topic")


@given(data=st.binary(max_size=400), at=st.integers(0, len(SIGNED)), cut=st.integers(0, 400))
def test_what_is_cut_out_or_put_in_is_noticed(data: bytes, at: int, cut: int) -> None:
    changed = SIGNED[:at] + data + SIGNED[at + cut :]
    if changed != SIGNED:
        with pytest.raises(ModelContractError, match=r"^topic: "):
            TRUSTED.check(changed, "topic")


@given(data=st.binary(max_size=2000))
def test_arbitrary_bytes_are_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(ModelContractError, match="is not signed"):
        TRUSTED.check(data, "topic")


def test_the_private_key_is_for_its_owner_only(tmp_path: Path) -> None:
    private, public, fingerprint = create_key_pair(tmp_path / "lab.v1")
    assert (private.name, public.name) == ("lab.v1.pem", "lab.v1.pub.pem")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE" not in public.read_bytes()
    assert fingerprint_of(private) == ("private", fingerprint)
    assert fingerprint_of(public) == ("public", fingerprint)
    TrustedKeys.read([str(public)]).check(Signer.read(private).sign(NETWORKS), "topic")


@pytest.mark.parametrize("taken", ["lab.pem", "lab.pub.pem"])
def test_no_key_is_overwritten(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(ConfigError, match=rf"{taken}: exists already"):
        create_key_pair(tmp_path / "lab")
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "precious"


def pem(key: Ed25519PrivateKey | Ed448PrivateKey, password: bytes = b"") -> bytes:
    protection = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


def trust(path: Path) -> object:
    return TrustedKeys.read([str(path)])


@pytest.mark.parametrize("read", [Signer.read, trust, fingerprint_of])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "the key cannot be read"),
        (b"", "is no usable PEM key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is no usable PEM key"),
        (pem(KEY)[:60], "is no usable PEM key"),
        (pem(KEY, b"secret"), "is no usable PEM key"),
        (pem(Ed448PrivateKey.generate()), "is no Ed25519 key"),
    ],
    ids=["missing", "empty", "no key inside", "cut off", "with a password", "another kind"],
)
def test_a_file_without_a_usable_key_is_named(
    read: Callable[[Path], object], content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"key\.pem: {sentence}"):
        read(path)


def test_the_two_halves_of_a_pair_are_not_mixed_up(tmp_path: Path) -> None:
    private, public, _ = create_key_pair(tmp_path / "lab")
    with pytest.raises(ConfigError, match="is a public key; signing takes the private one"):
        Signer.read(public)
    with pytest.raises(ConfigError, match="is a private key, which whoever checks must not have"):
        trust(private)


@pytest.mark.parametrize("action", [create_key_pair, Signer.read, trust, fingerprint_of])
def test_without_the_package_there_is_a_sentence(
    action: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(ConfigError, match=r"'cryptography', which is not installed; run .*spiking_controller\[sign\]"):
        action(tmp_path / "lab")
