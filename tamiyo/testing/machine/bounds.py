"""How much a state may hold: every collection in it has a cap here, and one without a cap is a broken law.

Rule: caps are read from the core's modules each time, so that a test may lower them there and see them kept here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass

from tamiyo.core import layout, limits, norms, registries, state
from tamiyo.core.breakers import BREAKERS
from tamiyo.core.state import State
from tamiyo.testing.machine.law import require

__all__ = ["CAPS", "check_bounds", "sizes"]

FLAGS_MAX = 64
LAYOUT_MAX = 512
"""Names of one layout: the graph's schema has fewer features, node types and relations together."""

CAPS: Mapping[str, Callable[[], int]] = {
    "undecided": lambda: state.UNDECIDED_MAX,
    "norms": lambda: len(norms.NORM_INPUTS),
    "breakers": lambda: len(BREAKERS),
    "behaviour_flags": lambda: FLAGS_MAX,
    "registries": lambda: len(registries.CAPACITIES),
    **{f"registries.{kind}": lambda kind=kind: registries.CAPACITIES[kind] for kind in registries.CAPACITIES},  # type: ignore[misc]
    "layouts": lambda: layout.LAYOUTS_MAX,
    "layouts.*.features": lambda: LAYOUT_MAX,
    "layouts.*.features.*": lambda: 2,
    "layouts.*.node_types": lambda: LAYOUT_MAX,
    "layouts.*.relations": lambda: LAYOUT_MAX,
    "blueprints": lambda: state.BLUEPRINTS_MAX,
    "blueprints.*.blueprint.allowed_parameters": lambda: limits.ALLOWED_PARAMETERS_MAX,
    "blueprints.*.blueprint.allowed_parameters.*": lambda: 3,
    "seed_blueprints": lambda: state.SEED_BLUEPRINTS_MAX,
    "conditions": lambda: state.CONDITIONS_MAX,
    "windows.open": lambda: state.WINDOWS_MAX,
    "windows.samples": lambda: state.WINDOWS_MAX,
    "outbox.retries": lambda: state.RETRIES_MAX,
    "undelivered": lambda: state.UNDELIVERED_MAX,
    "directives": lambda: state.DIRECTIVES_MAX,
}
"""The most entries of each collection, by its place in the state; `*` stands for any key of a map or tuple."""


def check_bounds(found: State, checked: State | None = None) -> None:
    """Raise `LawBroken` where a collection is over its cap, or has none.

    Args:
        found: the state to look into.
        checked: an earlier state that was found in order; what it shares with `found` need not be looked into again.
    """
    for part in fields(State):
        value = getattr(found, part.name)
        if checked is None or value is not getattr(checked, part.name):
            for place, size in sizes(value, part.name):
                _check_size(place, size)


def _check_size(place: str, size: int) -> None:
    cap = CAPS.get(place)
    require(cap is not None, "every collection in the state has a cap", place)
    if cap is not None:
        require(size <= cap(), "what the state keeps is bounded", f"{place} holds {size}, {cap()} at most")


def sizes(value: object, place: str = "") -> Iterator[tuple[str, int]]:
    """Every collection inside a state, as (place, entries)."""
    names = [part.name for part in fields(value)] if is_dataclass(value) else getattr(value, "_fields", ())
    if names:  # a record; a tuple with names is one too
        for name in names:
            yield from sizes(getattr(value, name), f"{place}.{name}" if place else name)
    elif isinstance(value, Mapping):
        yield place, len(value)
        for key, kept in value.items():
            named = place == "registries"
            yield from sizes(kept, f"{place}.{key if named else '*'}")
    elif isinstance(value, tuple | list | set | frozenset | bytes):
        yield place, len(value)
        if not isinstance(value, bytes):
            for kept in value:
                yield from sizes(kept, f"{place}.*")
