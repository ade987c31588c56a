import sys

import pytest
import torch

from inlay.train.peak import forget_peak, peak_bytes

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot forget its peak")
def test_the_peak_stays_when_memory_is_given_back_until_it_is_forgotten():
    forget_peak()
    before = peak_bytes(CPU)
    held = torch.ones(64 * 2**20)  # 256 MiB
    with_it = peak_bytes(CPU)
    assert with_it >= before + 0.9 * held.nbytes
    del held
    assert peak_bytes(CPU) >= 0.99 * with_it  # the system counts in batches
    forget_peak()
    assert peak_bytes(CPU) < with_it - 0.5 * 256 * 2**20
