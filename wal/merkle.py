"""Proofs over the tree, as RFC 6962 (section 2.1.1 and 2.1.2) defines them. Pure: no file, no log.

A proof is a list of subtree roots. Which ranges of leaves those cover follows from the sizes alone.
"""

from collections.abc import Sequence

from wal.tree import parent

Range = tuple[int, int]


def inclusion_ranges(leaf: int, size: int) -> list[Range]:
    """Return the ranges of leaves whose roots prove leaf number `leaf` (from 0) in a tree of `size`, lowest first."""
    ranges: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if leaf < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """Return the ranges whose roots prove that a tree of `old` leaves is the beginning of one of `new`."""
    ranges: list[Range] = []
    start, end = 0, new
    while old not in (start, end):
        middle = start + _split(end - start)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start > 0:  # the subtree that ends at `old`: the verifier has it already when it is the whole old tree
        ranges.append((start, end))
    return ranges[::-1]


def included(leaf: int, leaf_hash: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the path proves that the leaf stands at its number in the tree of `size` leaves with this root."""
    if not 0 <= leaf < size:
        return False
    ranges = inclusion_ranges(leaf, size)
    if len(ranges) != len(path):
        return False
    node = leaf_hash
    for (start, _), sibling in zip(ranges, path, strict=True):
        node = parent(sibling, node) if start < leaf else parent(node, sibling)
    return node == root


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the path proves that the tree of `old` leaves with `old_root` is the beginning of the new one.

    Every tree begins with the empty one, and with itself; those proofs are empty.
    """
    if not 0 <= old <= new:
        return False
    if old in (0, new):
        return not path and (old == 0 or old_root == new_root)
    ranges = consistency_ranges(old, new)
    if len(ranges) != len(path):
        return False
    roots = list(zip(ranges, path, strict=True))
    if roots[0][0][1] == old:
        (start, _), old_node = roots.pop(0)
    else:
        start, old_node = 0, old_root
    new_node = old_node
    for (first, last), sibling in roots:
        if last <= start:
            old_node, new_node, start = parent(sibling, old_node), parent(sibling, new_node), first
        else:
            new_node = parent(new_node, sibling)
    return (old_node, new_node) == (old_root, new_root)


def extended(
    old: int, path: Sequence[bytes], middle: int, middle_root: bytes, further: Sequence[bytes], new: int
) -> tuple[bytes, ...]:
    """Return the path from `old` leaves to `new` ones: `path` leads to `middle`, and `further` on from there.

    So no leaf before `middle` has to be there any more. Both paths hold; 0 < old <= middle < new.
    """
    roots = dict(zip(consistency_ranges(old, middle), path, strict=True))
    ranges = consistency_ranges(middle, new)
    roots |= zip(ranges, further, strict=True)
    rest = ranges
    start, end, node = 0, middle, middle_root
    if ranges[0][1] == middle:
        (start, end), node, rest = ranges[0], further[0], ranges[1:]
    for first, last in rest:  # the subtrees of the new tree that `middle` ends in, the smallest first
        if last <= start:
            node, start = parent(roots[first, last], node), first
        else:
            node, end = parent(node, roots[first, last]), last
        roots[start, end] = node
    return tuple([roots[wanted] for wanted in consistency_ranges(old, new)])


def _split(size: int) -> int:
    """Return the largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1
