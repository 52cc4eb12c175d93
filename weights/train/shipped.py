"""Reads a shipped model back, in place of training it again: its text encoder, or all of it as a checkpoint to start from.

    python shipped.py --model ../default --text text.pt --checkpoint shipped.pt

The text encoder is what distil_text.py writes, the checkpoint what train.py --init takes, except that the weights are those
of the product: rounded to int8 and float16, the trunk's biases corrected for that.
"""
import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from network import Network, SecondStage
from text import TextEncoder

PANEL = (8, 4)           # the sides of the blocks that matrices in panels are stored in, see weights/tensor.go


def from_panels(x):
    """A matrix stored in panels [N/8,K/4,8,4] → [N,K]; any other tensor stays as it is."""
    if x.ndim == 4 and tuple(x.shape[2:]) == PANEL:
        return x.permute(0, 2, 1, 3).reshape(x.shape[0] * PANEL[0], x.shape[1] * PANEL[1])
    return x


def read(folder):
    """The manifest, and the tensors in float32 from all the shards that it lists."""
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
    """The network in PyTorch, which gives 1×1 convolutions four dimensions."""
    config = manifest["config"] | {"stage2": SecondStage.sizes(state)}
    network = Network(config)
    network.load_state_dict({name: state[name].view(x.shape) for name, x in network.state_dict().items()})
    return network


def text_of(state):
    encoder = TextEncoder()
    encoder.load_state_dict({name.removeprefix("text."): x for name, x in state.items() if name.startswith("text.")})
    return encoder


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="../default", help="folder with the manifest and its shards")
    p.add_argument("--text", help="where the text encoder goes")
    p.add_argument("--checkpoint", help="where all of the network goes")
    args = p.parse_args()
    manifest, state = read(args.model)
    if args.text:
        torch.save(text_of(state).state_dict(), args.text)
    if args.checkpoint:
        network = network_of(manifest, state)
        torch.save({"config": network.config, "model": network.state_dict()}, args.checkpoint)


if __name__ == "__main__":
    main()
