"""Turn a finished run of recipes/upstream_blossoms.yaml into the embedded weights: backbone only, with provenance.

python benchmarks/make_embedded_weights.py runs/upstream_blossoms/20261123-101500-a1b2c3
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from workbench.models.weights import EMBEDDED


def main() -> None:
    """Write tiny_blossoms.safetensors and the .json that says how it was made."""
    run = Path(sys.argv[1])
    tensors = {k: v for k, v in load_file(run / "model.safetensors").items() if k.startswith("features.")}
    path = EMBEDDED / "tiny_blossoms.safetensors"
    save_file(tensors, path)
    provenance = json.loads((run / "model.json").read_text())["provenance"]
    provenance["recipe"]["track"] = {}
    described = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "made_by": "fit --recipe recipes/upstream_blossoms.yaml, then benchmarks/make_embedded_weights.py",
        **provenance,
    }
    path.with_suffix(".json").write_text(json.dumps(described, indent=1) + "\n")
    print(path, path.stat().st_size, "bytes", described["sha256"])


if __name__ == "__main__":
    main()
