# Types with which fragments.py is compiled.

cimport cython
cimport mcencrypt.core.prim as prim


cdef class Fragments


cdef class Pool:
    cdef public long long limit, memory
    cdef public list _by_size

    @cython.locals(old=cython.int, new=cython.int)
    cpdef object changed(self, Fragments holder, long long before)


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
    @cython.locals(starts=list, ends=list, index=cython.Py_ssize_t)
    cpdef long long reach(self, long long wire) except? -2
    @cython.locals(at=cython.Py_ssize_t, high=cython.int, low=cython.int, page=bytearray)
    cpdef int u16(self, long long wire) except -1
    @cython.locals(begin=cython.longlong, count=cython.longlong)
    cpdef bint lead(self, prim.Reply reply, long long start, long long end) except -1
    @cython.locals(
        starts=list, ends=list, first=cython.Py_ssize_t, behind=cython.Py_ssize_t, index=cython.Py_ssize_t,
        begin=cython.longlong, stop=cython.longlong, number=cython.longlong,
    )
    cpdef object drop(self, long long start, long long end)
    @cython.locals(pool=Pool, memory=cython.longlong, number=cython.longlong)
    cpdef bint _make_room(self, long long wire, long long end) except -1
    @cython.locals(starts=list, ends=list, index=cython.Py_ssize_t)
    cpdef bint _touches(self, long long number) except -1
    @cython.locals(before=cython.longlong)
    cpdef object _settle(self)
