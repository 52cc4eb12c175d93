"""Calibration: the numbers of config.json.

Everything is fitted on training photos that were kept out of the gradient (data.is_calibration) and on the ImageNet
photos; the validation lists are not looked at.
"""
import json
import math
from pathlib import Path

import numpy as np
import torch

import data
from network import capped, joined, logit, presence_score
from views import read_pixels

THETAS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
CAP = 0.5                                                                 # see network.capped
EMPTY = 0.002                                                             # share of a picture below which a mask is (nearly) empty
# Common names that are asked for beside the prompts to judge whether these are there. Names with a cosine of "below" or more to
# a prompt are left out: they may be the same thing. More prompts than "most" are common names enough for one another.
CONTRAST = {"names": """person, dog, cat, bird, horse, cow, car, bus, truck, bicycle, motorcycle, airplane, boat, train, chair, couch,
table, bed, tv, bottle, cup, bowl, potted plant, sky, tree, grass, road, building, wall, floor, water, mountain, sand, snow, fence, window,
door, ceiling, food, book, bag, shoes, hair, skin, shirt, pants, dress, hat, jacket""".replace("\n", " ").split(", "), "below": 0.5, "most": 8}


class Request:
    """One picture asked for some names: what the network said and where the names are, at stride 8."""

    def __init__(self, kind, out, b, w, beside, numbers, labels, rows=()):
        self.kind, self.beside, self.rows = kind, beside, rows
        self.a, self.v, self.b, self.w = out["a"], out["v"], b, w         # [Q,T], [Q], [Q,T], [T]
        self.masks = out["masks"][:, 1::2, 1::2].sigmoid().half()         # [Q,h,w]
        self.numbers, self.labels = numbers, labels                       # labels: [h,w], 255 = unknown
        self.present = torch.tensor([bool((labels == c).any()) for c in numbers])

    def chances(self, s, w=None):
        z = joined(self.a, self.b, self.w if w is None else torch.full_like(self.w, w), s)
        return torch.cat((z, self.v[:, None]), 1).softmax(-1)[:, :-1]

    def maps(self, s, w=None):
        """The prompts' maps S at stride 8."""
        shown = capped(self.chances(s, w), self.w if w is None else torch.full_like(self.w, w), s)
        return torch.einsum("qt,qhw->thw", shown, self.masks.float())

    def evidence(self, s):
        """What presence_score looks at in the answer: the best query's P of each name, and the peak of a map made of P as it is."""
        return self.chances(s).amax(0), self.maps(s | {"cap": 1.0}).flatten(1).amax(1)

    def overlaps(self, s, w=None):
        """IoU of each name that is there, in the label map of all names asked for; for an absent name asked for alone,
        1 if its mask stays (nearly) empty."""
        best, which = self.maps(s, w).max(0)
        known = self.labels != data.IGNORE
        if self.kind == "absent":
            return [float((best > s["theta"]).float().mean() < EMPTY)]
        found = []
        for i in torch.nonzero(self.present).flatten().tolist():
            said, truth = (which == i) & (best > s["theta"]) & known, self.labels == self.numbers[i]
            found.append(((said & truth).sum() / (said | truth).sum()).item())
        return found


def ask(network, encoded, e, common):
    """What a Request is made of when an encoded picture is asked for names [T,embed]: the last prediction, the second stage's
    similarities, and what Network.beside says."""
    out = {k: v[0] for k, v in network.segment(encoded, e[None]).items()}
    return out, network.stage2.similarity(out["pooled"], e), network.beside(encoded, e, common)


@torch.no_grad()
def collect(network, embeddings, index, classes, photos, common, unseen=()):
    """Requests of every kind (all names, those present, one alone) for the calibration photos; common: embeddings of the names of
    CONTRAST; unseen: class numbers that nobody asks for, and whose pixels are ignored."""
    rng = np.random.default_rng(1)
    requests = []
    for photo in photos:
        truth = photo.labels()
        truth[np.isin(truth, list(unseen))] = data.IGNORE
        pixels = read_pixels(photo.picture, network.config["size"])
        encoded = network.encode(pixels)
        height, width = truth.shape
        scale = network.config["size"] / max(height, width)
        h, w = encoded["M4"].shape[2] // 2, encoded["M4"].shape[3] // 2
        # The centre of cell 2i+1 of stride 4 is pixel coordinate 8i+8 of the scaled photo.
        y, x = (np.arange(h) * 8 + 8) / scale, (np.arange(w) * 8 + 8) / scale
        labels = np.full((h, w), data.IGNORE, np.uint8)
        iy, ix = (y < height).nonzero()[0], (x < width).nonzero()[0]
        labels[np.ix_(iy, ix)] = truth[np.ix_(y[iy].astype(int), x[ix].astype(int))]
        labels = torch.from_numpy(labels)
        known = sorted(classes.known[photo.source] - ({classes.person} if photo.source == "clothing" else set()) - set(unseen))
        there = [c for c in known if (labels == c).any()]
        absent = [c for c in known if not (truth == c).any()]
        absent = [int(c) for c in rng.permutation(absent)[:max(1, len(there[:3]))]]
        asks = [("full", known)] + [("present", there)] * bool(there) + [("single", [c]) for c in there[:3]] + [("absent", [c]) for c in absent]
        for kind, numbers in asks:
            # Each class goes by its first name.
            e = embeddings[[index[classes.names[c][0]] for c in numbers]]
            out, b, beside = ask(network, encoded, e, common)
            requests.append(Request(kind, out, b, torch.zeros(len(numbers)), beside, numbers, labels))
    return requests


@torch.no_grad()
def collect_new(network, embeddings, rows, asks, common):
    """Requests of one name alone for names that were never trained with masks, as if the second stage did not know them either.
    rows: see Seen.rows_without; asks: (picture, index of the name in embeddings, is it there)."""
    requests = []
    for picture, which, there in asks:
        e, row = embeddings[[which]], rows[[which]]
        out, _, beside = ask(network, network.encode(read_pixels(picture, network.config["size"])), e, common)
        labels = torch.full((1, 1), 1 if there else data.IGNORE)
        requests.append(Request("new", out, network.stage2.similarity(out["pooled"], e, row), network.stage2.weights(e, network.config),
                                beside, [1], labels, row))
    return requests


def told_apart(requests, s):
    """Of the names of collect_new, the share of those that are there whose mask is not (nearly) empty, and of the others whose is."""
    right = {True: [], False: []}
    for r in requests:
        there = bool(r.present[0])
        right[there].append((float((r.maps(s)[0] > s["theta"]).float().mean()) >= EMPTY) == there)
    return [float(np.mean(v)) for v in right.values()]


def new_names(network, imagenet, masked):
    """Indices of ImageNet's names that had no masks and are not near a name that had some."""
    return [i for i, share in enumerate(network.stage2.weights(imagenet, network.config).tolist())
            if i not in masked and share > network.config["beta"] / 2]


def ask_for_new(data_dir, others, imagenet, new, first=0, count=120):
    """What collect_new asks: so many photos of ImageNet's classes with new names [indices] for their own name and for another, and others,
    which are (picture, embeddings of what is there), for one of these names. Names near what is there are no absent ones. Calibration
    asks for the first photos of an order that stays the same."""
    rng = np.random.default_rng(2)
    pictures = sorted((Path(data_dir) / "imagenet1000/images").iterdir())
    asks = []
    for i in rng.permutation(new)[first:first + count].tolist():
        asks.append((pictures[i], i, True))
        others.append((pictures[i], imagenet[[i]]))
    for picture, there in others:
        near = (imagenet[new] @ there.T).amax(1) if len(there) else torch.zeros(len(new))
        asks.append((picture, int(rng.choice([j for j, c in zip(new, near.tolist()) if c < data.NEAR])), False))
    return asks


def score(requests, s, w=None):
    """Mean over the kinds of request of the mean IoU (for absent names, of the share left empty)."""
    kinds = {}
    for r in requests:
        kinds.setdefault(r.kind, []).extend(r.overlaps(s, w))
    means = {k: float(np.mean(v)) for k, v in kinds.items() if v}
    return float(np.mean(list(means.values()))), means


def fit_presence(requests, s):
    """Logistic regression of "is in the picture" on what presence_score looks at."""
    rows, truth, weight, kinds = [], [], [], []
    for r in requests:
        if r.kind == "present":
            continue
        n = len(r.numbers)
        prompts = torch.full((n,), math.log(n))
        rows.append(torch.stack((torch.ones(n), *(logit(x) for x in r.evidence(s)), prompts, logit(r.contrast), r.w), 1))
        truth += r.present.tolist()
        weight += [1.0 / n] * n
        kinds += [r.kind if r.kind == "new" else "one" if n == 1 else "many"] * n
    x, y, weight = torch.cat(rows).double(), torch.tensor(truth).double(), torch.tensor(weight, dtype=torch.float64)
    for kind in set(kinds):                                               # present and absent weigh alike in each kind
        for value in (0, 1):
            chosen = torch.tensor([k == kind for k in kinds]) & (y == value)
            weight[chosen] /= weight[chosen].sum()
    p = torch.zeros(x.shape[1], dtype=torch.float64)
    for _ in range(50):                                                   # Newton's method
        q = (x @ p).sigmoid()
        gradient = x.T @ (weight * (q - y)) + 1e-4 * p
        hessian = x.T @ (x * (weight * q * (1 - q))[:, None]) + 1e-4 * torch.eye(len(p))
        p = p - torch.linalg.solve(hessian, gradient)
    return dict(zip(("bias", "logit", "peak", "prompts", "contrast", "share"), p.tolist()))


def calibration_photos(data_dir, classes, splits, per_source):
    """Photos that gave no gradient, up to so many of each source."""
    kept = [p for p in data.training_photos(data_dir, classes, splits) if data.is_calibration(p.source, p.name)]
    return [p for source in ("coco", "things", "voc", "animals", "clothing") for p in [q for q in kept if q.source == source][:per_source]]


def calibrate(network, embeddings, index, common, seen, masked, data_dir, per_source=45, unseen=False, second=None):
    """Fits theta, kappa, b0, alpha and the presence score; returns the entries of config.json. common: see collect; seen: a
    second.Seen, of whose ImageNet names those in masked were trained with masks; unseen: as if the names of data.unseen_names and
    their photos were not there; second: kappa and b0, if they are not to be fitted."""
    imagenet = seen.vectors[:len(seen.rows)]
    classes = data.load_classes(data_dir)
    splits = json.loads((Path(data_dir) / "splits.json").read_text())
    photos = calibration_photos(data_dir, classes, splits, per_source)
    left_out = classes.numbers(data.unseen_names(splits)) if unseen else set()
    if unseen:
        photos = [p for p in photos if p.source != "voc" or p.name not in splits["voc_unseen"]]
    network.config["contrast"] = CONTRAST
    requests = collect(network, embeddings, index, classes, photos, common, left_out)
    print(f"calibration: {len(photos)} photos, {len(requests)} requests", flush=True)
    s = {"theta": 0.5, "kappa": 0.0, "b0": 0.0, "alpha": 0.0, "beta": 0.8, "keep": 1.0, "cap": CAP, "contrast": CONTRAST}

    there = [r for r in requests if r.kind != "absent"]

    def best_theta(w=None):
        tried = [(score(there, s | {"theta": v}, w), v) for v in THETAS]
        (mean, kinds), value = max(tried, key=lambda t: t[0][0])
        print(f"  theta {value}: mean IoU {mean:.4f} {kinds} (tried " + ", ".join(f"{v}: {m[0]:.4f}" for m, v in tried) + ")", flush=True)
        return value

    s["theta"] = best_theta(w=0.0)
    # How far the second stage's word counts is found with names that have no masks.
    network.config.update(s)
    # Photos of names next to those left out are not asked for.
    held = embeddings[[index[n] for c in sorted(left_out) for n in classes.names[c]]]
    new = [i for i in new_names(network, imagenet, masked) if not (unseen and (held @ imagenet[i]).max() >= data.NEAR)]
    known = lambda photo: [index[classes.names[c][0]] for c in np.unique(photo.labels()).tolist() if c in classes.names]
    asks = ask_for_new(data_dir, [(p.picture, embeddings[known(p)]) for p in photos], imagenet, new)
    untrained = collect_new(network, imagenet, seen.rows_without(network.stage2), asks, common)
    results = []
    for kappa in () if second else (15, 20, 25, 32):
        tried = [(told_apart(untrained, s | {"kappa": kappa, "b0": b0}), b0) for b0 in (-0.08, -0.04, 0.0, 0.04, 0.08, 0.12, 0.16)]
        print(f"  kappa {kappa}: there, not there " + ", ".join(f"b0 {b0}: {f:.3f} {g:.3f}" for (f, g), b0 in tried), flush=True)
        sums = [f + g for (f, g), _ in tried]
        # A mean of neighbours, since one alone is a matter of luck. Of what is as good the smallest b0, since the presence score refuses, too.
        smallest = min(b0 for total, (_, b0) in zip(sums, tried) if total >= max(sums) - 0.02)
        results += [(sum(sums[i - 1:i + 2]), kappa, smallest) for i in range(1, len(sums) - 1)]
    s["kappa"], s["b0"] = second or max(results)[1:]
    top = -1.0
    for alpha in (0.0, 0.1, 0.2, 0.3):
        mean, kinds = score(there, s | {"alpha": alpha}, alpha)
        print(f"  alpha {alpha}: mean IoU {mean:.4f} {kinds}", flush=True)
        if mean > top + 2e-3:                                             # none, unless it helps clearly: rounding makes as much as half of that
            top, s["alpha"] = mean, alpha
    for r in requests:
        r.w[:] = s["alpha"]
    s["theta"] = best_theta()
    network.config.update(s)
    requests += untrained
    for r in requests:
        r.contrast = r.evidence(s)[0] if r.beside is None else network.contrast(*r.beside, [[i] for i in range(len(r.numbers))], r.rows)
    s["presence"] = fit_presence(requests, s)
    right = {}
    for r in requests:
        if r.kind in ("single", "absent", "new"):
            said = presence_score(*r.evidence(s), r.w, {**network.config, **s}, r.contrast)[0].item() >= 0.5
            truth = bool(r.present[0])
            right.setdefault(("present" if truth else "absent") + (" new" if r.kind == "new" else ""), []).append(said == truth)
    print(f"  presence {s['presence']}: right for " + ", ".join(f"{np.mean(v):.3f} of {k}" for k, v in right.items()), flush=True)
    return s
