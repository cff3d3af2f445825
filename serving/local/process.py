"""Settings of the process that suit a server: memory that does not grow with its threads, and short pauses."""

import ctypes
import gc

_M_ARENA_MAX = -8  # From malloc.h of the GNU C library.
_ARENAS = 2


def share_memory_among_threads() -> None:
    """Lets threads share memory, where each would keep as much for itself as its largest request has needed.

    The C library takes notice of it only before the process starts its first thread.
    """
    set_malloc_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_malloc_option is not None:
        set_malloc_option(_M_ARENA_MAX, _ARENAS)


def spare_libraries_from_garbage_collection() -> None:
    """Takes all objects that exist now out of later garbage collections; to be called when libraries are imported.

    A collection stops all threads. Among the objects of TensorFlow's modules, which stay for ever, it took .3 s, at
    almost every load of a version.
    """
    gc.collect()
    gc.freeze()
