"""Give memory that this process has freed back to the system."""

from __future__ import annotations

import ctypes


def return_free_memory() -> bool:
    """Ask the C library to hand freed heap pages back; whether it did. A no-op away from glibc.

    Tensors of up to 32 MiB come from glibc's heap, which keeps freed blocks: without this, replacing a model's weights
    one by one leaves hundreds of megabytes resident that nothing uses.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(trim(0)) if trim is not None else False
