# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of prim.py, which says what each function means."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

cdef extern from *:
    int __builtin_clzll(unsigned long long number) noexcept nogil

DEF HEADER_SIZE = 6
DEF TAG_SIZE = 16
DEF FINAL_BIT = 0x8000
HEADER = HEADER_SIZE
OVERHEAD = HEADER_SIZE + TAG_SIZE
FINAL = FINAL_BIT
HEAD_ROOM = 128
BODY_ROOM = 1 << 16
DEF LEAD_LIMIT = 0x7FFF + HEADER_SIZE + TAG_SIZE
LEAD_ROOM = LEAD_LIMIT
DEF BATCHES = 32
MAX_BATCHES = BATCHES


DEF CONTEXTS = 64
DEF AS_IT_IS = -1

# A context has more than a kilobyte, and most connections are idle: those at work have one each, as long as no other takes
# its place. To set a key costs a fraction of what a packet does.
cdef Ready[CONTEXTS] _sealers
cdef Ready[CONTEXTS] _openers
cdef unsigned char[32] _NO_KEY
cdef unsigned long long _last = 0
memset(_sealers, 0, sizeof(_sealers))
memset(_openers, 0, sizeof(_openers))
memset(_NO_KEY, 0, 32)


cdef class Cipher:
    """AES-256-GCM under one key (EVP_EncryptInit(3))."""

    def __cinit__(self, bytes key not None):
        global _last
        if len(key) != 32:
            raise ValueError("an AES-256 key has 32 bytes")
        memcpy(self._key, PyBytes_AS_STRING(key), 32)
        _last += 1
        self._number = _last

    def __dealloc__(self):
        self._forget(_sealers)
        self._forget(_openers)
        memset(self._key, 0, 32)

    cdef void _forget(self, Ready *pool) noexcept:
        """No context of the pool has this key in it any more."""
        cdef Ready *ready = &pool[self._number % CONTEXTS]
        if ready.owner == self._number:
            EVP_CipherInit_ex(ready.context, NULL, NULL, _NO_KEY, NULL, AS_IT_IS)
            ready.owner = 0

    cdef EVP_CIPHER_CTX *_ready(self, Ready *pool, int encrypts) except NULL:
        """The context with this key in it, of the pool for that direction (EVP_CipherInit_ex(3): 1 encrypts)."""
        cdef Ready *ready = &pool[self._number % CONTEXTS]
        if ready.owner == self._number:
            return ready.context
        ready.owner = 0
        if ready.context == NULL:
            ready.context = EVP_CIPHER_CTX_new()
            if (ready.context == NULL
                    or EVP_CipherInit_ex(ready.context, EVP_aes_256_gcm(), NULL, NULL, NULL, encrypts) != 1):
                raise MemoryError("libcrypto gave no AES-256-GCM")
        if EVP_CipherInit_ex(ready.context, NULL, NULL, self._key, NULL, encrypts) != 1:
            raise RuntimeError("libcrypto failed to take a key")
        ready.owner = self._number
        return ready.context

    def seal(self, unsigned long long wire, data, bytes header not None):
        cdef Py_buffer view
        cdef bytes sealed
        cdef unsigned char *out
        if len(header) != HEADER_SIZE:
            raise ValueError("a record's header has 6 bytes")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            sealed = PyBytes_FromStringAndSize(NULL, view.len + TAG_SIZE)
            out = <unsigned char *>PyBytes_AS_STRING(sealed)
            self._seal(wire, <const unsigned char *>PyBytes_AS_STRING(header), <const unsigned char *>view.buf,
                       <int>view.len, out)
        finally:
            PyBuffer_Release(&view)
        return sealed

    def open(self, unsigned long long wire, sealed, header):
        cdef Py_buffer view, head
        cdef bytes opened
        cdef bint right
        PyObject_GetBuffer(sealed, &view, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(header, &head, PyBUF_SIMPLE)
            try:
                if head.len != HEADER_SIZE:
                    raise ValueError("a record's header has 6 bytes")
                if view.len < TAG_SIZE:
                    return None
                opened = PyBytes_FromStringAndSize(NULL, view.len - TAG_SIZE)
                right = self._open(wire, <const unsigned char *>head.buf, <const unsigned char *>view.buf,
                                   <int>view.len - TAG_SIZE, <unsigned char *>PyBytes_AS_STRING(opened))
            finally:
                PyBuffer_Release(&head)
        finally:
            PyBuffer_Release(&view)
        return opened if right else None

    cdef int _seal(self, unsigned long long wire, const unsigned char *header, const unsigned char *data, int length,
                   unsigned char *out) except -1:
        """Ciphertext and tag of one record, at `out`."""
        cdef EVP_CIPHER_CTX *context = self._ready(_sealers, 1)
        cdef unsigned char nonce[12]
        cdef int done = 0
        write_nonce(nonce, wire)
        if (EVP_EncryptInit_ex(context, NULL, NULL, NULL, nonce) != 1
                or EVP_EncryptUpdate(context, NULL, &done, header, HEADER_SIZE) != 1
                or EVP_EncryptUpdate(context, out, &done, data, length) != 1
                or EVP_EncryptFinal_ex(context, out + length, &done) != 1
                or EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, out + length) != 1):
            raise RuntimeError("libcrypto failed to encrypt")
        return 0

    cdef int _open(self, unsigned long long wire, const unsigned char *header, const unsigned char *data, int length,
                   unsigned char *out) except -1:
        """1 and the plaintext at `out` if the tag behind `data` is right; else 0, and what is at `out` is void."""
        cdef EVP_CIPHER_CTX *context = self._ready(_openers, 0)
        cdef unsigned char nonce[12]
        cdef int done = 0
        write_nonce(nonce, wire)
        if (EVP_DecryptInit_ex(context, NULL, NULL, NULL, nonce) != 1
                or EVP_DecryptUpdate(context, NULL, &done, header, HEADER_SIZE) != 1
                or EVP_DecryptUpdate(context, out, &done, data, length) != 1
                or EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, <void *>(data + length)) != 1):
            raise RuntimeError("libcrypto failed to decrypt")
        return EVP_DecryptFinal_ex(context, out + length, &done) == 1


cdef class Reply:
    """A packet that leaves: headers, and a payload that stands elsewhere."""

    def __cinit__(self):
        self.head = <unsigned char *>malloc(HEAD_ROOM)
        self.room = <unsigned char *>malloc(BODY_ROOM)
        self.lead = <unsigned char *>malloc(LEAD_LIMIT)
        if self.head == NULL or self.room == NULL or self.lead == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.head)
        free(self.room)
        free(self.lead)

    cdef const unsigned char *body(self) noexcept:
        if self.blob is None:
            return self.room
        return <const unsigned char *>PyBytes_AS_STRING(self.blob)

    def whole(self):
        return (PyBytes_FromStringAndSize(<char *>self.head, self.head_length)
                + PyBytes_FromStringAndSize(<const char *>self.body(), self.body_length))


cdef class Region:
    """Writable memory of another object, which stays as long as this."""

    def __cinit__(self, target not None):
        PyObject_GetBuffer(target, &self._view, PyBUF_WRITABLE)

    def __dealloc__(self):
        PyBuffer_Release(&self._view)


cdef class Slot:
    """Two numbers of 64 bits at one place of a region."""

    def __cinit__(self, Region region not None, Py_ssize_t at):
        if at < 0 or at + 16 > region._view.len:
            raise ValueError("a slot is inside its region")
        self._region = region
        self._at = <unsigned char *>region._view.buf + at

    cpdef write(self, unsigned long long first, unsigned long long second):
        memcpy(self._at, &first, 8)
        memcpy(self._at + 8, &second, 8)


cdef bytes key_of(const unsigned char *packet, bint ipv6):
    if ipv6:
        return PyBytes_FromStringAndSize(<const char *>packet + 8, 36)
    return PyBytes_FromStringAndSize(<const char *>packet + 12, 12)


cdef void copy_head(Reply reply, const unsigned char *packet, int length) noexcept:
    memcpy(reply.head, packet, length)
    reply.head_length = length
    reply.body_length = 0
    reply.blob = None


cdef void take_blob(Reply reply, bytes blob) noexcept:
    reply.blob = blob
    reply.body_length = <int>len(blob)


cdef void take_lead(Reply reply, int start):
    take_blob(reply, PyBytes_FromStringAndSize(<char *>reply.lead + start, reply.lead_length - start))


cdef bytes seal(Cipher cipher, long long wire, long long plain, const unsigned char *packet, int at, int length, int size):
    cdef int records = (length + size - 1) // size
    cdef bytes sealed = PyBytes_FromStringAndSize(NULL, length + records * (HEADER_SIZE + TAG_SIZE))
    cdef unsigned char *out = <unsigned char *>PyBytes_AS_STRING(sealed)
    cdef const unsigned char *data = packet + at
    cdef int count
    while length > 0:
        count = size if length > size else length
        prim_put16(out, count)
        prim_put32(out + 2, <unsigned int>plain)
        cipher._seal(wire, out, data, count, out + HEADER_SIZE)
        out += count + HEADER_SIZE + TAG_SIZE
        wire += count + HEADER_SIZE + TAG_SIZE
        data += count
        plain += count
        length -= count
    return sealed


cdef void no_lead(Reply reply) noexcept:
    reply.lead_length = 0


cdef bint add_lead(Reply reply, bytearray page, int at, int length) except -1:
    if reply.lead_length + length > LEAD_LIMIT:
        return False
    memcpy(reply.lead + reply.lead_length, PyByteArray_AS_STRING(page) + at, length)
    reply.lead_length += length
    return True


cdef bytearray room(Py_ssize_t length):
    return PyByteArray_FromStringAndSize(NULL, length)


cdef int digits(unsigned long long number) noexcept:
    return 64 - __builtin_clzll(number) if number else 0


cdef void copy_into(bytearray page, int at, const unsigned char *packet, int start, int length) noexcept:
    memcpy(PyByteArray_AS_STRING(page) + at, packet + start, length)


cdef int open_records(Cipher cipher, long long wire, long long plain, const unsigned char *packet, int at, int length,
                      Reply reply, int limit) except -2:
    cdef const unsigned char *record = packet + at
    cdef const unsigned char *source
    cdef int count, whole, used, lead = reply.lead_length, opened = 0, batch = -1, batch_size = 0
    cdef int consumed = 0
    cdef unsigned char *room = reply.room + reply.body_length
    cdef bint last = True
    reply.batches = reply.consumed = 0
    reply.blob = None
    limit = (BODY_ROOM if limit > BODY_ROOM else limit) - reply.body_length
    while lead + length >= HEADER_SIZE + TAG_SIZE:
        source, used = record, 0
        if lead:
            if lead < HEADER_SIZE:
                used = HEADER_SIZE - lead
                memcpy(reply.lead + lead, record, used)
            source = reply.lead
        count = prim_u16(source)
        if count >= FINAL_BIT or not count:
            return -1
        whole = count + HEADER_SIZE + TAG_SIZE
        if whole > lead + length:
            break
        if whole <= lead or opened + count > limit or prim_u32(source + 2) != <unsigned int>plain:
            return -1
        if lead:
            memcpy(reply.lead + lead + used, record + used, whole - lead - used)
        if not cipher._open(wire, source, source + HEADER_SIZE, count, room + opened):
            return -1
        # The first record that a packet before this one began makes a batch of its own, as it does in Ingress.
        if last or count > batch_size:
            batch += 1
            if batch == BATCHES:
                return -1
            batch_size = reply.sizes[batch] = count
            reply.lengths[batch] = 0
        last = count < batch_size or lead > 0
        reply.lengths[batch] += count
        opened += count
        plain += count
        wire += whole
        used = whole - lead
        record += used
        length -= used
        consumed += used
        lead = 0
    reply.batches = batch + 1
    reply.body_length += opened
    reply.consumed = consumed
    return opened


cdef void go_on(Reply reply, const unsigned char *packet, int at, int length) noexcept:
    cdef int begin = 0 if reply.batches else reply.lead_length
    memcpy(reply.lead + begin, packet + at + reply.consumed, length - reply.consumed)
    reply.lead_length = begin + length - reply.consumed


cdef void remember(Reply reply, const unsigned char *packet, int tcp_at) noexcept:
    reply.tcp_at = tcp_at
    memcpy(reply.seen, packet + tcp_at + 8, 8)


cdef bint is_alike(Reply reply, const unsigned char *packet) noexcept:
    cdef const unsigned char *head = reply.head
    cdef int tcp_at = reply.tcp_at
    cdef int options = reply.head_length - tcp_at - 20
    if tcp_at == 20:
        # Not the length, the identification and the checksum.
        if memcmp(head, packet, 2) or memcmp(head + 6, packet + 6, 4) or memcmp(head + 12, packet + 12, 12):
            return False
    elif memcmp(head, packet, 4) or memcmp(head + 6, packet + 6, 38):
        return False
    packet += tcp_at
    # Acknowledgement, data offset and window as they came; PSH may differ.
    return (not memcmp(reply.seen, packet + 8, 5) and not (reply.seen[5] ^ packet[13]) & 0xF7
            and not memcmp(reply.seen + 6, packet + 14, 2) and not memcmp(head + tcp_at + 20, packet + 20, options))


cdef void add_flags(Reply reply, int tcp_at, const unsigned char *packet) noexcept:
    reply.head[tcp_at + 13] |= packet[tcp_at + 13]


cdef unsigned long long _protocol_and_length(int length) noexcept:
    """The end of the pseudo header (RFC 9293 section 3.1), summed."""
    cdef unsigned char words[4]
    prim_put16(words, 6)
    prim_put16(words + 2, length)
    return prim_add(words, 4)


cdef void finish(Reply reply, int tcp_at, bint ipv6) noexcept:
    cdef unsigned char *head = reply.head
    cdef int total = reply.head_length + reply.body_length
    cdef unsigned long long pseudo
    cdef unsigned int check
    prim_put32(head + tcp_at + 16, 0)  # checksum and urgent pointer
    if ipv6:
        prim_put16(head + 4, total - 40)
        pseudo = prim_add(head + 8, 32)
    else:
        prim_put16(head + 2, total)
        prim_put16(head + 10, 0)
        check = ~prim_fold(prim_add(head, tcp_at)) & 0xFFFF
        memcpy(head + 10, &check, 2)
        pseudo = prim_add(head + 12, 8)
    pseudo += _protocol_and_length(total - tcp_at)
    pseudo += prim_add(head + tcp_at, reply.head_length - tcp_at) + prim_add(reply.body(), reply.body_length)
    check = ~prim_fold(pseudo) & 0xFFFF
    memcpy(head + tcp_at + 16, &check, 2)


cdef bint checksum_is_right(const unsigned char *packet, int length, int tcp_at, bint ipv6) noexcept:
    cdef unsigned long long total = prim_add(packet + 8, 32) if ipv6 else prim_add(packet + 12, 8)
    total += _protocol_and_length(length - tcp_at)
    total += prim_add(packet + tcp_at, length - tcp_at)
    return prim_fold(total) == 0xFFFF
