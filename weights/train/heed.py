"""How much the masks depend on the prompts that the queries read: losses with other text in the decoder's text steps.

    python heed.py --data DATA --cache CACHE --text text.pt RUN…

Views of photos that gave no gradient, prompts as in training. The proposals are always named with a view's own prompts; the
text steps read those ("own"), those of the next view in the batch ("next") or nothing but the null key ("none"). A row gives the losses
of the last prediction; of runs with text, two more columns give the mean over the text steps of how far a step moves the queries as a
part of their length, and of the null key's share of the attention.
"""
import argparse
from pathlib import Path

import torch

import data
from batches import Batches, PhraseTable
from compare import heading, row
from losses import set_loss
from network import Network, TextStep
from text import embed, tokenizer
from train import AFTER_F8, load_text


def watch(step, found):
    """Appends to found, at each use of a text step, how far it moves the queries and the null key's share."""
    def look(_, inputs, moved):
        x, position, text, keep = inputs
        q, k = (layer.unflatten(-1, (step.heads, -1)).transpose(1, 2) for layer in (step.q(x + position), step.k(text)))
        logits = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).float().masked_fill(~keep, float("-inf"))
        found.append((((moved - x).float().norm() / x.float().norm()).item(), logits.softmax(-1)[..., -1].mean().item()))
    return step.register_forward_hook(look)


@torch.no_grad()
def losses(network, batches, which, found):
    """Means over the batches of the last prediction's losses; which text the text steps read: own, next or none."""
    decoder, total = network.decoder, {}
    tokens = type(decoder).text_tokens
    hooks = [watch(m, found) for m in decoder.modules() if isinstance(m, TextStep)] if which == "own" else []
    for batch in batches:
        text, valid = batch["text"], batch["valid"]
        other = {"own": (text, valid), "next": (text.roll(1, 0), valid.roll(1, 0)), "none": (text, torch.zeros_like(valid))}[which]
        decoder.text_tokens = lambda *_: tokens(decoder, *other)
        with torch.autocast("cpu", torch.bfloat16):
            # The cached features are the published trunk's; above f8 the run may have trained its own.
            encoded = network.encode_features(batch["features"] | network.trunk.run(batch["features"]["f8"], AFTER_F8))
            _, parts = set_loss(decoder(encoded, text, valid)[-1:], encoded["M4"], batch)
        for name, value in parts.items():
            total[name] = total.get(name, 0) + value / len(batches)
    for hook in hooks:
        hook.remove()
    return total


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--cache", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--batches", type=int, default=6, help="of 8 views each")
    p.add_argument("runs", nargs="+", type=Path)
    args = p.parse_args()
    torch.set_num_threads(1)
    encoder, words, classes = load_text(args.text), tokenizer(), data.load_classes(args.data)
    table = PhraseTable(classes, args.data, lambda phrases: embed(encoder, words, phrases))
    source = Batches(args.cache, classes, table, 8, 2048, 0, held_out=True)
    batches = [next(source) for _ in range(args.batches)]
    heading("run", "text read", "class", "BCE", "dice", "moved", "null key")
    for run in args.runs:
        saved = torch.load(run / "last.pt", weights_only=True)
        network = Network(saved["config"]).requires_grad_(False).eval()
        network.load_state_dict(saved["model"])
        network.to(memory_format=torch.channels_last)
        pmp = network.config["pmp"]
        for which in ("own", "next", "none")[:3 if pmp else 1]:
            found = []
            parts = losses(network, batches, which, found)
            means = (sum(v) / len(found) for v in zip(*found))
            row("/".join(run.parts[-2:]), which if pmp else "", *(f"{parts[k]:.3f}" for k in ("class", "bce", "dice")),
                *((f"{m:.2f}" for m in means) if found else ("", "")))


if __name__ == "__main__":
    main()
