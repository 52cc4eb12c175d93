"""Fits the numbers of a shipped model anew (see calibrate.py); its weights stay as they are.

    python recalibrate.py --data DATA --model ../default --cache CACHE --out DIR

DIR gets copies of the shards and a manifest with the new numbers.
"""
import argparse
import json
import shutil
from pathlib import Path

import torch

import data
from calibrate import CONTRAST, calibrate
from edges import EDGES
from evaluate import load_model
from second import Seen
from text import embed, tokenizer
from train import masked_classes


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--model", default="../default", help="folder with the manifest and its shards")
    p.add_argument("--out", required=True)
    p.add_argument("--cache", required=True, help="folder of the views that it was trained on, whose own names had masks")
    p.add_argument("--per-source", type=int, default=45, help="calibration photos of each source")
    p.add_argument("--second", type=float, nargs=2, metavar=("KAPPA", "B0"), help="how the second stage's word counts, not to be fitted")
    args = p.parse_args()
    torch.set_num_threads(1)
    network, encoder = load_model(args.model)
    words, phrases = tokenizer(), data.load_classes(args.data).phrases()
    index = {n: i for i, n in enumerate(phrases)}
    numbers = calibrate(network, embed(encoder, words, phrases), index, embed(encoder, words, CONTRAST["names"]),
                        Seen(network.trunk, args.data, encoder, words, phrases), masked_classes(args.data, args.cache), args.data,
                        args.per_source, second=args.second)
    model, out = Path(args.model), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((model / "manifest.json").read_text())
    for shard in manifest["shards"]:
        shutil.copy(model / shard["file"], out)
    manifest["config"] |= numbers | {"edges": EDGES}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
