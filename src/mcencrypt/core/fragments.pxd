# Types with which fragments.py is compiled.

cimport cython
cimport mcencrypt.core.prim as prim


cdef class Pool:
    cdef public long long limit, memory
    cdef public list _by_size


cdef class Fragments:
    cdef public dict _pages
    cdef public list _starts, _ends
    cdef public Pool _pool
    cdef public long long memory, limit

    @cython.locals(end=cython.longlong, begin=cython.longlong, count=cython.longlong)
    cdef bint put(self, long long wire, const unsigned char *packet, int at, int length) except -1
    @cython.locals(
        starts=list, ends=list, pages=dict, first=cython.Py_ssize_t, behind=cython.Py_ssize_t, start=cython.longlong,
        stop=cython.longlong, number=cython.longlong,
    )
    cpdef bint _reserve(self, long long wire, long long end) except -1
    cpdef long long tail(self, long long wire) except? -2
    @cython.locals(begin=cython.longlong, count=cython.longlong)
    cpdef bint lead(self, prim.Reply reply, long long start, long long end) except -1
    @cython.locals(starts=list, ends=list, first=cython.Py_ssize_t, behind=cython.Py_ssize_t, number=cython.longlong)
    cpdef object drop(self, long long start, long long end)
    @cython.locals(memory=cython.longlong, number=cython.longlong)
    cpdef bint _make_room(self, long long wire, long long end) except -1
    @cython.locals(index=cython.Py_ssize_t)
    cpdef bint _touches(self, long long number) except -1
    @cython.locals(before=cython.longlong)
    cpdef object _settle(self)
