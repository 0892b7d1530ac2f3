"""Signs networks on their way to a controller, and checks that they come from somebody it trusts.

The signature (Ed25519) is an entry of its own in the metadata of the safetensors file, so that signed networks are read
like any others. It covers every byte of the file but itself: weights, contract, parent, and whose key it was made with.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiking_controller.errors import ConfigError, ModelContractError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_METADATA_KEY = "spiking_controller_signature"
_PURPOSE = b"spiking_controller networks\n"
"""Stands before what is signed, so that what the key has signed elsewhere is no signature of networks."""
_BLANK = "0" * 128
"""Stands in the place of the signature while it is made and checked."""
_ENTRY = re.compile(rb'"%s":"([0-9a-f]{64}) ([0-9a-f]{128})"' % _METADATA_KEY.encode())
_PRIVATE_MODE, _PUBLIC_MODE = 0o600, 0o644


class Signer:
    """Signs networks with a private key.

    Attributes:
        fingerprint: of the key pair, 64 hexadecimal digits.
    """

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        """Sign with this key."""
        self._key = key
        self.fingerprint = _fingerprint(key.public_key())

    @classmethod
    def read(cls, path: Path) -> "Signer":
        """Take the key from a PEM file.

        Raises:
            ConfigError: the file holds no Ed25519 private key, or `cryptography` is not installed.
        """
        key = _read_key(path)
        if not isinstance(key, _ed25519().Ed25519PrivateKey):
            raise ConfigError(f"{path}: is a public key; signing takes the private one, NAME.pem beside NAME.pub.pem.")
        return cls(key)

    def sign(self, data: bytes) -> bytes:
        """The same networks, signed.

        Args:
            data: the bytes of a checkpoint file; an earlier signature is replaced.
        """
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        header.setdefault("__metadata__", {})[_METADATA_KEY] = f"{self.fingerprint} {_BLANK}"
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        unsigned = len(text).to_bytes(8, "little") + text + data[end:]
        entry = _ENTRY.search(unsigned)
        assert entry is not None
        signature = self._key.sign(_PURPOSE + unsigned).hex().encode()
        return unsigned[: entry.start(2)] + signature + unsigned[entry.end(2) :]


class TrustedKeys:
    """The public keys whose owners may send networks."""

    def __init__(self, keys: Iterable["Ed25519PublicKey"]) -> None:
        """Trust these keys and no others."""
        self._keys = {_fingerprint(key): key for key in keys}

    @classmethod
    def read(cls, paths: Sequence[str]) -> "TrustedKeys":
        """Take the keys from PEM files.

        Raises:
            ConfigError: a file holds no Ed25519 public key, or `cryptography` is not installed.
        """
        keys = [_read_key(Path(path)) for path in paths]
        for path, key in zip(paths, keys, strict=True):
            if not isinstance(key, _ed25519().Ed25519PublicKey):
                raise ConfigError(
                    f"{path}: is a private key, which whoever checks must not have; give NAME.pub.pem that was made "
                    "with it."
                )
        return cls(keys)

    @classmethod
    def from_hex(cls, keys: Iterable[str]) -> "TrustedKeys":
        """What `to_hex` gave."""
        return cls(_ed25519().Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)) for key in keys)

    def to_hex(self) -> list[str]:
        """The keys for another process, 64 hexadecimal digits each."""
        return [key.public_bytes_raw().hex() for key in self._keys.values()]

    @property
    def fingerprints(self) -> list[str]:
        """Of the keys, 64 hexadecimal digits each."""
        return list(self._keys)

    def check(self, data: bytes, source: str) -> None:
        """Return if the networks are signed with one of the keys and no bit has changed since.

        Nothing is read from the networks before that.

        Args:
            data: any bytes.
            source: where they come from, for messages.
        Raises:
            ModelContractError: says why they cannot be trusted.
        """
        from cryptography.exceptions import InvalidSignature

        known = ", ".join(fingerprint[:12] for fingerprint in self._keys)
        entries = list(_ENTRY.finditer(data))
        if not entries:
            raise ModelContractError(
                f"{source}: is not signed, but only networks signed with a key of trusted_keys ({known}) are taken; "
                "give the trainer the signing_key that belongs to it."
            )
        if len(entries) > 1:
            # Of two, one would have to stand in what the other has signed: it is unclear whose networks they are.
            raise ModelContractError(f"{source}: is signed {len(entries)} times; sign networks once.")
        (entry,) = entries
        fingerprint = entry[1].decode()
        if fingerprint not in self._keys:
            raise ModelContractError(
                f"{source}: is signed with the key {fingerprint[:12]}, which is not one of trusted_keys ({known}); "
                "sign with one of these, or add its public key."
            )
        unsigned = data[: entry.start(2)] + _BLANK.encode() + data[entry.end(2) :]
        try:
            self._keys[fingerprint].verify(bytes.fromhex(entry[2].decode()), _PURPOSE + unsigned)
        except InvalidSignature:
            raise ModelContractError(
                f"{source}: the signature with the key {fingerprint[:12]} does not fit the content, which was changed "
                "after signing or never signed with this key; send the networks again from the trainer that has it."
            ) from None


def create_key_pair(name: Path) -> tuple[Path, Path, str]:
    """Make a key pair and write NAME.pem, for its owner only, and NAME.pub.pem, for everybody.

    Args:
        name: of the files, without their endings.
    Returns:
        The private and the public file, and the fingerprint.
    Raises:
        ConfigError: one of the files exists or cannot be written, or `cryptography` is not installed.
    """
    key = _ed25519().Ed25519PrivateKey.generate()
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private = name.with_name(f"{name.name}.pem")
    public = name.with_name(f"{name.name}.pub.pem")
    for path in (private, public):
        if path.exists():
            raise ConfigError(f"{path}: exists already and is not overwritten; give another name.")
    _write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), _PRIVATE_MODE)
    _write_new(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), _PUBLIC_MODE)
    return private, public, _fingerprint(key.public_key())


def fingerprint_of(path: Path) -> tuple[str, str]:
    """Which half of a key pair a PEM file holds, "private" or "public", and the fingerprint of the pair.

    Raises:
        ConfigError: the file holds no Ed25519 key, or `cryptography` is not installed.
    """
    key = _read_key(path)
    if isinstance(key, _ed25519().Ed25519PrivateKey):
        return "private", _fingerprint(key.public_key())
    return "public", _fingerprint(key)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist; nobody can open it with more rights in between."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); give another name.") from None


def _read_key(path: Path) -> Any:
    """An Ed25519 key, private or public."""
    module = _ed25519()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: the key cannot be read ({error.strerror}); `spiking_controller keys create` makes one."
        ) from None
    try:
        key = load_pem_private_key(data, None) if b"PRIVATE KEY" in data else load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # TypeError: with a password.
        raise ConfigError(
            f"{path}: is no usable PEM key ({' '.join(str(error).split())}); give a file that `spiking_controller keys "
            "create` has made."
        ) from None
    if not isinstance(key, module.Ed25519PrivateKey | module.Ed25519PublicKey):
        raise ConfigError(f"{path}: is no Ed25519 key; give a file that `spiking_controller keys create` has made.")
    return key


def _fingerprint(key: "Ed25519PublicKey") -> str:
    """Hash of the key in DER, as `openssl pkey -pubin -outform DER | sha256sum` gives it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _ed25519() -> Any:
    """The module of `cryptography`, which only those need who sign."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise ConfigError(
            "keys and signed networks need the Python package 'cryptography', which is not installed; run "
            "`pip install 'spiking_controller[sign]'`."
        ) from None
    return ed25519
