# Types with which record.py is compiled.

from mcencrypt.core.prim cimport Cipher


cdef class Keys:
    cdef public long long epoch_bits, until
    cdef public Cipher current
    cdef public long long _epoch
    cdef public bytes _base
    cdef public dict _ciphers


cdef class Opened:
    cdef public list chunks
    cdef public long long consumed, plain_length, plain
    cdef public bint final, forged
