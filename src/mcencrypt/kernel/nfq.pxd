from mcencrypt.core.prim cimport Reply

cdef class Message:
    cdef int fd
    cdef unsigned char *packet
    cdef readonly int length
    cdef readonly unsigned int skb_info, device
    cdef readonly bint outgoing
    cdef unsigned char *_buffer
    cdef unsigned int _id
    cdef int _layout_payload, _layout_info

    cpdef object view(self)

cpdef int receive(Message message) except -2
cpdef bint accept(int queue, Message message) except -1
cpdef bint drop(int queue, Message message) except -1
cpdef bint replace(int queue, Message message, bytes packet) except -1
cpdef bint replace_by(int queue, Message message, Reply reply) except -1
cpdef int wait(Message message, int other, double seconds) except -2
cdef double monotonic() noexcept
cdef void pause(double seconds) noexcept
