# Types with which ledger.py is compiled.

cimport cython

cpdef long long unwrap(long long number, long long near)


cdef class Run:
    cdef public long long plain, wire, size, count, plain_end, wire_end, segment, lead
    cdef public bytes blob

    cpdef long long wire_floor(self, long long plain)
    cpdef long long plain_floor(self, long long wire)
    cpdef long long plain_ceil(self, long long wire)
    cpdef bint takes(self, long long length)
    cpdef long long boundary(self, long long index)
    cpdef bint is_boundary(self, long long wire)


@cython.locals(run=Run)
cpdef Run run_of(long long plain, long long wire, long long length, long long size, bytes blob, long long segment)


cdef class Ledger:
    cdef public long long origin, plain_base, wire_base, plain_edge, wire_edge, plain_top, wire_top
    cdef public long long bytes_inserted, records_inserted
    cdef public list runs
    cdef public long long _acked

    cpdef object append(self, Run run)
    cpdef bint insert(self, Run run)
    cpdef bint extend(self, long long plain, long long wire, long long length, long long size, long long count)
    cpdef bint _place(self, long long plain, long long wire, long long length)
    cpdef long long at_plain(self, long long plain)
    cpdef long long at_wire(self, long long wire)
    cpdef long long wire_floor(self, long long plain)
    cpdef long long plain_floor(self, long long wire)
    cpdef bint is_boundary(self, long long wire)
    @cython.locals(runs=list, acked=cython.Py_ssize_t, count=cython.Py_ssize_t, run=Run, last=Run)
    cpdef object forget(self, long long wire)
    cpdef bint _has_room(self, long long wire)
    cpdef tuple floor(self, long long wire)
    cpdef long long record_end(self, long long wire)
