"""Urza, the blueprint library: descriptors, artifacts and extras in a database of its own.

    library = UrzaLibrary.open("blueprints.sqlite")         # or any SQLAlchemy URL
    library.save(descriptor, artifact, {"graph_metadata": {...}, "bsds": sheet})
    record = library.get("bp-1")                            # descriptor, artifact, extras; None for an unknown id

`TamiyoService.open(..., urza=library)` asks it from a background thread. Extras are one JSON object; these keys
are read by Tamiyo, any other is kept as it is:

    graph_metadata    layers, activations, parameters, adjacency, monitored_layers, monitors, capabilities
    bsds              the safety sheet (Blueprint Safety Data Sheet): a JSON object with Leyline's field names
    optimizer_priors  family, learning_rate, momentum, weight_decay: what the blueprint is best trained with
    guard_spec        what the compiler knew of the shapes; it stands for graph_metadata where there is none

Extras that are missing or damaged read as empty: that is logged, counted, and said in the record, and never an
exception. A damaged descriptor is one: there is nothing to decide from.
"""

from tamiyo.integrations.urza.errors import ExtrasRejected, LibraryUnusable
from tamiyo.integrations.urza.extras import safety_sheet
from tamiyo.integrations.urza.library import UrzaLibrary, UrzaRecord

__all__ = ["ExtrasRejected", "LibraryUnusable", "UrzaLibrary", "UrzaRecord", "safety_sheet"]
