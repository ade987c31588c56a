"""Pictures of the rendered world a second and core, and how long one takes against decoding it from a PNG.

The aim is 100, so that with two cores a reference of 2,000 pictures costs ten seconds and no place on a disk.

    python benchmarks/rendering.py [--pictures 200] [--rounds 5]
"""

from __future__ import annotations

import argparse
import io
import statistics
import time

from PIL import Image

from inlay.data.tabletop import World


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    world = World()
    images, *_ = world.render_many(range(args.pictures))
    files = []
    for pixels in images:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file)
    rates, ratios = [], []
    for number in range(1, args.rounds + 1):
        begun = time.perf_counter()
        world.render_many(range(number * args.pictures, (number + 1) * args.pictures))
        rendering = time.perf_counter() - begun
        begun = time.perf_counter()
        for file in files:
            file.seek(0)
            Image.open(file).convert("RGB").load()
        rates.append(args.pictures / rendering)
        ratios.append(rendering / (time.perf_counter() - begun))
    print(f"{statistics.median(rates):.1f} pictures a second on one core ({min(rates):.1f} to {max(rates):.1f})")
    print(
        f"rendering one takes {statistics.median(ratios):.0f} times as long as decoding it from a PNG "
        f"({min(ratios):.0f} to {max(ratios):.0f})"
    )


if __name__ == "__main__":
    main()
