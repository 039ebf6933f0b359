"""docs/graph.md's tables, written from the schema: `python -m tamiyo.graph.docs` prints them."""

from collections.abc import Iterable, Sequence

from tamiyo.graph.schema import CATEGORIES, FEATURES, NODE_TYPES, RELATIONS, Feature

__all__ = ["BEGIN", "END", "tables"]

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
"""Between these lines of docs/graph.md stands what `tables` returns."""


def tables() -> str:
    """Every node type with its features, then the relations, as Markdown."""
    return "\n".join([*(_node_table(kind) for kind in NODE_TYPES), _relation_table()])


def _node_table(kind: str) -> str:
    registries = ", ".join(f"`{registry}`" for registry in CATEGORIES[kind]) or "none"
    rows = [
        (str(place), f"`{feature.name}`", feature.source, _scaling(feature), _absence(feature))
        for place, feature in enumerate(FEATURES[kind])
    ]
    title = f"### `{kind}`: {len(rows)} features\n\nRegistry columns: {registries}.\n"
    return f"{title}\n{_table(('', 'feature', 'from', 'scaled', 'when absent'), rows)}"


def _relation_table() -> str:
    rows = [
        (str(place), relation.label, ", ".join(f"`{name}`" for name in relation.attributes), f"`{relation.family}`",
         "of the edge" if relation.carrier == "given" else f"of the {relation.carrier}")
        for place, relation in enumerate(RELATIONS)
    ]  # fmt: skip
    header = ("", "relation", "attributes", "coverage family", "whose")
    return f"### {len(rows)} relations\n\n{_table(header, rows)}"


def _scaling(feature: Feature) -> str:
    value = "log(1 + x)" if feature.log1p else "x"
    if feature.norm:
        return f"{value}, norm `{feature.norm}`"
    moved = f"({value} - {feature.offset:g})" if feature.offset else value
    return moved if feature.scale == 1.0 else f"{moved} / {feature.scale:g}"


def _absence(feature: Feature) -> str:
    counted = "" if feature.applies == "always" else f", not counted without {feature.applies}"
    return f"{feature.default:g}{counted}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    print(tables(), end="")  # noqa: T201  printing is what it is run for
