"""How many names and bytes an open file has, asked so that nobody's next sync becomes slower for it.

Since Linux 6.13 a file whose times were looked at gets new, exact ones from its next write (multigrain timestamps).
That write then changes the inode as well, and the sync after it has more to do: on ext4 0.20 ms instead of 0.14. fstat
always asks for the times; statx asks for what is named to it alone, but Python has no `os.statx` before 3.15.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any, Protocol

# include/uapi/linux/stat.h and fcntl.h: the same on every architecture.
_AT_EMPTY_PATH = 0x1000
_STATX_NLINK = 0x0004
_STATX_SIZE = 0x0200
# Kernels before 4.11 do not know the call, and sandboxes made before it forbid it.
_NOT_TO_BE_HAD = frozenset({errno.ENOSYS, errno.EPERM})


class Status(Protocol):
    """What is asked of a file."""

    @property
    def st_nlink(self) -> int:
        """The number of names."""

    @property
    def st_size(self) -> int:
        """The length in bytes."""


class _Statx(ctypes.Structure):
    """struct statx up to the length; the kernel fills 256 bytes. Called as os.stat_result calls them."""

    _fields_ = (
        ("stx_mask", ctypes.c_uint32),
        ("stx_blksize", ctypes.c_uint32),
        ("stx_attributes", ctypes.c_uint64),
        ("st_nlink", ctypes.c_uint32),
        ("stx_uid", ctypes.c_uint32),
        ("stx_gid", ctypes.c_uint32),
        ("stx_mode", ctypes.c_uint16),
        ("spare", ctypes.c_uint16),
        ("stx_ino", ctypes.c_uint64),
        ("st_size", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 208),
    )
    st_nlink: int
    st_size: int


def _find() -> Callable[..., int] | None:
    try:
        statx: Any = ctypes.CDLL(None, use_errno=True).statx
    except (AttributeError, OSError, TypeError):  # a C library without it, or a system without one of that kind
        return None
    statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
    statx.restype = ctypes.c_int
    found: Callable[..., int] = statx
    return found


_statx = _find()


def links(fd: int) -> int:
    """Return how many names the file has. Raises OSError."""
    return _ask(fd, _STATX_NLINK).st_nlink


def size(fd: int) -> int:
    """Return the file's length in bytes. Raises OSError."""
    return _ask(fd, _STATX_SIZE).st_size


def _ask(fd: int, mask: int) -> Status:
    if _statx is None:
        return os.fstat(fd)
    answer = _Statx()
    if _statx(fd, b"", _AT_EMPTY_PATH, mask, ctypes.byref(answer)) == 0:
        return answer
    number = ctypes.get_errno()
    if number in _NOT_TO_BE_HAD:
        return os.fstat(fd)
    raise OSError(number, os.strerror(number))
