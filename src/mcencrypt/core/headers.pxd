# What headers.pyx offers to compiled callers; headers.py says what each function means.

cpdef object dissect(object packet)
cpdef bytes source_first(object packet)
cpdef bint checksum_is_right(object packet, int tcp_at) except -1
cpdef bytes rebuilt(object old, int tcp_at, int payload_at, bytes options, tuple payload, object seq, object ack, int flags,
                    int window, int identification_step)
cpdef tuple syn_options(object options, int mss, int limit, int overhead, int smallest)
