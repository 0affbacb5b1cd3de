"""Python's garbage collector in a process that serves."""

from __future__ import annotations

import gc


def settle() -> None:
    """Set what was made for the start aside, and have the collector look less often at what requests make.

    For a process of our own that is about to serve: an application that embeds the sessions decides itself.
    """
    # What imports made, 30 000 objects, stays for good: each full collection looked at it for 12 ms.
    gc.collect()
    gc.freeze()
    # After 10 000 objects more than were freed, not 700: requests in flight are not garbage. Of the CPU time
    # it takes 0-0.7 % instead of 3-8 %, and a look at 10 000 objects takes 1.2 ms.
    gc.set_threshold(10_000, 10, 10)
