"""Reads a shipped model: as a checkpoint to train on from, in place of the float checkpoint that it was made of.

    python shipped.py --model ../default --out v1.pt

The published trunk takes the place of its lower blocks, which were never tuned and are only rounded in the shipped model. The
tuned ones keep what rounding.py added to their biases.
"""
import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from network import Network, complete, load_efficientnet_lite0

PANEL = (8, 4)           # the sides of the blocks that matrices in panels are stored in, see weights/tensor.go


def from_panels(x):
    """A matrix stored in panels [N/8,K/4,8,4] → [N,K]; any other tensor stays as it is."""
    if x.ndim == 4 and tuple(x.shape[2:]) == PANEL:
        return x.permute(0, 2, 1, 3).reshape(x.shape[0] * PANEL[0], x.shape[1] * PANEL[1])
    return x


def read(folder):
    """(manifest, {name: float32 tensor}) of a shipped model, from all the shards that the manifest lists."""
    folder, stored = Path(folder), {}
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:
        if shard["file"].endswith(".safetensors"):
            stored |= load_file(str(folder / shard["file"]))
    state = {}
    for name, x in stored.items():
        if name.endswith(".scale"):
            continue
        if x.dtype == torch.int8:
            x = from_panels(x)
            x = x.float() * stored[f"{name}.scale"].float().view(-1, *[1] * (x.ndim - 1))
        state[name] = x.float()
    return manifest, state


def network_of(manifest, state):
    """The shipped network in float32; matrices of 1×1 convolutions get their shape back."""
    config = {k: v for k, v in manifest["config"].items() if k not in ("text", "templates")}
    config["stage2"] = {"names": len(state["stage2.names"]), "rank": len(state["stage2.coef_v"]), "trained": len(state["stage2.trained"])}
    network = Network(complete(config))
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    network.load_state_dict({k: v.reshape(shapes[k]) for k, v in state.items() if not k.startswith("text.")})
    return network


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="../default", help="folder with the manifest and its shards")
    p.add_argument("--first-tuned", type=int, default=8, help="the first of the trunk's blocks that the model's training tuned")
    p.add_argument("--out", required=True)
    args = p.parse_args()
    network, published = network_of(*read(args.model)), Network()
    load_efficientnet_lite0(published.trunk)
    network.trunk.stem.load_state_dict(published.trunk.stem.state_dict())
    for mine, theirs in zip(network.trunk.blocks[:args.first_tuned], published.trunk.blocks):
        mine.load_state_dict(theirs.state_dict())
    torch.save({"config": network.config, "model": network.state_dict()}, args.out)


if __name__ == "__main__":
    main()
