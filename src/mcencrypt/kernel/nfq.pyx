# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of nfq.py, which says what each function means."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_WRITE
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from mcencrypt.core.prim cimport Reply

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <errno.h>
    #include <poll.h>
    #include <stdint.h>
    #include <string.h>
    #include <time.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <linux/netfilter.h>
    #include <linux/netfilter/nfnetlink.h>
    #include <linux/netfilter/nfnetlink_queue.h>
    #include <linux/netlink.h>

    #define NFQ_BUFFER (1 << 17)

    static double nfq_monotonic(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec + now.tv_nsec * 1e-9;
    }

    static void nfq_pause(double seconds) {
        struct timespec time = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
        nanosleep(&time, NULL);
    }

    static int nfq_poll(int first, int second, int milliseconds) {
        struct pollfd both[2] = {{first, POLLIN, 0}, {second, POLLIN, 0}};
        int ready = poll(both, 2, milliseconds);
        if (ready < 0) return errno == EINTR ? 0 : -errno;
        return (both[0].revents ? 1 : 0) | (both[1].revents ? 2 : 0);
    }

    /* 1: sent; 0: refused, and errno says why. */
    static int nfq_send(int fd, int queue, uint32_t id, int accept, const void *head, int head_length,
                        const void *body, int body_length) {
        static const unsigned char padding[4];
        struct {
            struct nlmsghdr netlink;
            struct nfgenmsg netfilter;
            struct nlattr verdict_attribute;
            struct nfqnl_msg_verdict_hdr verdict;
            struct nlattr payload;
        } message;
        int payload = head_length + body_length, fixed = sizeof message - (payload ? 0 : sizeof message.payload);
        memset(&message, 0, sizeof message);
        message.netlink.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT;
        message.netlink.nlmsg_flags = NLM_F_REQUEST;
        message.netlink.nlmsg_len = fixed + NLMSG_ALIGN(payload);
        message.netfilter.res_id = htons(queue);
        message.verdict_attribute.nla_type = NFQA_VERDICT_HDR;
        message.verdict_attribute.nla_len = sizeof message.verdict_attribute + sizeof message.verdict;
        message.verdict.verdict = htonl(accept ? NF_ACCEPT : NF_DROP);
        message.verdict.id = id;
        message.payload.nla_type = NFQA_PAYLOAD;
        message.payload.nla_len = sizeof message.payload + payload;
        struct iovec parts[4] = {{&message, fixed}, {(void *)head, head_length}, {(void *)body, body_length},
                                 {(void *)padding, -payload & 3}};
        struct msghdr out;
        memset(&out, 0, sizeof out);
        out.msg_iov = parts;
        out.msg_iovlen = 4;
        return sendmsg(fd, &out, 0) == (ssize_t)message.netlink.nlmsg_len;
    }
    """
    int NFQ_BUFFER
    double nfq_monotonic() noexcept nogil
    void nfq_pause(double seconds) nogil
    int nfq_poll(int first, int second, int milliseconds) nogil
    int nfq_send(int fd, int queue, uint32_t id, int accept, const void *head, int head_length, const void *body,
                 int body_length) nogil

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    int MSG_DONTWAIT

DEF PACKET = 3 << 8            # NFNL_SUBSYS_QUEUE, NFQNL_MSG_PACKET
DEF FIRST_ATTRIBUTE = 20       # behind struct nlmsghdr and struct nfgenmsg: NFQA_PACKET_HDR
DEF ID_AT = 24
DEF HOOK_AT = 30               # in struct nfqnl_msg_packet_hdr
DEF LOCAL_OUT = 3
DEF IFINDEX_INDEV = 5
DEF IFINDEX_OUTDEV = 6
DEF PAYLOAD = 10
DEF SKB_INFO = 14
DEF LIMIT = 65531             # above it nla_len wraps


cdef class Message:
    """A packet as the kernel handed it over: valid until the next `receive`."""

    def __cinit__(self, channel):
        self.fd = channel.fileno()
        self._buffer = <unsigned char *>malloc(NFQ_BUFFER)
        if self._buffer == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self._buffer)

    cpdef object view(self):
        return PyMemoryView_FromMemory(<char *>self.packet, self.length, PyBUF_WRITE)


cdef inline unsigned int _native16(const unsigned char *at) noexcept:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return value


cdef inline unsigned int _native32(const unsigned char *at) noexcept:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline unsigned int _big32(const unsigned char *at) noexcept:
    return <unsigned int>at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3]


cpdef int receive(Message message) except -2:
    cdef int fd = message.fd
    cdef unsigned char *buffer = message._buffer
    cdef ssize_t length
    cdef int at, size, kind
    with nogil:
        length = recv(fd, buffer, NFQ_BUFFER, MSG_DONTWAIT)
    if length < 0:
        if errno == ENOBUFS:
            return -1
        if errno == EAGAIN or errno == EINTR:
            return 0
        raise OSError(errno, "the netfilter queue's socket failed")
    if length < HOOK_AT + 1 or _native16(buffer + 4) != PACKET or _native32(buffer) > length:
        return 2
    message._id = _native32(buffer + ID_AT)
    message.outgoing = buffer[HOOK_AT] == LOCAL_OUT
    message.skb_info = message.device = 0
    message.length = 0
    message.packet = buffer
    at = FIRST_ATTRIBUTE
    while at + 4 <= length:
        size, kind = _native16(buffer + at), _native16(buffer + at + 2) & 0x3FFF
        if size < 4 or at + size > length:
            break
        if kind == SKB_INFO and size == 8:
            message.skb_info = _big32(buffer + at + 4)
        elif (kind == IFINDEX_INDEV or kind == IFINDEX_OUTDEV) and size == 8:
            message.device = _big32(buffer + at + 4)
        elif kind == PAYLOAD:
            message.packet = buffer + at + 4
            message.length = size - 4
        at += (size + 3) & ~3
    return 1


cpdef bint accept(int queue, Message message) except -1:
    return nfq_send(message.fd, queue, message._id, 1, NULL, 0, NULL, 0)


cpdef bint drop(int queue, Message message) except -1:
    return nfq_send(message.fd, queue, message._id, 0, NULL, 0, NULL, 0)


cpdef bint replace(int queue, Message message, bytes packet) except -1:
    if not 0 < len(packet) <= LIMIT:
        return False
    return nfq_send(message.fd, queue, message._id, 1, PyBytes_AS_STRING(packet), <int>len(packet), NULL, 0)


cpdef bint replace_by(int queue, Message message, Reply reply) except -1:
    if not 0 < reply.head_length + reply.body_length <= LIMIT:
        return False
    return nfq_send(message.fd, queue, message._id, 1, reply.head, reply.head_length, reply.body(), reply.body_length)


cpdef int wait(Message message, int other, double seconds) except -2:
    cdef int ready, own = message.fd, milliseconds = -1
    if seconds >= 0:
        milliseconds = <int>(seconds * 1000) + (seconds > 0) if seconds < 2000000 else 2000000000
    with nogil:
        ready = nfq_poll(own, other, milliseconds)
    if ready < 0:
        raise OSError(-ready, "poll failed")
    return ready


cdef double monotonic() noexcept:
    return nfq_monotonic()


cdef void pause(double seconds) noexcept:
    with nogil:
        nfq_pause(seconds)
