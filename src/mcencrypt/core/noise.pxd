# Types with which noise.py is compiled.

cimport cython
cimport mcencrypt.core.noisecrypto as noisecrypto


cdef class KeyPair:
    cdef readonly object private
    cdef readonly bytes public
    cdef bytes _partner, _product

    cpdef expect(self, bytes public)

    cpdef bytes exchange(self, bytes public)


cdef class SymmetricState:
    cdef readonly bytes h
    cdef bytes _ck
    cdef bytes _k
    cdef unsigned long long _n

    cpdef SymmetricState copy(self)

    cpdef mix_hash(self, bytes data)

    @cython.locals(keys=bytes)
    cpdef mix_key(self, bytes material)

    @cython.locals(keys=bytes)
    cpdef mix_key_and_hash(self, bytes material)

    @cython.locals(ciphertext=bytes)
    cpdef bytes encrypt_and_hash(self, bytes plaintext)

    @cython.locals(plaintext=bytes)
    cpdef bytes decrypt_and_hash(self, bytes ciphertext)

    @cython.locals(keys=bytes)
    cpdef tuple split(self)


cdef class Initiator:
    cdef KeyPair _static, _ephemeral
    cdef SymmetricState _symmetric
    cdef public bytes remote_static


cdef class Responder:
    cdef KeyPair _static
    cdef public SymmetricState _symmetric
    cdef public bytes remote_ephemeral, remote_static

    cpdef tuple write_message_2(self, bytes payload, KeyPair ephemeral)
