"""mcencrypt: every byte between MultiChain nodes encrypted and authenticated, without touching multichaind."""

import os

if os.environ.get("MCENCRYPT_INTERPRETED"):
    from mcencrypt import interpreted

    interpreted.choose()
