# SPDX-License-Identifier: Apache-2.0
"""RSA PKCS#1 v1.5 with SHA-512 by three providers that agree to the byte.

`LibCrypto` (through ctypes, the library that Python's own hashlib is linked to), `OpenSslProgram`
and `PurePython` (signs and verifies, cannot generate). Keys are DER: PKCS#8 for private ones,
SubjectPublicKeyInfo for public ones. Where keys are kept is the business of `keys.py`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import Any, Iterator, List, Optional, Tuple

from quarterdeck_agent import der
from quarterdeck_agent.errors import NoProvider

KEY_BITS = 4096

_RSA_ALGORITHM = der.element(der.SEQUENCE, der.oid("1.2.840.113549.1.1.1"), der.element(der.NULL))
_SHA512_PREFIX = bytes.fromhex("3051300d060960864801650304020305000440")

#: What `LibCrypto` calls, by the kind of result; a library without one of them is not used.
_POINTER_FUNCTIONS = ("EVP_PKEY_CTX_new_id", "EVP_sha512", "EVP_MD_CTX_new", "d2i_AutoPrivateKey", "d2i_PUBKEY")
_STATUS_FUNCTIONS = (
    "EVP_DigestSign",
    "EVP_DigestVerify",
    "EVP_DigestSignInit",
    "EVP_DigestVerifyInit",
    "EVP_PKEY_CTX_ctrl_str",
    "EVP_PKEY_keygen",
    "EVP_PKEY_keygen_init",
    "i2d_PrivateKey",
    "EVP_PKEY_free",
    "EVP_MD_CTX_free",
    "EVP_PKEY_CTX_free",
)


class ProviderFailed(Exception):
    """A provider is not usable here; the next one is tried."""


def private_from_pem(text: str) -> bytes:
    """PKCS#8 DER from PEM of either form. Raises der.Malformed."""
    label, data = der.from_pem(text)
    if label == "RSA PRIVATE KEY":
        return der.element(der.SEQUENCE, der.integer(0), _RSA_ALGORITHM, der.element(der.OCTET_STRING, data))
    if label != "PRIVATE KEY":
        raise der.Malformed(f"a block {label} is not an unencrypted private key")
    return data


def private_numbers(private: bytes) -> List[int]:
    """The nine numbers of a PKCS#8 RSA key: version, n, e, d, p, q, dp, dq, qi. Raises der.Malformed."""
    parts = der.children(der.only(der.SEQUENCE, private))
    if len(parts) < 3 or parts[2][0] != der.OCTET_STRING:
        raise der.Malformed("not a PKCS#8 key")
    numbers = der.integers(parts[2][1])
    if len(numbers) < 9:
        raise der.Malformed("not an RSA private key")
    return numbers[:9]


def public_of(private: bytes) -> bytes:
    """SubjectPublicKeyInfo DER of a PKCS#8 private key."""
    _, n, e, *_ = private_numbers(private)
    key = der.element(der.SEQUENCE, der.integer(n), der.integer(e))
    return der.element(der.SEQUENCE, _RSA_ALGORITHM, der.element(der.BIT_STRING, b"\0", key))


def public_numbers(public: bytes) -> Tuple[int, int]:
    """Modulus and exponent of a SubjectPublicKeyInfo. Raises der.Malformed when it is not RSA."""
    parts = der.children(der.only(der.SEQUENCE, public))
    if len(parts) != 2 or parts[1][0] != der.BIT_STRING or der.element(der.SEQUENCE, parts[0][1]) != _RSA_ALGORITHM:
        raise der.Malformed("not an RSA public key")
    n, e = der.integers(parts[1][1][1:])
    return n, e


def padded(message: bytes, size: int) -> int:
    """The number that PKCS#1 v1.5 signs for `message` under a modulus of `size` bytes."""
    tail = _SHA512_PREFIX + hashlib.sha512(message).digest()
    return int.from_bytes(b"\0\1" + b"\xff" * (size - len(tail) - 3) + b"\0" + tail, "big")


class PurePython:
    """Signing in about 60 ms and verifying in under 1 ms, with nothing but `pow`."""

    name = "python"

    def generate(self) -> bytes:
        raise ProviderFailed("cannot generate keys")

    def sign(self, private: bytes, message: bytes) -> bytes:
        _, n, e, _, p, q, dp, dq, qi = private_numbers(private)
        size = (n.bit_length() + 7) // 8
        wanted = padded(message, size)
        low = pow(wanted, dq, q)
        signed = low + q * ((pow(wanted, dp, p) - low) * qi % p)
        if pow(signed, e, n) != wanted:  # a damaged key would give its factors away
            raise ProviderFailed("the private key is inconsistent")
        return signed.to_bytes(size, "big")

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        n, e = public_numbers(public)
        size = (n.bit_length() + 7) // 8
        number = int.from_bytes(signature, "big")
        return len(signature) == size and number < n and pow(number, e, n) == padded(message, size)


class OpenSslProgram:
    """The `openssl` command. Key material goes through private temporary files, never through arguments."""

    name = "openssl"

    def __init__(self) -> None:
        import shutil  # pulls in compression libraries that a run with libcrypto never needs

        self._program = shutil.which("openssl") or ""
        if not self._program:
            raise ProviderFailed("no openssl program in PATH")

    def generate(self) -> bytes:
        text = self._run(["genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{KEY_BITS}"])
        return private_from_pem(text.decode())

    def sign(self, private: bytes, message: bytes) -> bytes:
        with _private_directory() as directory:
            key = _write(directory, "key", der.to_pem("PRIVATE KEY", private).encode())
            return self._run(["dgst", "-sha512", "-sign", key], message)

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        if len(signature) != (public_numbers(public)[0].bit_length() + 7) // 8:
            return False  # the program reads as much of the file as it needs and ignores the rest
        with _private_directory() as directory:
            key = _write(directory, "key", der.to_pem("PUBLIC KEY", public).encode())
            signed = _write(directory, "signature", signature)
            arguments = [self._program, "dgst", "-sha512", "-verify", key, "-signature", signed]
            done = subprocess.run(arguments, input=message, capture_output=True, check=False)
        return done.returncode == 0

    def _run(self, arguments: List[str], given: bytes = b"") -> bytes:
        done = subprocess.run([self._program, *arguments], input=given, capture_output=True, check=False)
        if done.returncode != 0:
            raise ProviderFailed(f"openssl {arguments[0]}: {done.stderr.decode(errors='replace').strip()[:200]}")
        return done.stdout


class LibCrypto:
    """OpenSSL's libcrypto 1.1 or newer through ctypes: 9 ms a signature."""

    name = "libcrypto"

    def __init__(self, path: Optional[str] = None) -> None:
        import ctypes  # only this provider needs it

        self._c: Any = ctypes
        try:
            self._lib: Any = ctypes.CDLL(path or _libcrypto_path())
            for name in _POINTER_FUNCTIONS:
                getattr(self._lib, name).restype = ctypes.c_void_p
            for name in _STATUS_FUNCTIONS:
                getattr(self._lib, name)
        except (OSError, AttributeError) as error:
            raise ProviderFailed(f"no usable libcrypto: {error}") from error

    def generate(self) -> bytes:
        c, lib = self._c, self._lib
        context = c.c_void_p(lib.EVP_PKEY_CTX_new_id(6, None))  # 6: RSA
        key = c.c_void_p()
        try:
            self._must(lib.EVP_PKEY_keygen_init(context))
            self._must(lib.EVP_PKEY_CTX_ctrl_str(context, b"rsa_keygen_bits", str(KEY_BITS).encode()))
            self._must(lib.EVP_PKEY_keygen(context, c.byref(key)))
            buffer = c.create_string_buffer(lib.i2d_PrivateKey(key, None))
            end = c.c_void_p(c.addressof(buffer))
            self._must(lib.i2d_PrivateKey(key, c.byref(end)))
        finally:
            lib.EVP_PKEY_free(key)
            lib.EVP_PKEY_CTX_free(context)
        return private_from_pem(der.to_pem("RSA PRIVATE KEY", buffer.raw))

    def sign(self, private: bytes, message: bytes) -> bytes:
        c, lib = self._c, self._lib
        key, context = self._key(lib.d2i_AutoPrivateKey, private), c.c_void_p(lib.EVP_MD_CTX_new())
        try:
            size = c.c_size_t()
            length = c.c_size_t(len(message))
            self._must(lib.EVP_DigestSignInit(context, None, c.c_void_p(lib.EVP_sha512()), None, key))
            self._must(lib.EVP_DigestSign(context, None, c.byref(size), message, length))
            buffer = c.create_string_buffer(size.value)
            self._must(lib.EVP_DigestSign(context, buffer, c.byref(size), message, length))
        finally:
            lib.EVP_MD_CTX_free(context)
            lib.EVP_PKEY_free(key)
        return bytes(buffer.raw[: size.value])

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        c, lib = self._c, self._lib
        key, context = self._key(lib.d2i_PUBKEY, public), c.c_void_p(lib.EVP_MD_CTX_new())
        try:
            self._must(lib.EVP_DigestVerifyInit(context, None, c.c_void_p(lib.EVP_sha512()), None, key))
            sizes = c.c_size_t(len(signature)), c.c_size_t(len(message))
            return bool(lib.EVP_DigestVerify(context, signature, sizes[0], message, sizes[1]) == 1)
        finally:
            lib.EVP_MD_CTX_free(context)
            lib.EVP_PKEY_free(key)

    def _key(self, read: Any, data: bytes) -> Any:
        """The EVP_PKEY in `data`, to be freed by the caller."""
        start = self._c.c_char_p(data)
        key = read(None, self._c.byref(start), self._c.c_long(len(data)))
        if not key:
            raise ProviderFailed("libcrypto cannot read the key")
        return self._c.c_void_p(key)

    @staticmethod
    def _must(result: int) -> None:
        if result <= 0:
            raise ProviderFailed("libcrypto refused an operation")


def providers() -> Iterator[Any]:
    """The usable providers, fastest first."""
    for kind in (LibCrypto, OpenSslProgram, PurePython):
        try:
            yield kind()
        except ProviderFailed:
            continue


def generate() -> bytes:
    """A new private key, PKCS#8 DER. Raises NoProvider."""
    reasons = []
    for provider in providers():
        try:
            return bytes(provider.generate())
        except (ProviderFailed, OSError) as error:
            reasons.append(f"{provider.name}: {error}")
    raise NoProvider(
        f"No key can be generated on this machine; install the package openssl and try again ({'; '.join(reasons)})."
    )


def sign(private: bytes, message: bytes) -> bytes:
    """The signature of `message`. Raises NoProvider when no provider accepts the key."""
    reasons = []
    for provider in providers():
        try:
            return bytes(provider.sign(private, message))
        except (ProviderFailed, OSError) as error:
            reasons.append(f"{provider.name}: {error}")
    raise NoProvider(f"The private key cannot sign ({'; '.join(reasons)}).")


def _private_directory() -> Any:
    """A directory for key material, gone when the block ends."""
    import tempfile  # pulls in much that a run with libcrypto never needs

    return tempfile.TemporaryDirectory(prefix="quarterdeck-")


def _write(directory: str, name: str, data: bytes) -> str:
    path = os.path.join(directory, name)
    with open(path, "wb") as stream:
        stream.write(data)
    return path


def _libcrypto_path() -> str:
    """The libcrypto that Python itself has loaded, else the one the linker knows."""
    import _hashlib  # noqa: F401  loads libcrypto where Python is linked to it

    try:
        with open("/proc/self/maps") as stream:
            for line in stream:
                path = line.rstrip("\n").partition("/")[2]
                if os.path.basename(path).startswith("libcrypto"):
                    return "/" + path
    except OSError:
        pass
    import ctypes.util  # heavy, and only where /proc does not tell

    return ctypes.util.find_library("crypto") or "libcrypto.so.3"
