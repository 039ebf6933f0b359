"""Tamiyo: an auditable controller for networks that grow while they train.

`from tamiyo import TamiyoService` is the way in; `tamiyo.service` shows the whole flow of a step.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tamiyo.config import Settings, load_settings
    from tamiyo.service import TamiyoService

__version__ = "0.1.0"
__all__ = ["Settings", "TamiyoService", "__version__", "load_settings"]

_HOMES = {"Settings": "tamiyo.config", "TamiyoService": "tamiyo.service", "load_settings": "tamiyo.config"}


def __getattr__(name: str) -> object:
    """Load the public names on first use: importing one room should not pay for all of them."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tamiyo' has no attribute {name!r}")
