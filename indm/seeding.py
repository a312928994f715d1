"""Seeds derived from the name of the computation, so that no result depends on the order in which jobs run."""

import hashlib


def derive_seed(*identity: str | int) -> int:
    """Derive a 63-bit seed from an identity such as ``(run, seed, stage, step)``: the first 63 bits of its SHA-256 sum.

    .. math:: s = \\lfloor \\mathrm{SHA256}(\\text{identity}) / 2^{193} \\rfloor

    The sum is computed over the parts of the identity as text, with the control character U+001F between them. Two different
    identities give unrelated seeds; the same identity gives the same seed on every machine.
    """
    text = "\x1f".join(str(part) for part in identity)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
