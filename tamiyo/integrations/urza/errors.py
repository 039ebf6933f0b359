"""What the library refuses."""

from tamiyo.errors import HostError

__all__ = ["ExtrasRejected", "LibraryUnusable"]


class LibraryUnusable(HostError):
    """The database cannot be opened, read or written, or what it holds is no blueprint; the message says where."""


class ExtrasRejected(HostError, ValueError):
    """A blueprint was handed in that cannot be stored: no id, or extras that JSON cannot hold. Nothing was written."""
