# Types with which receiving.py is compiled.

from mcencrypt.core.egress cimport Egress
from mcencrypt.core.ingress cimport Ingress
from mcencrypt.core.prim cimport Slot


cdef class Receiving:
    cdef public bytes key, identity
    cdef public object outcome, withheld
    cdef public Slot positions
    cdef public Egress egress
    cdef public Ingress ingress
    cdef public long long remote_scale, ts_recent, marked
    cdef public bint closing, confirmed, streamed
    cdef public long long _last_ack, _last_window, _spoilt_edge
    cdef public double seen, _spoilt_since

    cpdef object note_positions(self)
    cpdef object heard(self, long long ack_wire, long long ack_plain, long long window, long long right, long long shown)
