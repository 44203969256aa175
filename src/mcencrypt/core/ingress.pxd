# Types with which ingress.py is compiled.

cimport cython
from mcencrypt.core.fragments cimport Fragments
from mcencrypt.core.ledger cimport Ledger, Run
from mcencrypt.core.record cimport Keys, Opened


cdef class Ingress:
    cdef public long long isn, acked, plain_acked, right_edge, plain_right_edge, auth_failures, promised
    cdef public Keys keys
    cdef public Ledger ledger
    cdef public Fragments fragments
    cdef public object final_plain, final_wire, fin_claims
    cdef public object _repeated_at

    @cython.locals(
        acked=cython.longlong, fragments=Fragments, promised=cython.longlong, edge=cython.longlong, end=cython.longlong,
    )
    cpdef long long promise(self) except -1
    cpdef bint is_broken(self) except -1
    cpdef object acknowledge(self, long long wire, long long plain, long long window)
