"""Writes a checkpoint as the product reads it: DIR/model.safetensors (float32), config.json, vocab.txt and parts.json.

    python export.py --data DATA --checkpoint RUN/last.pt --text text.pt --cache CACHE --out DIR

The keys are those of network.py and text.py; batch norms are folded. The trunk is rounded to int8 (see rounding.py), the
second stage is fitted and all numbers are calibrated here (see calibrate.py).
"""
import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

import data
from calibrate import CONTRAST, calibrate, calibration_photos
from edges import EDGES
from network import DEFAULTS, Network, SecondStage, load_published
from rounding import settle
from second import Seen
from text import embed, tokenizer
from train import frozen, imagenet_pooled, load_text, masked_classes
from views import read_pixels


def spread(embeddings, limit):
    """Indices of phrases such that every other phrase is as near as limit to one of them: the rest adds nothing."""
    kept = []
    for i in range(len(embeddings)):
        if not kept or (embeddings[kept] @ embeddings[i]).max() < limit:
            kept.append(i)
    return kept


def variant(config):
    """What tells a network of another arch from pmp-s."""
    keys = ("trunk", "strides", "masked", "order", "text_first", "null_key", "pool")
    return {k: config[k] for k in keys} if config["arch"] != DEFAULTS["arch"] else {}


def int8_bytes(state):
    """The size when matrices take a byte a weight and an f16 scale a row, and vectors two bytes a number."""
    return sum(v.numel() + 2 * len(v) if v.ndim > 1 else 2 * v.numel() for v in state.values())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--checkpoint", required=True)
    p.add_argument("--mean-with", metavar="CHECKPOINT", help="export the mean of both checkpoints: of a model that was trained "
                   "further and the one that this began with, which keeps more of what it knew of other names (WiSE-FT, arXiv 2109.01903)")
    p.add_argument("--text", required=True)
    p.add_argument("--cache", required=True, help="folder that holds the ImageNet photos' features")
    p.add_argument("--out", required=True)
    p.add_argument("--rank", type=int, default=136, help="rank of the second stage's coefficients")
    p.add_argument("--space", type=int, default=64, help="in so many numbers names are compared there")
    p.add_argument("--per-source", type=int, default=45, help="calibration photos of each source")
    p.add_argument("--rounding-photos", type=int, default=12,
                   help="photos of each source that the trunk's biases are corrected on; 0 leaves the trunk as it is")
    p.add_argument("--release", help="what the manifest calls this version of the model")
    p.add_argument("--unseen", action="store_true", help="the checkpoint is one of train.py --unseen: calibrate without these names, too")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    encoder, words = load_text(args.text), tokenizer()
    classes = data.load_classes(args.data)
    phrases = classes.phrases()
    embeddings = embed(encoder, words, phrases)
    splits = json.loads((Path(args.data) / "splits.json").read_text())
    held = classes.numbers(data.unseen_names(splits)) if args.unseen else set()
    held = {n for c in held for n in classes.names[c] + classes.synonyms[c]}
    known = [i for i, phrase in enumerate(phrases) if phrase not in held]
    trained = [known[i] for i in spread(embeddings[known], DEFAULTS["seen_hi"] - 0.05)]

    saved = torch.load(args.checkpoint, weights_only=True)
    if args.mean_with:
        other = torch.load(args.mean_with, weights_only=True)["model"]
        for name, value in saved["model"].items():
            if not name.startswith(("stage2.", *frozen())):
                saved["model"][name] = (value + other[name]) / 2
    published = Network(saved["config"])
    load_published(published.trunk, args.data)
    seen = Seen(published.trunk, args.data, encoder, words, [phrases[i] for i in known])
    pooled = imagenet_pooled(published, args.data, args.cache).flatten(0, 1)
    stage2 = seen.fit(pooled, args.rank, args.space) | {"trained": embeddings[trained]}
    state = {k: v for k, v in saved["model"].items() if not k.startswith("stage2.")} | {f"stage2.{k}": v for k, v in stage2.items()}
    config = saved["config"] | {"stage2": SecondStage.sizes(state)}
    network = Network(config)
    network.load_state_dict(state)
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    if args.rounding_photos:
        photos = calibration_photos(args.data, classes, splits, args.rounding_photos)
        settle(network.trunk, [read_pixels(p.picture, config["size"]) for p in photos])
    common = embed(encoder, words, CONTRAST["names"])
    numbers = calibrate(network, embeddings, {n: i for i, n in enumerate(phrases)}, common, seen,
                        masked_classes(args.data, args.cache), args.data, args.per_source, args.unseen)

    state = {k: v.detach().float().contiguous() for k, v in network.state_dict().items()}
    state |= {f"text.{k}": v.detach().float().contiguous() for k, v in encoder.state_dict().items()}
    save_file(state, str(out / "model.safetensors"))
    vocabulary = sorted(words.get_vocab().items(), key=lambda item: item[1])
    (out / "vocab.txt").write_text("".join(f"{w}\n" for w, _ in vocabulary))
    shutil.copy(Path(__file__).with_name("parts.json"), out)
    c = network.config
    (out / "config.json").write_text(json.dumps({
        "arch": c["arch"], **({"release": args.release} if args.release else {}), "d": c["d"], "dm": c["dm"], "heads": c["heads"], "queries": c["queries"], "layers": c["layers"],
        "size": c["size"], "pmp": c["pmp"], **variant(c), "alpha": numbers["alpha"], "beta": numbers["beta"], "keep": numbers["keep"], "cap": numbers["cap"], "kappa": numbers["kappa"],
        "b0": numbers["b0"], "seen_hi": c["seen_hi"], "seen_lo": c["seen_lo"], "theta": numbers["theta"],
        "presence": numbers["presence"], "contrast": CONTRAST, "edges": EDGES, "templates": ["{}"],
        "text": {k: encoder.config[k] for k in ("layers", "heads", "max_tokens")}, "trained_names": [phrases[i] for i in trained]}, indent=1) + "\n")
    total = int8_bytes(state) + (out / "vocab.txt").stat().st_size
    parts = {}
    for k, v in state.items():
        parts[k.split(".")[0]] = parts.get(k.split(".")[0], 0) + v.numel()
    print(f"{len(state)} tensors, {parts}; int8 with the vocabulary {total / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
