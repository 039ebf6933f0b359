"""The Merkle tree over a log's records, as RFC 6962 (section 2.1) defines it. Pure: bytes in, bytes out.

Record n is leaf n - 1. Only the frontier is ever kept: the roots of the perfect subtrees that the size's binary
digits name, largest first. It is all that is needed to go on, and it hashes to the tree's root.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

# What a leaf hashes: 0, the record's number, its kind, H(salt, payload).
LEAF = struct.Struct("<BQH32s")


def leaf_hashes(first_lsn: int, inners: Iterable[tuple[int, bytes]]) -> list[bytes]:
    """Return the leaves of consecutive records, from each one's (kind, H(salt, payload))."""
    pack, digest = LEAF.pack, hashlib.sha256
    return [digest(pack(0, lsn, kind, inner)).digest() for lsn, (kind, inner) in enumerate(inners, first_lsn)]


def parent(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def frontier_length(size: int) -> int:
    """Return how many hashes the frontier of a tree of `size` leaves has."""
    return size.bit_count()


class Tree:
    """A growing tree, of which only the frontier is kept."""

    __slots__ = ("nodes", "size")

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        """Begin at a frontier: `nodes` has one hash for each set bit of `size`, the largest subtree first.

        Raises ValueError when their number is another.
        """
        if len(nodes) != frontier_length(size):
            raise ValueError(f"a tree of {size} leaves has {frontier_length(size)} frontier hashes, not {len(nodes)}")
        self.size = size
        self.nodes = list(nodes)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves at the end."""
        nodes, size, digest = self.nodes, self.size, hashlib.sha256
        for leaf in leaves:
            node, full = leaf, size
            while full & 1:  # the last subtree is as large as what stands before it: they make one twice as large
                node = digest(b"\x01" + nodes.pop() + node).digest()
                full >>= 1
            nodes.append(node)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """Return the root hash: the smaller subtrees are joined first."""
        return bag(self.nodes)

    def copy(self) -> "Tree":
        """Return another tree at the same size."""
        return Tree(self.size, self.nodes)


class LazyTree:
    """A tree that one thread adds leaves to and folds when it has the time; any thread may ask for it as it was.

    What is folded and what waits stand in one tuple, which is replaced and never changed but at its end, so a reader
    sees both sides of one moment, and an interrupt leaves one or the other.
    """

    __slots__ = ("_state",)

    def __init__(self, tree: Tree) -> None:
        """Begin where a tree is."""
        waiting: list[bytes] = []
        self._state = tree.size, tuple(tree.nodes), waiting

    def add(self, leaves: Iterable[bytes]) -> None:
        """Add leaves at the end; they wait to be folded."""
        self._state[2].extend(leaves)

    @property
    def waiting(self) -> int:
        """How many leaves wait."""
        return len(self._state[2])

    def fold(self, size: int) -> Tree:
        """Fold what is within the first `size` leaves, and return the tree over them."""
        tree = self.at(size)
        if tree is None:
            raise ValueError(f"the tree was folded beyond {size} leaves, or has fewer")
        folded, _, waiting = self._state
        self._state = size, tuple(tree.nodes), waiting[size - folded :]
        return tree

    def at(self, size: int) -> Tree | None:
        """Return the tree over the first `size` leaves, or None when it was folded beyond them, or has fewer."""
        folded, nodes, waiting = self._state
        if not folded <= size <= folded + len(waiting):
            return None
        tree = Tree(folded, nodes)
        tree.extend(waiting[: size - folded])
        return tree


def bag(nodes: Sequence[bytes]) -> bytes:
    """Return the root that a frontier hashes to."""
    if not nodes:
        return EMPTY_ROOT
    root = nodes[-1]
    for node in reversed(nodes[:-1]):
        root = parent(node, root)
    return root
