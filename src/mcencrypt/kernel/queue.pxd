# Types with which queue.py is compiled.

cimport cython
cimport mcencrypt.kernel.nfq as nfq
from mcencrypt.core.fast cimport Express
from mcencrypt.core.prim cimport Reply


cdef class Queue:
    cdef public int number
    cdef public long long enobufs, bad_verdicts
    cdef public object behind
    cdef object _decide, _queue, _socket
    cdef Express _express
    cdef Reply _reply
    cdef nfq.Message _first, _second, _message
    cdef bint _logged

    @cython.locals(message=nfq.Message, held=nfq.Message, reply=Reply, express=Express, kind=cython.int, ready=cython.int, asked=cython.bint,
                   alone=cython.bint, waited=cython.bint, patience=cython.int,
                   before=cython.double, now=cython.double)
    cpdef bint serve(self, int other, double seconds) except -1

    @cython.locals(current=nfq.Message)
    cdef object _ask(self, nfq.Message message, object packet)

    @cython.locals(express=Express)
    cdef bint _grows(self, nfq.Message message) except -1

    @cython.locals(express=Express)
    cdef bint _give(self, nfq.Message message) except -1

    cdef int _failed(self, nfq.Message message) except -1
