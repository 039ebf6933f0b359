"""Memory that is freed, and wanted again by the next call.

A large graph takes some 60 MB while it is computed. What lies free at the end of glibc's heap goes back to the system
past twice a threshold, and so does every block over it at once. In a young process the threshold is some MB, and each
call had 9,000 pages to fault in anew, zeroed: 10 to 27 ms of processor time. It follows the largest block that was
mapped and freed so far, up to 32 MiB: "Dynamic mmap threshold" in mallopt(3).
"""

import torch

__all__ = ["keep_freed_memory"]

_LARGEST_BYTES = 32 * 2**20 - 2**16
"""What glibc's threshold may rise to, less what it adds to a block."""


def keep_freed_memory() -> None:
    """Take a block and free it, untouched: from now on the process keeps up to 64 MiB that are freed.

    It does nothing where the host has another allocator, or has set that threshold.
    """
    torch.empty(_LARGEST_BYTES, dtype=torch.uint8, device="cpu")
