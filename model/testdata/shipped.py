"""Makes shipped.safetensors: what PyTorch computes in 64 bits with the weights that are shipped.

    python shipped.py ../../weights/train ../../weights/default

Run it again whenever weights/default changes; the test that reads the file says so.
"""
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import BertWordPieceTokenizer

import make
from edges import Painter

PROMPTS = ["cat", "sofa, couch", "sky", "sundial"]


def read(folder):
    """The tensors of a folder of weights, dequantised, and its manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    raw = {}
    for shard in manifest["shards"]:
        if shard["file"].endswith(".safetensors"):
            raw |= load_file(folder / shard["file"])
    state = {}
    for name, x in raw.items():
        if name.endswith(".scale"):
            continue
        x = x.astype(np.float64)
        if name + ".scale" in raw:
            scale = raw[name + ".scale"].astype(np.float64)
            if x.ndim == 4 and x.shape[2:] == (8, 4) and len(scale) == 8 * len(x):
                # In panels: of 8 rows, in which 4 neighbours of a row lie together.
                x = x.transpose(0, 2, 1, 3).reshape(len(scale), -1)
            x *= scale.reshape(-1, *[1] * (x.ndim - 1))
        state[name] = torch.from_numpy(x)
    return state, manifest


@torch.no_grad()
def main():
    folder = Path(sys.argv[2])
    state, manifest = read(folder)
    config = manifest["config"]
    config["stage2"] = make.net.SecondStage.sizes(state)
    network, encoder = make.net.Network(config), make.txt.TextEncoder({k: config["text"][k] for k in ("layers", "heads", "max_tokens")})
    # Names of length one, which the engine makes of them itself.
    state["stage2.trained"] = make.net.normalise(state["stage2.trained"])
    # A 1×1 convolution is stored as the matrix that it is.
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    network.load_state_dict({k: v.reshape(shapes[k]) for k, v in state.items() if not k.startswith("text.")})
    encoder.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("text.")})
    network.eval(), encoder.eval()

    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    groups, phrases = [], []
    for p in PROMPTS:
        parts = [s.strip() for s in p.split(",")]
        groups.append(list(range(len(phrases), len(phrases) + len(parts))))
        phrases += parts
    embed = lambda phrases: torch.cat([encoder(torch.tensor([tokenizer.encode(p).ids])) for p in phrases])
    e, common = embed(phrases), embed(config["contrast"]["names"])

    x, _, _ = make.prepared(make.picture("wide", 150, 100), config["size"])
    encoded = network.encode(x)
    out = {k: v[0] for k, v in network.segment(encoded, e[None]).items()}
    answer = network.answer(out, e, groups, network.contrast(*network.beside(encoded, e, common), groups))
    for name in ("head", "P32", "P16", "P8", "M4", "M32"):
        make.sampled(name, make.rows(encoded[name]))
    for name, v in {"E": e, "row": network.stage2.rows(e), "pooled": out["pooled"], "e": out["e"], "masks": out["masks"].sigmoid().flatten(1),
                    "S": answer["S"].flatten(1), "score": answer["score"]}.items():
        make.sampled(name, v)
    cells = answer["S"].numpy()
    paint = Painter(x, make.picture("wide", 150, 100), config["size"], config["edges"])
    theta = float(np.float32(np.median(cells.max(0))))
    painted = paint(np.stack([make.tidy(c, theta) for c in cells]), theta)
    make.fixture["theta"] = np.array([theta], np.float32)
    make.fixture["mask"], make.fixture["mask sure"] = make.pack(painted > 0), make.pack(np.abs(painted) > 1e-3)
    make.fixture["manifest"] = np.frombuffer(hashlib.sha256((folder / "manifest.json").read_bytes()).digest(), np.uint8)
    save_file(make.fixture, make.HERE / "shipped.safetensors")


main()
