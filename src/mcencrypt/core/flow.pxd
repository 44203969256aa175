# Types with which flow.py is compiled.

from mcencrypt.core.egress cimport Egress
from mcencrypt.core.ingress cimport Ingress


cdef class Flow:
    cdef public bytes key, hello, identity, key_id
    cdef public object path, outcome, positions
    cdef public Egress egress
    cdef public Ingress ingress
    cdef public object paths
    cdef public long long paths_version, shown_mtu, path_mtu, mss
    cdef public long long local_scale, remote_scale
    cdef public double created, seen
    cdef public bint closing, confirmed
    cdef long long _last_ack, _last_window
    cdef object _template

    cpdef object heard(self, long long ack_wire, long long ack_plain, long long shown, long long right)
