"""How busy the processors are and how much memory there is: of the machine, and of a container."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from tamiyo.integrations.tolaria.cgroups import CpuQuota, cpu_quota, memory_limit
from tamiyo.integrations.tolaria.processor import ProcessorLoad, host_memory


class Times(NamedTuple):
    user: float
    system: float
    idle: float
    iowait: float
    guest: float
    guest_nice: float


class Darwin(NamedTuple):
    user: float
    nice: float
    system: float
    idle: float


class Machine:
    """Seconds of each processor, as /proc/stat has them; the test lets them pass."""

    def __init__(self, processors: int) -> None:
        self.times = [Times(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)] * processors

    def passes(self, processor: int, **seconds: float) -> None:
        old = self.times[processor]
        self.times[processor] = old._replace(**{name: getattr(old, name) + more for name, more in seconds.items()})

    def cpu_times(self, *, percpu: bool) -> list[Times]:
        assert percpu
        return list(self.times)


@pytest.fixture
def machine(monkeypatch) -> Machine:
    made = Machine(4)
    monkeypatch.setattr(psutil, "cpu_times", made.cpu_times)
    allow(monkeypatch, 0, 1, 2, 3)
    return made


def allow(monkeypatch, *processors: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(processors), raising=False)


def load(**options: object) -> ProcessorLoad:
    return ProcessorLoad(**{"quota": lambda: None, **options})


def test_the_first_reading_has_nothing_before_it(machine):
    machine.passes(0, user=10.0)
    assert load().percent() is None


def test_a_reading_is_the_busy_share_since_the_one_before(machine):
    reader = load()
    reader.percent()
    machine.passes(0, user=1.0, system=0.5, idle=0.5)
    machine.passes(1, idle=1.5, iowait=0.5)
    assert reader.percent() == pytest.approx(37.5)
    machine.passes(0, idle=4.0)
    assert reader.percent() == 0.0


def test_time_of_guests_counts_once(machine):
    reader = load()
    reader.percent()
    machine.passes(0, user=1.0, guest=1.0, idle=1.0)
    assert reader.percent() == pytest.approx(50.0)


def test_only_the_processors_this_process_may_run_on_count(machine, monkeypatch):
    allow(monkeypatch, 1, 2)
    reader = load()
    reader.percent()
    machine.passes(0, user=9.0)
    machine.passes(1, user=1.0)
    machine.passes(2, idle=1.0)
    assert reader.percent() == pytest.approx(50.0)


def test_where_processors_are_numbered_anew_all_that_are_shown_count(machine, monkeypatch):
    allow(monkeypatch, 0, 7)
    reader = load()
    reader.percent()
    machine.passes(1, user=1.0, idle=3.0)
    assert reader.percent() == pytest.approx(25.0)


def test_a_process_that_moves_to_other_processors_begins_anew(machine, monkeypatch):
    reader = load()
    reader.percent()
    allow(monkeypatch, 3)
    machine.passes(3, user=1.0)
    assert reader.percent() is None
    machine.passes(3, user=1.0, idle=1.0)
    assert reader.percent() == pytest.approx(50.0)


def test_counters_that_stand_still_say_nothing_and_are_waited_for(machine):
    reader = load()
    assert [reader.percent(), reader.percent()] == [None, None]
    machine.passes(0, user=1.0)
    assert reader.percent() == 100.0


def test_counters_that_run_backwards_begin_anew(machine):
    machine.passes(0, user=10.0)
    reader = load()
    reader.percent()
    machine.passes(0, user=-9.0)
    assert reader.percent() is None
    machine.passes(0, idle=1.0)
    assert reader.percent() == 0.0


def test_a_system_with_fewer_counters_and_no_affinity_is_read_as_well(monkeypatch):
    seen = [[Darwin(1.0, 0.0, 1.0, 2.0)], [Darwin(2.0, 0.0, 1.0, 5.0)]]
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: seen.pop(0))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    reader = load()
    assert [reader.percent(), reader.percent()] == [None, pytest.approx(25.0)]


class Tree:
    """The files of control groups, beneath a directory of the test."""

    def __init__(self, root: Path, membership: str) -> None:
        self.mount = root / "mount"
        self.membership = root / "membership"
        self.membership.write_text(membership)

    def put(self, name: str, text: str) -> None:
        path = self.mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def quota(self) -> CpuQuota | None:
        return cpu_quota(self.membership, self.mount)


V2 = "0::/batch/job\n"
V1 = "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n"


def quota_v2(tree: Tree, group: str, limit: str, used_us: int) -> None:
    tree.put(f"{group}/cpu.max", f"{limit} 100000\n")
    tree.put(f"{group}/cpu.stat", f"nr_periods 3\nusage_usec {used_us}\nuser_usec 1\n")


@pytest.mark.parametrize("membership", ["", V2, V1, "0::/\n", "0::/../..\n"])
def test_without_a_limit_there_is_none(tmp_path, membership):
    tree = Tree(tmp_path, membership)
    assert tree.quota() is None
    assert memory_limit(tree.membership, tree.mount) is None


def test_a_system_without_control_groups_has_no_limits(tmp_path):
    assert cpu_quota(tmp_path / "none", tmp_path) is None
    assert memory_limit(tmp_path / "none", tmp_path) is None


def test_the_tightest_quota_of_the_group_and_its_parents_counts(tmp_path):
    tree = Tree(tmp_path, V2)
    quota_v2(tree, "batch/job", "max", 5)
    assert tree.quota() is None
    quota_v2(tree, "batch", "250000", 7_000_000)
    quota_v2(tree, "", "400000", 9_000_000)
    quota = tree.quota()
    assert quota is not None
    assert (quota.cores, quota.used_s()) == (2.5, 7.0)


def test_inside_a_container_the_mount_itself_is_the_group(tmp_path):
    """Version 1 names the group as it is seen from outside."""
    tree = Tree(tmp_path, V1)
    tree.put("cpu/cpu.cfs_quota_us", "150000\n")
    tree.put("cpu/cpu.cfs_period_us", "100000\n")
    tree.put("cpuacct/cpuacct.usage", "3000000000\n")
    quota = tree.quota()
    assert quota is not None
    assert (quota.cores, quota.used_s()) == (1.5, 3.0)
    tree.put("cpu/cpu.cfs_quota_us", "-1\n")
    assert tree.quota() is None


@pytest.mark.parametrize("words", ["100000\n", "100000 x\n"])
def test_a_quota_that_no_kernel_writes_is_an_error(tmp_path, words):
    tree = Tree(tmp_path, V2)
    tree.put("batch/job/cpu.max", words)
    with pytest.raises(ValueError, match=r"unpack|invalid literal"):
        tree.quota()


class Clock:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def test_in_a_container_with_few_cores_its_quota_is_the_whole(tmp_path, machine):
    """What the rest of the machine does, on processors that it may not use up, is not in it."""
    tree, clock = Tree(tmp_path, V2), Clock()
    quota_v2(tree, "batch/job", "200000", 0)
    reader = load(quota=tree.quota, clock_ns=clock)
    assert reader.percent() is None
    machine.passes(3, user=1.0)
    clock.ns += 1_000_000_000
    quota_v2(tree, "batch/job", "200000", 1_000_000)
    assert reader.percent() == pytest.approx(50.0)
    clock.ns += 1_000_000_000
    quota_v2(tree, "batch/job", "200000", 4_000_000)
    assert reader.percent() == 100.0  # a burst: never more


def test_a_quota_of_more_than_the_processors_there_are_is_none(tmp_path, machine):
    tree = Tree(tmp_path, V2)
    quota_v2(tree, "batch/job", "400000", 0)
    reader = load(quota=tree.quota)
    reader.percent()
    machine.passes(0, user=1.0, idle=1.0)
    assert reader.percent() == pytest.approx(50.0)


@pytest.fixture
def gib(monkeypatch) -> None:
    """A machine of 64 GiB, 48 of them available."""
    memory = SimpleNamespace(available=48 << 30, total=64 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


MEMORY_FILES = {
    V2: ("batch/memory.max", "batch/memory.current", "batch/memory.stat", "inactive_file"),
    V1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
}


@pytest.mark.parametrize("membership", [V2, V1])
def test_a_containers_limit_is_its_memory(tmp_path, monkeypatch, gib, membership):
    tree = Tree(tmp_path, membership)
    limit, usage, statistics, inactive = MEMORY_FILES[membership]
    monkeypatch.setattr(
        "tamiyo.integrations.tolaria.processor.memory_limit", lambda: memory_limit(tree.membership, tree.mount)
    )
    tree.put(limit, f"{8 << 30}\n")
    tree.put(usage, f"{6 << 30}\n")
    tree.put(statistics, f"anon 5\n{inactive} {1 << 30}\nactive_file 3\n")
    assert host_memory() == (3 << 30, 8 << 30)
    tree.put(usage, f"{12 << 30}\n")
    assert host_memory() == (0, 8 << 30)
    for unlimited in (f"{2**63 - 4096}\n", "max\n"):
        tree.put(limit, unlimited)
        assert host_memory() == (48 << 30, 64 << 30)
