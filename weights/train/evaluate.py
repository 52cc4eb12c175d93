"""Figures of an exported or shipped model on the fixed validation lists, at the photos' original resolution.

    python evaluate.py --data DATA --model DIR [--sets voc_val coco_val …] [--int8] [--theta 0.5]

full      mIoU when all names of the set are asked for together (label map; with background as a class where it is labelled)
present   mIoU when the names that are in the photo are asked for together
single    each name in the photo asked for alone: IoU of its mask, mean over all (photo, name) pairs; single_class: pooled by
          class before averaging
recall    share of the truth's segments (photo, name) that some proposal σ(m) > 0.5 meets with IoU ≥ 0.5 / 0.75; the proposals
          are those of the request for all names of the set
oracle    mIoU if the truth named those proposals, each by what it overlaps best
auc       area under the ROC curve of the presence scores, all names of the set together; auc_single: names asked for alone
accuracy  of "present" when names are asked for alone, half of them absent

--new CACHE: names that never had masks, on ImageNet photos that calibration does not ask for. new: how their scores tell those
that are there from others, with the second stage as it is; held: as if it knew of the name at most what CLIP says (second.py);
right, masks: shares of scores and of masks (none, if it is not there) that are right; named: of photos asked for a hundred such names
at once, the share whose own name has the highest P, and the highest similarity by the second stage alone: of classes that CLIP's lists have
too, and of others

--unseen: the same figures for the names that train.py --unseen leaves out and for the others apart, without
background; also on voc_unseen, the photos that such runs do not train on.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import calibrate
import data
import shipped
from edges import Painter
from network import Network, SecondStage, presence_score
from rounding import to_int8
from second import Seen
from text import TextEncoder, embed, tokenizer
from train import masked_classes
from views import read_pixels, scaled


def load_model(folder, int8=False):
    """An exported or a shipped folder → network, text encoder. What is shipped is in int8 already."""
    folder = Path(folder)
    if (folder / "manifest.json").exists():
        found = shipped.read(folder)
        network, encoder = shipped.network_of(*found), shipped.text_of(found[1])
    else:
        config, state = json.loads((folder / "config.json").read_text()), load_file(str(folder / "model.safetensors"))
        if int8:
            state = {k: to_int8(v) if v.ndim > 1 else v.half().float() for k, v in state.items()}
        config["stage2"] = SecondStage.sizes(state)
        network, encoder = Network(config), TextEncoder({k: config["text"][k] for k in ("layers", "heads", "max_tokens")})
        network.load_state_dict({k: v for k, v in state.items() if not k.startswith("text.")})
        encoder.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("text.")})
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last), encoder.eval().requires_grad_(False)


def auc(scores, truth):
    """Area under the ROC curve by ranks (ties share their rank)."""
    scores, truth = np.asarray(scores), np.asarray(truth, bool)
    if truth.all() or not truth.any():
        return float("nan")
    values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = truth.sum(), (~truth).sum()
    return float((ranks[truth].sum() - n * (n + 1) / 2) / (n * m))


class Overlap:
    """Intersections and unions by class over a whole set."""

    def __init__(self, classes):
        self.both, self.truth, self.said = (np.zeros(classes) for _ in range(3))

    def add(self, said, truth):
        known = truth != data.IGNORE
        n = len(self.both)
        self.both += np.bincount(truth[known & (said == truth)], minlength=n)[:n]
        self.truth += np.bincount(truth[known], minlength=n)[:n]
        self.said += np.bincount(said[known], minlength=n)[:n]

    def mean(self, classes):
        """Mean IoU of those classes (a list or range of numbers) that occur in the truth."""
        there = [c for c in classes if self.truth[c]]
        return float((self.both[there] / (self.truth[there] + self.said[there] - self.both[there])).mean())


def label_map(s, numbers, theta):
    """Prompt maps [T,H,W] → the number of the largest where it exceeds theta, else 0."""
    best = s.argmax(0)
    return np.where(np.take_along_axis(s, best[None], 0)[0] > theta, np.asarray(numbers)[best], 0)


def oracle_labels(proposals, truth):
    """Labels of known pixels if the truth named the proposals [Q,N]: each gets the label, 0 among them, with which its IoU is
    highest, and where proposals overlap the higher IoU wins."""
    numbers = np.unique(truth)
    is_label = (truth[None] == numbers[:, None]).astype(np.float32)
    flat = proposals.astype(np.float32)
    both = flat @ is_label.T                                              # [Q,labels]
    iou = both / (flat.sum(1)[:, None] + is_label.sum(1) - both)
    best, said = iou.max(1), np.zeros(len(truth), truth.dtype)
    for q in np.argsort(best, kind="stable"):
        if best[q] > 0:
            said[proposals[q]] = numbers[iou[q].argmax()]
    return said


@torch.no_grad()
def evaluate(network, embeddings, chosen, theta, common=None, apart=()):
    """Figures of one validation set; embeddings [T,embed] of its names, common: those of the configuration's contrast. For names
    in apart, and for the others, the figures come once more under "unseen" and "seen"."""
    rng = np.random.default_rng(0)
    n = len(chosen.names)
    full, present_only, oracle = Overlap(n + 1), Overlap(n + 1), Overlap(n + 1)
    # Lists of (class number, figure) or (class number, score, is it there).
    single, by_class, hits, all_scores, single_scores = [], Overlap(n + 1), [], [], []
    started = time.time()
    for photo in chosen.photos:
        truth = photo.labels()
        there = [int(c) for c in np.unique(truth) if c not in (0, data.IGNORE)]
        picture = data.read_picture(photo.picture)
        x = scaled(picture, network.config["size"])
        encoded = network.encode(x)
        paint = Painter(x, picture, network.config["size"], network.config.get("edges"))

        def ask(numbers):
            e = embeddings[[c - 1 for c in numbers]]
            out = {k: v[0] for k, v in network.segment(encoded, e[None]).items()}
            beside = None if common is None else network.beside(encoded, e, common)
            rivals = beside and network.contrast(*beside, [[i] for i in range(len(e))])
            return out, network.answer(out, e, contrast=rivals)

        out, answer = ask(range(1, n + 1))
        full.add(label_map(paint(answer["S"].numpy(), theta), np.arange(1, n + 1), 0), truth)
        all_scores += [(c, s, c in there) for c, s in enumerate(answer["score"].tolist(), 1)]
        proposals = paint(out["masks"].sigmoid().numpy(), 0.5) > 0
        known = truth != data.IGNORE
        flat = proposals[:, known].astype(np.float32)
        oracle.add(oracle_labels(proposals[:, known], truth[known]), truth[known])
        for c in there:
            t = (truth[known] == c).astype(np.float32)
            both = flat @ t
            hits.append((c, float((both / (flat.sum(1) + t.sum() - both)).max())))
        if there:
            present_only.add(label_map(paint(ask(there)[1]["S"].numpy(), theta), there, 0), truth)
        absent = rng.permutation([c for c in range(1, n + 1) if c not in there])[:max(1, len(there))]
        for c in [*there, *absent.tolist()]:
            answer = ask([c])[1]
            single_scores.append((c, float(answer["score"][0]), c in there))
            if c in there:
                said = paint(answer["S"].numpy(), theta)[0] > 0
                t, s = (truth == c)[known], said[known]
                single.append((c, (t & s).sum() / (t | s).sum()))
                by_class.both[c] += (t & s).sum()
                by_class.truth[c] += t.sum()
                by_class.said[c] += s.sum()

    def figures(classes):
        of = lambda rows: np.array([r[1:] for r in rows if r[0] in classes], float).reshape(-1, len(rows[0]) - 1).T
        labels = [0, *classes] if chosen.background and len(classes) == n else classes
        (hit,), (alone,), named, asked = of(hits), of(single), of(all_scores), of(single_scores)
        return {"full": full.mean(labels), "present": present_only.mean(labels), "single": float(alone.mean()),
                "single_class": by_class.mean(classes), "recall50": float((hit >= 0.5).mean()), "recall75": float((hit >= 0.75).mean()),
                "auc": auc(*named), "auc_single": auc(*asked), "accuracy": float(((asked[0] >= 0.5) == asked[1]).mean())}

    found = figures(range(1, n + 1))
    found |= {"oracle": oracle.mean(range(0 if chosen.background else 1, n + 1)), "photos": len(chosen.photos),
              "seconds": (time.time() - started) / len(chosen.photos)}
    left_out = [c for c, name in enumerate(chosen.names, 1) if name in apart]
    if left_out:
        found |= {"unseen": figures(left_out), "seen": figures([c for c in range(1, n + 1) if c not in left_out])}
    return found


@torch.no_grad()
def evaluate_new(network, seen, common, masked, data_dir):
    """Figures of names without masks; seen: a second.Seen, of whose ImageNet names those in masked were trained with masks."""
    imagenet = seen.vectors[:len(seen.rows)]
    new = calibrate.new_names(network, imagenet, masked)
    asks = calibrate.ask_for_new(data_dir, [], imagenet, new, first=120, count=100)
    found = {}
    for kind, rows in (("new", network.stage2.rows(imagenet)), ("held", seen.rows_without(network.stage2))):
        requests = calibrate.collect_new(network, imagenet, rows, asks, common)
        there = np.array([bool(r.present[0]) for r in requests])
        scores = np.array([presence_score(*r.evidence(network.config), r.w, network.config,
                                          network.contrast(*r.beside, [[0]], r.rows))[0].item() for r in requests])
        found[kind] = {"auc": auc(scores, there), "right": [float((scores[there] >= 0.5).mean()), float((scores[~there] < 0.5).mean())],
                       "masks": calibrate.told_apart(requests, network.config),
                       "named": named(network, seen, rows, new, data_dir)}
    return found


def named(network, seen, rows, new, data_dir, photos=150, count=100):
    """Of ImageNet photos of so many classes with new names, each asked for its name and others of them at once, the shares whose own name has
    the highest P, and the highest similarity by the second stage alone: of classes that CLIP's lists have too, and of others."""
    pictures, imagenet = sorted((Path(data_dir) / "imagenet1000/images").iterdir()), seen.vectors[:len(seen.rows)]
    order, rng, found = np.random.default_rng(2).permutation(new).tolist(), np.random.default_rng(3), {}
    by_clip = seen.features[0].any(1).tolist()
    for group, wanted in (("listed", True), ("others", False)):
        right = []
        for which in [i for i in order if by_clip[i] == wanted][:photos]:
            near = (imagenet @ imagenet[which]).tolist()
            chosen = [which, *rng.permutation([i for i in new if near[i] < data.NEAR])[:count - 1].tolist()]
            e, pixels = imagenet[chosen], read_pixels(pictures[which], network.config["size"])
            out = {k: v[0] for k, v in network.segment(network.encode(pixels), e[None]).items()}
            z, b, _ = network.logits(out, e, rows[chosen])
            p = torch.cat((z, out["v"][:, None]), 1).softmax(-1)[:, :-1]
            right.append([int(x.amax(0).argmax()) == 0 for x in (p, b)])
        found[group] = np.mean(right, 0).tolist()
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--model", required=True, help="exported folder")
    p.add_argument("--sets", nargs="+", default=["voc_val", "voc_animals_val", "coco_val", "clothing_val"])
    p.add_argument("--limit", type=int, help="only the first so many photos of each set")
    p.add_argument("--int8", action="store_true", help="weights as the product ships them")
    p.add_argument("--theta", type=float)
    p.add_argument("--unseen", action="store_true", help="figures of the names that a run with --unseen leaves out, apart")
    p.add_argument("--new", metavar="CACHE", help="names that had no masks instead; a folder of the views that the model was trained on, as for recalibrate.py")
    p.add_argument("--set", nargs="+", default=[], metavar="KEY=NUMBER", help="other numbers than the configuration's, such as alpha=0.2")
    p.add_argument("--json", help="file that also gets the figures")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    network, encoder = load_model(args.model, args.int8)
    for item in args.set:
        key, _, number = item.partition("=")
        network.config[key] = float(number)
    theta, words = network.config["theta"] if args.theta is None else args.theta, tokenizer()
    splits = json.loads((Path(args.data) / "splits.json").read_text())
    sets = data.validation_sets(args.data, splits)
    apart = data.unseen_names(splits) if args.unseen else ()
    contrast = network.config.get("contrast")
    common = embed(encoder, words, contrast["names"]) if contrast else None
    found = {}
    if args.new:
        seen = Seen(network.trunk, args.data, encoder, words, data.load_classes(args.data).phrases())
        found = evaluate_new(network, seen, common, masked_classes(args.data, args.new), args.data)
        for kind, figures in found.items():
            print(f"{kind:8s}{figures}", flush=True)
        args.sets = []
    for name in args.sets + ["voc_unseen"] * args.unseen:
        chosen = sets[name]
        chosen.photos = chosen.photos[:args.limit]
        figures = found[name] = evaluate(network, embed(encoder, words, chosen.names), chosen, theta, common, apart)
        for row in (figures, *(figures[part] | {"of": part} for part in ("unseen", "seen") if part in figures)):
            print(f"{name:16s}" + "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
                                            if not isinstance(v, dict)), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
