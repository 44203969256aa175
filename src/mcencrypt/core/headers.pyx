# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of headers.py, which says what each function means."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy, memset

from mcencrypt.core.prim cimport checksum_is_right as prim_right
from mcencrypt.core.prim cimport prim_add, prim_fold, prim_put16, prim_put32, prim_u16, prim_u32

DEF END = 0
DEF NOP = 1
DEF MSS = 2
DEF WINDOW_SCALE = 3
DEF MD5 = 19
DEF AUTHENTICATION = 29
DEF MPTCP = 30
DEF FAST_OPEN = 34
DEF EXPERIMENT = 254
DEF URG = 0x20
DEF ROOM = 44                 # the 40 bytes that a header has room for, and an MSS


cpdef object dissect(object packet):
    cdef Py_buffer view
    PyObject_GetBuffer(packet, &view, PyBUF_SIMPLE)
    try:
        return _dissect(<const unsigned char *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef object _dissect(const unsigned char *packet, Py_ssize_t length):
    cdef int tcp_at, payload_at, end
    cdef bint ipv6 = False
    if length < 40:
        return "truncated"
    if packet[0] >> 4 == 4:
        tcp_at = (packet[0] & 15) * 4
        end = prim_u16(packet + 2)
        if packet[6] & 0x3F or packet[7]:
            return "fragment"
        if packet[9] != 6:
            return "not-tcp"
        if tcp_at < 20:
            return "malformed"
    elif packet[0] >> 4 == 6:
        ipv6 = True
        tcp_at = 40
        end = 40 + prim_u16(packet + 4)
        if packet[6] != 6:
            return "fragment" if packet[6] == 44 else "extension-header"
    else:
        return "not-ip"
    if end > length:
        return "truncated"
    if end < length or end < tcp_at + 20:
        return "malformed"
    payload_at = tcp_at + (packet[tcp_at + 12] >> 4) * 4
    if payload_at < tcp_at + 20 or payload_at > end:
        return "malformed"
    return (ipv6, tcp_at, payload_at, end, prim_u32(packet + tcp_at + 4), prim_u32(packet + tcp_at + 8),
            <int>packet[tcp_at + 13], prim_u16(packet + tcp_at + 14), _source_first(packet))


cdef bytes _source_first(const unsigned char *packet):
    cdef int tcp_at = (packet[0] & 15) * 4
    cdef unsigned char both[12]
    if packet[0] >> 4 == 6:
        return PyBytes_FromStringAndSize(<const char *>packet + 8, 36)
    if tcp_at == 20:
        return PyBytes_FromStringAndSize(<const char *>packet + 12, 12)
    memcpy(both, packet + 12, 8)
    memcpy(both + 8, packet + tcp_at, 4)
    return PyBytes_FromStringAndSize(<const char *>both, 12)


cpdef bytes source_first(object packet):
    cdef Py_buffer view
    cdef const unsigned char *at
    PyObject_GetBuffer(packet, &view, PyBUF_SIMPLE)
    try:
        at = <const unsigned char *>view.buf
        if view.len < 44 if view.len and at[0] >> 4 == 6 else view.len < 20 or view.len < (at[0] & 15) * 4 + 4:
            raise ValueError("a packet without addresses and ports")
        return _source_first(at)
    finally:
        PyBuffer_Release(&view)


cpdef bint checksum_is_right(object packet, int tcp_at) except -1:
    cdef Py_buffer view
    PyObject_GetBuffer(packet, &view, PyBUF_SIMPLE)
    try:
        if tcp_at < 20 or view.len < tcp_at + 20 or view.len > 0xFFFF + 40:
            raise ValueError("a packet is as long as its headers say")
        return prim_right(<const unsigned char *>view.buf, <int>view.len, tcp_at,
                          (<const unsigned char *>view.buf)[0] >> 4 == 6)
    finally:
        PyBuffer_Release(&view)


cpdef bytes rebuilt(object old, int tcp_at, int payload_at, bytes options, tuple payload, object seq, object ack, int flags,
                    int window, int identification_step):
    cdef Py_buffer view
    cdef Py_ssize_t total, head, option_size = 0
    cdef unsigned int step, sequence = <unsigned int>(seq & 0xFFFFFFFF), acknowledged = <unsigned int>(ack & 0xFFFFFFFF)
    cdef unsigned char *out
    cdef unsigned char *tcp
    cdef unsigned short check
    cdef unsigned long long pseudo
    cdef bytes packet
    cdef object piece
    if options is None:
        head = payload_at
    else:
        option_size = len(options)
        head = tcp_at + 20
    total = head + option_size
    for piece in payload:
        total += len(piece)
    packet = PyBytes_FromStringAndSize(NULL, total)
    out = <unsigned char *>PyBytes_AS_STRING(packet)
    PyObject_GetBuffer(old, &view, PyBUF_SIMPLE)
    try:
        if tcp_at < 20 or tcp_at > 60 or head < tcp_at + 20 or view.len < head or view.len < 1:
            raise ValueError("a packet is as long as its headers say")
        memcpy(out, view.buf, head)
    finally:
        PyBuffer_Release(&view)
    tcp = out + tcp_at
    if options is not None:
        memcpy(out + head, PyBytes_AS_STRING(options), option_size)
        tcp[12] = <unsigned char>((20 + option_size) << 2 | tcp[12] & 0x0F)
        head += option_size
    for piece in payload:
        PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE)
        if head + view.len > total:
            PyBuffer_Release(&view)
            raise ValueError("a payload is of bytes")
        memcpy(out + head, view.buf, view.len)
        head += view.len
        PyBuffer_Release(&view)
    prim_put32(tcp + 4, sequence)
    prim_put32(tcp + 8, acknowledged)
    tcp[13] = <unsigned char>(flags & ~URG)
    prim_put16(tcp + 14, window)
    prim_put32(tcp + 16, 0)  # checksum and urgent pointer
    if out[0] >> 4 == 6:
        prim_put16(out + 4, <unsigned int>(total - 40))
        pseudo = prim_add(out + 8, 32)
    else:
        prim_put16(out + 2, <unsigned int>total)
        if identification_step:
            step = (prim_u16(out + 4) + identification_step) & 0xFFFF
            prim_put16(out + 4, step if step else 1)
        prim_put16(out + 10, 0)
        check = ~prim_fold(prim_add(out, tcp_at)) & 0xFFFF
        memcpy(out + 10, &check, 2)
        pseudo = prim_add(out + 12, 8)
    pseudo += _protocol_and_length(<unsigned int>(total - tcp_at)) + prim_add(tcp, <int>(total - tcp_at))
    check = ~prim_fold(pseudo) & 0xFFFF
    memcpy(tcp + 16, &check, 2)
    return packet


cdef unsigned long long _protocol_and_length(unsigned int length) noexcept:
    """The end of the pseudo header (RFC 9293 section 3.1), summed."""
    cdef unsigned char words[4]
    prim_put16(words, 6)
    prim_put16(words + 2, length)
    return prim_add(words, 4)


cpdef tuple syn_options(object options, int mss, int limit, int overhead, int smallest):
    cdef Py_buffer view
    cdef unsigned char room[ROOM]
    cdef unsigned char *passed = room + 4
    cdef int end, length, kind, at = 0, mss_at = 0, scale = -1
    cdef bint signed = False
    PyObject_GetBuffer(options, &view, PyBUF_SIMPLE)
    try:
        if view.len > ROOM - 4:
            raise ValueError("a TCP header has room for 40 bytes of options")
        end = <int>view.len
        memcpy(passed, view.buf, end)
    finally:
        PyBuffer_Release(&view)
    while at < end:
        kind = passed[at]
        if kind == END:
            break
        if kind == NOP:
            at += 1
            continue
        if at + 1 >= end:
            break
        length = passed[at + 1]
        if length < 2 or at + length > end:
            break
        if kind == MSS and length == 4:
            mss_at = at + 2
            mss = prim_u16(passed + mss_at)
        elif kind == WINDOW_SCALE and length == 3:
            scale = passed[at + 2] if passed[at + 2] < 14 else 14
        elif kind == MD5 or kind == AUTHENTICATION:
            signed = True
        elif kind == MPTCP or kind == FAST_OPEN or (
            kind == EXPERIMENT and length >= 4 and passed[at + 2] == 0xF9 and passed[at + 3] == 0x89
        ):
            memset(passed + at, NOP, length)
        at += length
    if limit >= 0:
        mss = (mss if mss < limit else limit) - overhead
        if mss < smallest:
            mss = smallest
        if mss_at:
            prim_put16(passed + mss_at, mss)
        elif end <= 36:
            passed -= 4
            passed[0] = MSS
            passed[1] = 4
            prim_put16(passed + 2, mss)
            end += 4
    return PyBytes_FromStringAndSize(<char *>passed, end), mss, None if scale < 0 else scale, signed
