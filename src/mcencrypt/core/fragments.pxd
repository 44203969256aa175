# Types with which fragments.py is compiled.


cdef class Fragments:
    cdef public dict _pages
    cdef public list _starts, _ends
    cdef public object _pool
    cdef public long long memory, limit
