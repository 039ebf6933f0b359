"""The tree and its proofs, held against RFC 6962's own recursive definitions."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal.merkle import consistency_ranges, consistent, extended, included, inclusion_ranges
from wal.tree import EMPTY_ROOT, LazyTree, Tree, bag, leaf_hashes, parent

LEAVES = [hashlib.sha256(bytes([0, number])).digest() for number in range(70)]


def mth(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash, as section 2.1 defines it, over leaves that are hashed already."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(leaf: int, leaves: list[bytes]) -> list[bytes]:
    """The audit path of section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if leaf < k:
        return [*path(leaf, leaves[:k]), mth(leaves[k:])]
    return [*path(leaf - k, leaves[k:]), mth(leaves[:k])]


def proof(old: int, leaves: list[bytes], *, known: bool = True) -> list[bytes]:
    """The consistency proof of section 2.1.2."""
    if old == len(leaves):
        return [] if known else [mth(leaves)]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if old <= k:
        return [*proof(old, leaves[:k], known=known), mth(leaves[k:])]
    return [*proof(old - k, leaves[k:], known=False), mth(leaves[:k])]


def roots(ranges: list[tuple[int, int]]) -> list[bytes]:
    return [mth(LEAVES[start:end]) for start, end in ranges]


def test_the_tree_has_the_root_of_the_definition_at_every_size() -> None:
    tree = Tree()
    assert tree.root() == EMPTY_ROOT == mth([])
    for size, leaf in enumerate(LEAVES, 1):
        tree.extend([leaf])
        assert (tree.size, tree.root()) == (size, mth(LEAVES[:size]))
        assert len(tree.nodes) == size.bit_count()
        assert bag(tree.nodes) == tree.root()


@given(st.integers(0, 70), st.integers(0, 70))
def test_a_tree_goes_on_from_its_frontier(cut: int, size: int) -> None:
    cut, size = sorted((cut, size))
    tree = Tree()
    tree.extend(LEAVES[:cut])
    other = Tree(cut, tree.nodes)
    other.extend(LEAVES[cut:size])
    assert other.root() == mth(LEAVES[:size])
    assert tree.size == cut, "the copy is another"


def test_a_copy_of_a_tree_grows_alone() -> None:
    tree = Tree()
    tree.extend(LEAVES[:5])
    other = tree.copy()
    other.extend(LEAVES[5:9])
    assert (tree.size, tree.root(), other.size, other.root()) == (5, mth(LEAVES[:5]), 9, mth(LEAVES[:9]))


@pytest.mark.parametrize(("size", "nodes"), [(1, 0), (0, 1), (3, 1), (4, 2)])
def test_a_frontier_of_another_size_is_refused(size: int, nodes: int) -> None:
    with pytest.raises(ValueError, match="frontier hashes"):
        Tree(size, [b"x" * 32] * nodes)


@given(st.lists(st.tuples(st.sampled_from(["add", "fold"]), st.integers(0, 9)), max_size=30), st.integers(0, 40))
def test_a_lazy_tree_is_the_tree_at_every_size_that_it_still_knows(steps: list[tuple[str, int]], begun: int) -> None:
    leaves = [bytes([n]) * 32 for n in range(255)] * 2
    size = folded = begun
    lazy = LazyTree(tree_of(leaves[:begun]))
    for step, count in steps:
        if step == "add":
            lazy.add(leaves[size : size + count])
            size += count
        else:
            folded = min(folded + count, size)
            assert lazy.fold(folded).root() == tree_of(leaves[:folded]).root()
        assert lazy.waiting == size - folded
        for at in range(begun, size + 2):
            tree = lazy.at(at)
            known = folded <= at <= size
            assert (None if tree is None else tree.root()) == (tree_of(leaves[:at]).root() if known else None)
    for unknown in (folded - 1, size + 1):
        with pytest.raises(ValueError, match="folded beyond"):
            lazy.fold(unknown)


def tree_of(leaves: list[bytes]) -> Tree:
    tree = Tree()
    tree.extend(leaves)
    return tree


def test_a_leaf_commits_to_number_kind_and_digest() -> None:
    digest = hashlib.sha256(b"salt and payload").digest()
    expected = hashlib.sha256(b"\x00" + (9).to_bytes(8, "little") + (513).to_bytes(2, "little") + digest).digest()
    assert leaf_hashes(9, [(513, digest)]) == [expected]


def test_every_record_is_proven_in_every_tree_and_nothing_else_is() -> None:
    for size in range(1, 34):
        root = mth(LEAVES[:size])
        for leaf in range(size):
            way = roots(inclusion_ranges(leaf, size))
            assert way == path(leaf, LEAVES[:size])
            assert included(leaf, LEAVES[leaf], size, root, way)
            assert not included(leaf, LEAVES[leaf + 1], size, root, way)
            assert not included(leaf, LEAVES[leaf], size, LEAVES[0] if size > 1 else LEAVES[1], way)
            assert not included(leaf, LEAVES[leaf], size, root, [*way, root])
            if way:
                assert not included(leaf, LEAVES[leaf], size, root, way[:-1])
                assert not included(leaf, LEAVES[leaf], size, root, [parent(root, root), *way[1:]])
        assert not included(size, LEAVES[0], size, root, [])
        assert not included(-1, LEAVES[0], size, root, [])


def test_every_earlier_tree_is_proven_to_be_the_beginning_and_no_other_is() -> None:
    for new in range(1, 34):
        for old in range(1, new):
            way = roots(consistency_ranges(old, new))
            assert way == proof(old, LEAVES[:new])
            assert consistent(old, mth(LEAVES[:old]), new, mth(LEAVES[:new]), way)
            assert not consistent(old, mth(LEAVES[1 : old + 1]), new, mth(LEAVES[:new]), way)
            assert not consistent(old, mth(LEAVES[:old]), new, mth(LEAVES[1 : new + 1]), way)
            assert not consistent(old, mth(LEAVES[:old]), new, mth(LEAVES[:new]), way[:-1])
            for place in range(len(way)):
                changed = [*way[:place], parent(way[place], way[place]), *way[place + 1 :]]
                assert not consistent(old, mth(LEAVES[:old]), new, mth(LEAVES[:new]), changed)


def test_every_tree_begins_with_the_empty_one_and_with_itself() -> None:
    assert consistent(0, EMPTY_ROOT, 5, mth(LEAVES[:5]), [])
    assert consistent(5, mth(LEAVES[:5]), 5, mth(LEAVES[:5]), [])
    assert not consistent(5, mth(LEAVES[:5]), 5, mth(LEAVES[:4]), [])
    assert not consistent(0, EMPTY_ROOT, 5, mth(LEAVES[:5]), [LEAVES[0]])
    assert not consistent(6, LEAVES[0], 5, LEAVES[0], [])
    assert not consistent(-1, LEAVES[0], 5, LEAVES[0], [])


def test_the_proof_of_one_of_eighty_million_records_is_27_hashes() -> None:
    assert max(len(inclusion_ranges(leaf, 80_000_000)) for leaf in (0, 1, 79_999_999, 40_000_000, 67_108_863)) == 27


def test_a_path_is_led_on_from_a_size_whose_leaves_are_gone() -> None:
    for new in range(2, 40):
        root = roots([(0, new)])[0]
        for middle in range(1, new):
            further = proof(middle, LEAVES[:new])
            for old in range(1, middle + 1):
                found = extended(old, proof(old, LEAVES[:middle]), middle, mth(LEAVES[:middle]), further, new)
                assert list(found) == proof(old, LEAVES[:new])
                assert consistent(old, mth(LEAVES[:old]), new, root, found)
