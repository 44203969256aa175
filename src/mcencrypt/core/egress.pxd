# Types with which egress.py is compiled.

from mcencrypt.core.ledger cimport Ledger, Run
from mcencrypt.core.record cimport Keys


cdef class Egress:
    cdef public long long isn, una, plain_una, right_edge, shown_edge, largest_window, sent, forced
    cdef public long long bytes_sealed, records_sealed, retransmissions, calm_from
    cdef public Keys keys
    cdef public Ledger ledger
    cdef public list sacked
    cdef public bytes held
    cdef public object final_plain

    cpdef bint has_room(self, long long length)
    cpdef long long shown_window(self, long long right, long long plain)
    cpdef object prune(self, long long wire, long long plain)


cpdef tuple sizes(bint gso, long long payload, long long held, long long mss, long long options, bint calm)
