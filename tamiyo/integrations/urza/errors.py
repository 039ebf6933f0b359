"""What the library refuses."""

from tamiyo.errors import HostError

__all__ = ["ExtrasRejected", "LibraryUnusable"]


class LibraryUnusable(HostError):
    """The database cannot be opened, read or written, or what it holds is no blueprint; the message says where."""


class ExtrasRejected(HostError, ValueError):
    """A blueprint cannot be stored: it has no id, its artifact is no bytes, or JSON cannot hold its extras.

    Nothing was written.
    """
