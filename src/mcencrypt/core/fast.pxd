# Types with which fast.py is compiled.

cimport cython
cimport mcencrypt.core.prim as prim
from mcencrypt.core.egress cimport Egress, sizes
from mcencrypt.core.flow cimport Flow
from mcencrypt.core.fragments cimport Fragments
from mcencrypt.core.ingress cimport Ingress
from mcencrypt.core.ledger cimport Ledger, Run, run_of, unwrap

cdef int tcp_header(const unsigned char *packet, int length) except -1
cdef int payload_offset(const unsigned char *packet, int length, int tcp_at) except -1

@cython.locals(
    payload_at=cython.int, sending=Egress, receiving=Ingress, ledger=Ledger, known=Ledger, start=cython.longlong,
    plain_ack=cython.longlong, new=cython.int, segment=cython.longlong, calm=cython.bint, size=cython.longlong,
    unit=cython.longlong, end=cython.longlong, blob=bytes, run=Run, wire_ack=cython.longlong,
)
cdef bint egress(Flow flow, const unsigned char *packet, int length, int tcp_at, bint gso, prim.Reply reply) except -1

@cython.locals(
    payload_at=cython.int, sending=Egress, receiving=Ingress, ledger=Ledger, sealed=Ledger, wire=cython.longlong,
    wire_ack=cython.longlong, got=cython.int, stamp=cython.longlong, pieces=Fragments, lead=cython.longlong,
    opened=cython.int,
)
cdef int ingress(Flow flow, const unsigned char *packet, int length, int tcp_at, prim.Reply reply) except -1

@cython.locals(
    sending=Egress, receiving=Ingress, ledger=Ledger, sealed=Ledger, wire=cython.longlong, plain=cython.longlong,
    plain_ack=cython.longlong, right=cython.longlong, shown=cython.longlong,
)
cdef int come(
    Flow flow, long long lead, long long wire_ack, long long stamp, const unsigned char *packet, int tcp_at,
    int payload_at, int got, prim.Reply reply
) except -1

@cython.locals(
    receiving=Ingress, sending=Egress, got=cython.int, lead=cython.int, wire=cython.longlong, bare=cython.bint,
    begin=cython.longlong,
    opened=cython.int, wire_ack=cython.longlong,
)
cdef bint follows(
    Flow flow, const unsigned char *packet, int length, int tcp_at, int payload_at, int kept, prim.Reply reply
) except -1

@cython.locals(receiving=Ingress, ledger=Ledger, limit=cython.longlong)
cdef int open_all(
    Flow flow, long long wire, const unsigned char *packet, int payload_at, int got, prim.Reply reply
) except -2

@cython.locals(ledger=Ledger, batch=cython.int, size=cython.longlong, some=cython.longlong, number=cython.longlong)
cdef int enter(
    Flow flow, long long wire, const unsigned char *packet, int payload_at, int got, prim.Reply reply
) except -1


cdef class Express:
    cdef dict _by_local, _by_remote
    cdef dict _dialling, _answering
    cdef public dict underway
    cdef object _outcome
    cdef Flow _flow
    cdef int _kept, _streak
    cdef double _large_at

    @cython.locals(tcp_at=cython.int, flow=Flow, taken=cython.int)
    cdef bint take(self, const unsigned char *packet, int length, unsigned int skb_info, bint outgoing, double now,
                   prim.Reply reply) except -1

    @cython.locals(flow=Flow, length=cython.int)
    cdef int patience(self, prim.Reply reply, bint alone, double now) except -1

    @cython.locals(flow=Flow, tcp_at=cython.int, payload_at=cython.int)
    cdef bint grow(self, const unsigned char *packet, int length, unsigned int skb_info, bint outgoing,
                   prim.Reply reply) except -1

    cpdef object bare(self, prim.Reply reply)

    @cython.locals(flow=Flow, receiving=Ingress)
    cdef int complete(self, prim.Reply reply) except -1

    cpdef object verdict(self, bytes packet, unsigned int skb_info, bint outgoing, double now, prim.Reply reply=*)

    @cython.locals(packet=bytes)
    cpdef object joined(self, list packets, double now, prim.Reply reply=*)
