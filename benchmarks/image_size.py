"""What the pushed demo image costs: bytes to pull, bytes unpacked, largest layers."""

from __future__ import annotations

import json
import subprocess
import sys


def main() -> None:
    """Run the demo (seconds when it is done) and print the sizes that the registry reports."""
    argv = [sys.executable, "-m", "imagegen", "demo", "--format", "json"]
    made = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    layers = sorted(made["layers"], key=lambda layer: -layer["bytes"])
    print(f"{made['id']} {made['digest']}")
    print(f"to pull   {made['compressed_bytes'] / 1e9:.3f} GB in {len(layers)} zstd layers")
    print(f"unpacked  {made['unpacked_bytes'] / 1e9:.3f} GB")
    for layer in layers[:6]:
        words = " ".join(layer["created_by"].split()).rpartition("/build/")[2]
        print(f"  {layer['bytes'] / 1e6:8.1f} MB  {words[:70]}")


if __name__ == "__main__":
    main()
