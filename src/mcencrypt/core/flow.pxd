# Types with which flow.py is compiled.

cimport cython
from mcencrypt.core.ingress cimport Ingress
from mcencrypt.core.receiving cimport Receiving


cdef class Flow(Receiving):
    cdef public bytes hello, key_id
    cdef public object path, paths, carrier
    cdef public long long paths_version, kernel_mtu, path_mtu, mss, local_scale
    cdef public bint outgoing
    cdef public double created
    cdef public object _template

    @cython.locals(ingress=Ingress, edge=cython.longlong)
    cpdef long long promise(self) except -1
