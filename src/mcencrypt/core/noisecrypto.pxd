# What noisecrypto.pyx offers to compiled callers; noisecrypto.py says what each function means.

cpdef bytes sha256(bytes first, bytes second)
cpdef bytes hkdf(bytes chaining_key, bytes material, int outputs)
cpdef bytes encrypt(bytes key, unsigned long long number, bytes plaintext, bytes associated)
cpdef bytes decrypt(bytes key, unsigned long long number, bytes sealed, bytes associated)
