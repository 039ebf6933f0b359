"""Counted in a process of its own: what one test has freed would be kept for all others."""

import platform
import subprocess
import sys

import pytest

MANY_CALLS = """
import resource, sys
import torch
if "keep" in sys.argv:
    from tamiyo.policy.engine.memory import keep_freed_memory
    keep_freed_memory()

def call():
    states = [torch.ones(1_000_000) for _ in range(10)]  # 4 MB each

call()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    call()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str) -> int:
    ran = subprocess.run([sys.executable, "-c", MANY_CALLS, *arguments], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep what they like")
def test_what_a_call_frees_the_next_one_need_not_fault_in_again() -> None:
    """Of 97,000 pages in ten calls."""
    assert page_faults("keep") < 1_000
    assert page_faults() > 10_000, "it would have been kept without"
