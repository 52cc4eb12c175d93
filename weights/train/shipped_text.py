"""Reads the text encoder out of a shipped model, in place of distilling it again.

    python shipped_text.py --model ../default --out text.pt

The result is what distil_text.py writes, except that its weights are those of the product: rounded to int8 and float16.
"""
import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from text import TextEncoder

PANEL = (8, 4)           # the sides of the blocks that matrices in panels are stored in, see weights/tensor.go


def from_panels(x):
    """A matrix stored in panels [N/8,K/4,8,4] → [N,K]; any other tensor stays as it is."""
    if x.ndim == 4 and tuple(x.shape[2:]) == PANEL:
        return x.permute(0, 2, 1, 3).reshape(x.shape[0] * PANEL[0], x.shape[1] * PANEL[1])
    return x


def read_text(folder):
    """The text encoder's tensors in float32, from all the shards that the manifest lists."""
    folder, stored = Path(folder), {}
    for shard in json.loads((folder / "manifest.json").read_text())["shards"]:
        if shard["file"].endswith(".safetensors"):
            stored |= load_file(str(folder / shard["file"]))
    state = {}
    for name, x in stored.items():
        if not name.startswith("text.") or name.endswith(".scale"):
            continue
        if x.dtype == torch.int8:
            x = from_panels(x)
            x = x.float() * stored[f"{name}.scale"].float().view(-1, *[1] * (x.ndim - 1))
        state[name.removeprefix("text.")] = x.float()
    return state


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="../default", help="folder with the manifest and its shards")
    p.add_argument("--out", required=True)
    args = p.parse_args()
    encoder = TextEncoder()
    encoder.load_state_dict(read_text(args.model))
    torch.save(encoder.state_dict(), args.out)


if __name__ == "__main__":
    main()
