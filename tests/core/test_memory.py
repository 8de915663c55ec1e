"""Freed memory stays with the process while it computes, and goes back afterwards."""

import json
import platform
import subprocess
import sys

import pytest

# In a process of its own: what a heap can keep depends on all that was in it before. Blocks of 64 MiB, twice what glibc
# keeps by default, are 16384 pages each; where the system has larger ones there are fewer faults, and never none. At
# first small things get between the blocks; after some rounds each fits where another was.
SCRIPT = """
import json, resource, torch
from verydeep.core import memory

def faults(count, floats=2**24):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(floats)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return 4096 * int(open("/proc/self/statm").read().split()[1])

told = {}
faults(30)
told["before"] = faults(4)
with memory.retain_freed_memory():
    faults(30)
    told["kept"] = faults(4)
    with memory.retain_freed_memory():
        pass
    faults(30)
    told["kept again"] = faults(4)
    held = resident()
told["given back"] = held - resident()
print(json.dumps(told))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_freed_memory_is_reused_only_in_the_context() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100, check=True)
    told = json.loads(done.stdout)
    assert max(told[name] for name in ("kept", "kept again")) < 100
    assert told["before"] > 100
    assert told["given back"] > 2**25
