# cython: language_level=3
"""The compiled twin of noisecrypto.py, which says what each function means."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy, memset

from mcencrypt.core.prim cimport (
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_ctrl, EVP_CIPHER_CTX_new, EVP_CTRL_AEAD_GET_TAG, EVP_CTRL_AEAD_SET_TAG,
    EVP_DecryptFinal_ex, EVP_DecryptInit_ex, EVP_DecryptUpdate, EVP_EncryptFinal_ex, EVP_EncryptInit_ex, EVP_EncryptUpdate,
    EVP_aes_256_gcm, ENGINE, write_nonce,
)

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_MD_CTX
    ctypedef struct EVP_MD
    EVP_MD_CTX *EVP_MD_CTX_new()
    const EVP_MD *EVP_sha256()
    int EVP_DigestInit_ex(EVP_MD_CTX *context, const EVP_MD *kind, ENGINE *engine)
    int EVP_DigestUpdate(EVP_MD_CTX *context, const void *data, size_t size)
    int EVP_DigestFinal_ex(EVP_MD_CTX *context, unsigned char *out, unsigned int *length)

DEF TAG_SIZE = 16

cdef unsigned char[32] _NO_KEY
memset(_NO_KEY, 0, 32)

# Of the handshake, which is no common case: a context each for all keys, so that libcrypto looks up nothing twice.
cdef EVP_MD_CTX *_hashing = EVP_MD_CTX_new()
cdef EVP_CIPHER_CTX *_sealing = EVP_CIPHER_CTX_new()
cdef EVP_CIPHER_CTX *_opening = EVP_CIPHER_CTX_new()
if (_hashing == NULL or _sealing == NULL or _opening == NULL or EVP_DigestInit_ex(_hashing, EVP_sha256(), NULL) != 1
        or EVP_EncryptInit_ex(_sealing, EVP_aes_256_gcm(), NULL, NULL, NULL) != 1
        or EVP_DecryptInit_ex(_opening, EVP_aes_256_gcm(), NULL, NULL, NULL) != 1):
    raise MemoryError("libcrypto gave no SHA-256, or no AES-256-GCM")


cdef int _sha256(const unsigned char *first, size_t first_length, const unsigned char *second, size_t second_length,
                 unsigned char *out) except -1:
    if (EVP_DigestInit_ex(_hashing, NULL, NULL) != 1
            or EVP_DigestUpdate(_hashing, first, first_length) != 1
            or EVP_DigestUpdate(_hashing, second, second_length) != 1
            or EVP_DigestFinal_ex(_hashing, out, NULL) != 1):
        raise RuntimeError("libcrypto failed to hash")
    return 0


cdef int _hmac(const unsigned char *key, const unsigned char *data, size_t length, unsigned char *out) except -1:
    """HMAC-SHA-256 (RFC 2104) under a key of 32 bytes."""
    cdef unsigned char block[64]
    cdef unsigned char inner[32]
    cdef int i
    for i in range(64):
        block[i] = (key[i] if i < 32 else 0) ^ 0x36
    _sha256(block, 64, data, length, inner)
    for i in range(64):
        block[i] ^= 0x36 ^ 0x5C
    return _sha256(block, 64, inner, 32, out)


cpdef bytes sha256(bytes first, bytes second):
    cdef unsigned char out[32]
    _sha256(<const unsigned char *>PyBytes_AS_STRING(first), len(first),
            <const unsigned char *>PyBytes_AS_STRING(second), len(second), out)
    return PyBytes_FromStringAndSize(<char *>out, 32)


cpdef bytes hkdf(bytes chaining_key, bytes material, int outputs):
    cdef unsigned char temp[32]
    cdef unsigned char before[33]
    cdef unsigned char *out
    cdef bytes keys
    cdef int number
    if len(chaining_key) != 32 or not 1 <= outputs <= 3:
        raise ValueError("a chaining key has 32 bytes, and gives 1 to 3 keys")
    keys = PyBytes_FromStringAndSize(NULL, 32 * outputs)
    out = <unsigned char *>PyBytes_AS_STRING(keys)
    _hmac(<const unsigned char *>PyBytes_AS_STRING(chaining_key), <const unsigned char *>PyBytes_AS_STRING(material),
          len(material), temp)
    for number in range(outputs):
        before[32 if number else 0] = number + 1
        _hmac(temp, before, 33 if number else 1, out + 32 * number)
        memcpy(before, out + 32 * number, 32)
    memset(temp, 0, 32)
    memset(before, 0, 32)
    return keys


cpdef bytes encrypt(bytes key, unsigned long long number, bytes plaintext, bytes associated):
    cdef int done = 0, length = <int>len(plaintext)
    cdef unsigned char nonce[12]
    cdef bytes sealed = PyBytes_FromStringAndSize(NULL, length + TAG_SIZE)
    cdef unsigned char *out = <unsigned char *>PyBytes_AS_STRING(sealed)
    if len(key) != 32:
        raise ValueError("an AES-256 key has 32 bytes")
    write_nonce(nonce, number)
    if (EVP_EncryptInit_ex(_sealing, NULL, NULL, <const unsigned char *>PyBytes_AS_STRING(key), nonce) != 1
            or EVP_EncryptUpdate(_sealing, NULL, &done, <const unsigned char *>PyBytes_AS_STRING(associated),
                                 <int>len(associated)) != 1
            or EVP_EncryptUpdate(_sealing, out, &done, <const unsigned char *>PyBytes_AS_STRING(plaintext), length) != 1
            or EVP_EncryptFinal_ex(_sealing, out + length, &done) != 1
            or EVP_CIPHER_CTX_ctrl(_sealing, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, out + length) != 1
            or EVP_EncryptInit_ex(_sealing, NULL, NULL, _NO_KEY, NULL) != 1):
        raise RuntimeError("libcrypto failed to encrypt")
    return sealed


cpdef bytes decrypt(bytes key, unsigned long long number, bytes sealed, bytes associated):
    cdef int done = 0, length = <int>len(sealed) - TAG_SIZE
    cdef unsigned char nonce[12]
    cdef const unsigned char *data = <const unsigned char *>PyBytes_AS_STRING(sealed)
    cdef bytes opened
    cdef unsigned char *out
    cdef bint right
    if len(key) != 32:
        raise ValueError("an AES-256 key has 32 bytes")
    if length < 0:
        return None
    opened = PyBytes_FromStringAndSize(NULL, length)
    out = <unsigned char *>PyBytes_AS_STRING(opened)
    write_nonce(nonce, number)
    if (EVP_DecryptInit_ex(_opening, NULL, NULL, <const unsigned char *>PyBytes_AS_STRING(key), nonce) != 1
            or EVP_DecryptUpdate(_opening, NULL, &done, <const unsigned char *>PyBytes_AS_STRING(associated),
                                 <int>len(associated)) != 1
            or EVP_DecryptUpdate(_opening, out, &done, data, length) != 1
            or EVP_CIPHER_CTX_ctrl(_opening, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, <void *>(data + length)) != 1):
        raise RuntimeError("libcrypto failed to decrypt")
    right = EVP_DecryptFinal_ex(_opening, out + length, &done) == 1
    if EVP_DecryptInit_ex(_opening, NULL, NULL, _NO_KEY, NULL) != 1:
        raise RuntimeError("libcrypto failed to forget a key")
    return opened if right else None
