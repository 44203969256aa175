# What prim.pyx offers to compiled callers; prim.py says what each function means.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint32_t prim_u16(const unsigned char *p) { return (uint32_t)p[0] << 8 | p[1]; }
    static inline uint32_t prim_u32(const unsigned char *p) {
        uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v);
    }
    static inline void prim_put16(unsigned char *p, uint32_t v) { p[0] = v >> 8; p[1] = v; }
    static inline void prim_put32(unsigned char *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
    /* RFC 1071, in the machine's byte order, 4 bytes at a time into 64 bits: gcc makes vector code of it. */
    static inline uint64_t prim_add(const unsigned char *p, int n) {
        uint64_t s = 0;
        int i, words = n >> 2;
        for (i = 0; i < words; i++) { uint32_t v; memcpy(&v, p + 4 * i, 4); s += v; }
        p += 4 * words; n -= 4 * words;
        if (n >= 2) { uint16_t v; memcpy(&v, p, 2); s += v; p += 2; n -= 2; }
        if (n) s += *p;   /* little-endian: the byte is the low one of its word */
        return s;
    }
    static inline uint16_t prim_fold(uint64_t s) {
        while (s >> 16) s = (s & 0xffff) + (s >> 16);
        return s;
    }
    """
    unsigned int prim_u16(const unsigned char *p) noexcept nogil
    unsigned int prim_u32(const unsigned char *p) noexcept nogil
    void prim_put16(unsigned char *p, unsigned int v) noexcept nogil
    void prim_put32(unsigned char *p, unsigned int v) noexcept nogil
    unsigned long long prim_add(const unsigned char *data, int length) noexcept nogil
    unsigned int prim_fold(unsigned long long total) noexcept nogil

cdef inline unsigned int u16(const unsigned char *packet, int at) noexcept:
    return prim_u16(packet + at)

cdef inline unsigned int u32(const unsigned char *packet, int at) noexcept:
    return prim_u32(packet + at)

cdef inline void put16(unsigned char *packet, int at, unsigned int value) noexcept:
    prim_put16(packet + at, value)

cdef inline void put32(unsigned char *packet, int at, unsigned int value) noexcept:
    prim_put32(packet + at, value)

cdef inline void write_nonce(unsigned char *nonce, unsigned long long number) noexcept:
    """Of 12 bytes, as Noise has it (12.3)."""
    prim_put32(nonce, 0)
    prim_put32(nonce + 4, <unsigned int>(number >> 32))
    prim_put32(nonce + 8, <unsigned int>number)


cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_CIPHER_CTX
    ctypedef struct EVP_CIPHER
    ctypedef struct ENGINE
    EVP_CIPHER_CTX *EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *context)
    const EVP_CIPHER *EVP_aes_256_gcm()
    int EVP_CipherInit_ex(EVP_CIPHER_CTX *context, const EVP_CIPHER *kind, ENGINE *engine, const unsigned char *key,
                          const unsigned char *nonce, int encrypts)
    int EVP_EncryptInit_ex(EVP_CIPHER_CTX *context, const EVP_CIPHER *kind, ENGINE *engine, const unsigned char *key,
                           const unsigned char *nonce)
    int EVP_EncryptUpdate(EVP_CIPHER_CTX *context, unsigned char *out, int *length, const unsigned char *data, int size)
    int EVP_EncryptFinal_ex(EVP_CIPHER_CTX *context, unsigned char *out, int *length)
    int EVP_DecryptInit_ex(EVP_CIPHER_CTX *context, const EVP_CIPHER *kind, ENGINE *engine, const unsigned char *key,
                           const unsigned char *nonce)
    int EVP_DecryptUpdate(EVP_CIPHER_CTX *context, unsigned char *out, int *length, const unsigned char *data, int size)
    int EVP_DecryptFinal_ex(EVP_CIPHER_CTX *context, unsigned char *out, int *length)
    int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *context, int what, int size, void *data)
    int EVP_CTRL_AEAD_GET_TAG
    int EVP_CTRL_AEAD_SET_TAG


cdef struct Ready:
    EVP_CIPHER_CTX *context
    unsigned long long owner       # whose key is in it; 0: nobody's


cdef class Cipher:
    cdef unsigned char[32] _key
    cdef unsigned long long _number

    cdef void _forget(self, Ready *pool) noexcept
    cdef EVP_CIPHER_CTX *_ready(self, Ready *pool, int encrypts) except NULL
    cdef int _seal(self, unsigned long long wire, const unsigned char *header, const unsigned char *data, int length,
                   unsigned char *out) except -1
    cdef int _open(self, unsigned long long wire, const unsigned char *header, const unsigned char *data, int length,
                   unsigned char *out) except -1


cdef class Reply:
    cdef unsigned char *head
    cdef unsigned char *room
    cdef readonly int head_length
    cdef readonly int body_length
    cdef readonly int batches
    cdef readonly int consumed
    cdef readonly int lead_length
    cdef readonly int tcp_at
    cdef unsigned char[8] seen      # of the packet's TCP header as it came: acknowledgement to window
    cdef int[32] sizes              # MAX_BATCHES
    cdef int[32] lengths
    cdef unsigned char *lead
    cdef bytes blob

    cdef const unsigned char *body(self) noexcept


cdef class Region:
    cdef Py_buffer _view


cdef class Slot:
    cdef Region _region
    cdef unsigned char *_at

    cpdef write(self, unsigned long long first, unsigned long long second)


cdef bytes key_of(const unsigned char *packet, bint ipv6)
cdef void copy_head(Reply reply, const unsigned char *packet, int length) noexcept
cdef void take_blob(Reply reply, bytes blob) noexcept
cdef void take_lead(Reply reply, int start)
cdef bytes seal(Cipher cipher, long long wire, long long plain, const unsigned char *packet, int at, int length, int size)
cdef void no_lead(Reply reply) noexcept
cdef bint add_lead(Reply reply, bytearray page, int at, int length) except -1
cdef bytearray room(Py_ssize_t length)
cdef int digits(unsigned long long number) noexcept
cdef void copy_into(bytearray page, int at, const unsigned char *packet, int start, int length) noexcept
cdef int open_records(Cipher cipher, long long wire, long long plain, const unsigned char *packet, int at, int length,
                      Reply reply, int limit) except -2
cdef void go_on(Reply reply, const unsigned char *packet, int at, int length) noexcept
cdef void remember(Reply reply, const unsigned char *packet, int tcp_at) noexcept
cdef bint is_alike(Reply reply, const unsigned char *packet) noexcept
cdef void add_flags(Reply reply, int tcp_at, const unsigned char *packet) noexcept
cdef void finish(Reply reply, int tcp_at, bint ipv6) noexcept
cdef bint checksum_is_right(const unsigned char *packet, int length, int tcp_at, bint ipv6) noexcept
