"""Seconds of attention forward and backward on a CPU in bf16: plain matrix products against the fused kernel.

This is why ``inlay.train.precision.attention_kernel`` chooses as it does. Ratios above 1 favour plain products.

    python benchmarks/attention.py
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

ROUNDS = 7
HEADS, WIDTH, ROWS = 4, 32, 4096


def seconds(kernel: SDPBackend, query: torch.Tensor, context: torch.Tensor) -> float:
    """Return the CPU seconds of one forward and backward pass."""
    with sdpa_kernel(kernel):
        start = time.process_time()
        scaled_dot_product_attention(query, context, context).sum().backward()
        return time.process_time() - start


def main() -> None:
    """Print one line for each number of positions and length of context."""
    print("positions  context  fused ms  plain ms  fused/plain (lowest to highest of rounds)")
    for positions in (16, 64, 144, 256):
        for length in (32, positions):
            shape = (ROWS // positions, HEADS)
            query = torch.randn(*shape, positions, WIDTH, dtype=torch.bfloat16, requires_grad=True)
            context = torch.randn(*shape, length, WIDTH, dtype=torch.bfloat16, requires_grad=True)
            pairs = []
            for _ in range(ROUNDS + 1):  # the first warms up
                fused = seconds(SDPBackend.FLASH_ATTENTION, query, context)
                pairs.append((fused, seconds(SDPBackend.MATH, query, context)))
            fused, plain = zip(*pairs[1:], strict=True)
            ratios = sorted(one / other for one, other in pairs[1:])
            print(
                f"{positions:9}  {length:7}  {1e3 * statistics.median(fused):8.1f}  "
                f"{1e3 * statistics.median(plain):8.1f}  {statistics.median(ratios):.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


if __name__ == "__main__":
    main()
