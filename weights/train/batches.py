"""Training batches from the cached views: features, prompts, and mask targets at sampled cells of stride 4."""
import json
import queue
import random
import threading
from pathlib import Path

import numpy as np
import torch

import names
from data import CARRIED, IGNORE, NEAR, OWN, UNCLEAR, is_calibration
from views import SIZE, Cache

CELLS = SIZE // 4                      # mask cells along a side
MOST_TARGETS = 24


def foreign_names(data):
    """Names of no training class: ImageNet's and the less frequent of LVIS. Nearly always truthful as absent names."""
    lvis = json.loads((Path(data) / "clip-names/lvis_v1_train_cat_info.json").read_text())
    found = names.imagenet_names(data) + [names.clean(e["name"]) for e in lvis if e["frequency"] != "f"]
    return list(dict.fromkeys(found))


class PhraseTable:
    """Every phrase that training may ask for, with the student's embedding."""

    def __init__(self, classes, data, embed, unseen=(), own=()):
        self.names = {c: [n for n in v] for c, v in classes.names.items()}
        self.synonyms = {c: list(v) for c, v in classes.synonyms.items()}
        foreign = foreign_names(data)
        self.phrases = list(dict.fromkeys(classes.phrases() + foreign + list(own)))
        self.index = {p: i for i, p in enumerate(self.phrases)}
        self.embeddings = embed(self.phrases).numpy()                     # [N,embed]
        self.unseen = classes.numbers(unseen)
        self.held = self.embeddings[[self.index[n] for c in sorted(self.unseen) for n in self.names[c] + self.synonyms[c]]]
        foreign = np.array([self.index[f] for f in foreign])
        self.foreign = foreign[~self.near_unseen(self.embeddings[foreign])]

    def near_unseen(self, embeddings):
        """Which embeddings [N,embed] are next to an unseen name: they may not serve as absent names, nor as present ones."""
        return (embeddings @ self.held.T).max(1, initial=-1) >= NEAR

    def unseen_in(self, meta):
        """The class numbers of a view that must not be learned."""
        own = {int(c): self.index[name] for c, name in meta.get("own", {}).items()}
        return self.unseen | {c for c, near in zip(own, self.near_unseen(self.embeddings[list(own.values())])) if near} if own else self.unseen

    def phrase(self, c, rng, own={}):
        """A random phrase for class c: a preferred name, now and then a synonym. own: the names of the view's own numbers."""
        if c >= OWN:
            return self.index[own[str(c)]]
        group = self.synonyms[c] if self.synonyms[c] and rng.random() < 0.3 else self.names[c]
        return self.index[rng.choice(group)]


class Prompts:
    """Chooses what to ask for in a view: present names, names known to be absent, one name alone, or only absent ones."""

    def __init__(self, classes, table, most=64, every=False, refusals=0.0):
        self.classes, self.table, self.most, self.every, self.refusals = classes, table, most, every, refusals
        tags = set(classes.clothing.values())
        self.worn = tags - {c for c in tags if classes.names[c][0] in CARRIED}

    def choose(self, meta, rng):
        """→ phrase indices [T] in random order and {position: set of class numbers whose union is its mask}."""
        k, source, own = self.classes, meta["source"], meta.get("own", {})
        present = {c: {c} for c in meta["present"] if c not in self.table.unseen_in(meta)}
        completed = meta.get("completed", ())
        if completed and rng.random() < 0.4:                              # what nobody has labelled is not asked for in each view
            present = {c: group for c, group in present.items() if c not in completed}
        there = set(meta["present"]) | set(meta["tiny"]) | set(meta.get("maybe", ())) | self.table.unseen
        if source == "clothing":
            worn = set(meta["present"]) & self.worn
            if worn:
                present[k.person] = worn | {k.person}
            there.add(k.person)
            for group in k.groups:
                if group & there:
                    there |= group
        absent = sorted((k.known.get(source, set()) | k.absent.get(source, set()) | set(meta.get("absent", ()))) - there)
        rng.shuffle(absent)
        here = list(present)
        rng.shuffle(here)
        near = self.table.embeddings[[self.table.phrase(c, rng, own) for c in present]] if present else np.zeros((1, 384), np.float32)
        u = rng.random()
        if self.every:                                                    # all the source labels, whatever is there
            here, foreign = here[:MOST_TARGETS], 0
        elif u < 0.25 and here:
            here, absent, foreign = here[:1], [], 0
        elif u < 0.35 + self.refusals or not here:
            n = 1 if rng.random() < 0.4 else rng.randint(2, 24)
            if rng.random() < 0.5:
                # Names near those that are there are the ones that are found by mistake.
                absent.sort(key=lambda c: -(near @ self.table.embeddings[self.table.index[k.names[c][0]]]).max())
                absent = rng.sample(absent[:3 * n], min(n, len(absent)))
            here, absent, foreign = [], absent[:n], rng.randint(0, 4) if n > 1 or not absent else 0
        else:
            if rng.random() < 0.25:
                here = here[:rng.randint(1, len(here))]
            here = here[:MOST_TARGETS]
            absent = absent[:int(self.most * rng.random() ** 1.7)]
            foreign = rng.randint(1, 16) if rng.random() < 0.5 else 0
        chosen = [(self.table.phrase(c, rng, own), present.get(c)) for c in here + absent]
        if foreign:
            for f in rng.sample(self.table.foreign.tolist(), foreign):
                if (near @ self.table.embeddings[f]).max() < 0.4:
                    chosen.append((f, None))
        # One phrase can name two classes; the present one wins, so that no prompt contradicts itself.
        unique = {}
        for phrase, mask in chosen:
            if unique.get(phrase) is None:
                unique[phrase] = mask
        order = list(unique)
        rng.shuffle(order)
        return order, {i: unique[f] for i, f in enumerate(order) if unique[f] is not None}


def sample_cells(labels, count, rng):
    """Cells [count] of stride 4, half of them near borders between labels, and how many cells each stands for."""
    coarse = labels[4::4, 4::4]
    coarse = np.pad(coarse, ((0, CELLS - coarse.shape[0]), (0, CELLS - coarse.shape[1])), mode="edge")
    edge = np.zeros((CELLS, CELLS), bool)
    for axis in (0, 1):
        a, b = np.moveaxis(coarse, axis, 0)[:-1], np.moveaxis(coarse, axis, 0)[1:]
        e = np.moveaxis(edge, axis, 0)
        e[:-1] |= a != b
        e[1:] |= a != b
    edge = edge.ravel()
    near, far = np.flatnonzero(edge), np.flatnonzero(~edge)
    n = min(len(near), count // 2)
    m = min(len(far), count - n)
    cells = np.concatenate((rng.permutation(near)[:n], rng.permutation(far)[:m],
                            rng.choice(CELLS * CELLS, count - n - m)))
    weights = np.concatenate((np.full(n, len(near) / max(n, 1)), np.full(m, len(far) / max(m, 1)), np.zeros(count - n - m)))
    return cells, weights.astype(np.float32)


def cell_labels(labels, cells):
    """The 16 class numbers round the centre of each cell [K,16]: cell i is centred at pixel coordinate 4i+4."""
    padded = np.pad(labels, (0, 2), mode="edge")
    y, x = cells // CELLS * 4 + 2, cells % CELLS * 4 + 2
    d = np.arange(4)
    return padded[(y[:, None] + d)[:, :, None], (x[:, None] + d)[:, None]].reshape(len(cells), 16)


class Batches:
    """Endless batches, made ahead in a thread. Rank r of n ranks sees every n-th view."""

    def __init__(self, cache_folder, classes, table, batch, points, seed, rank=0, ranks=1, levels=None, dropped=(),
                 every_name=False, held_out=False, refusals=0.0):
        self.cache, self.table = Cache(cache_folder), table
        self.prompts = Prompts(classes, table, every=every_name, refusals=refusals)
        self.batch, self.points, self.levels, self.held_out = batch, points, levels, held_out
        self.rng, self.np_rng = random.Random(seed * 97 + rank), np.random.default_rng([seed, rank])
        self.rank, self.ranks, self.dropped = rank, ranks, set(dropped)
        self.ready = queue.Queue(3)
        threading.Thread(target=self.run, daemon=True).start()

    def views(self):
        while True:
            # Read again each round: the cache may still be growing.
            facts = [f for f in self.cache.facts()
                     if f[1]["name"] not in self.dropped
                     and is_calibration(f[1]["source"], f[1]["name"]) == self.held_out][self.rank::self.ranks]
            self.rng.shuffle(facts)
            yield from facts

    def run(self):
        views = self.views()
        while True:
            self.ready.put(self.make([next(views) for _ in range(self.batch)]))

    def make(self, views):
        b, k = self.batch, self.points
        cells, weights = np.zeros((b, k), np.int64), np.zeros((b, k), np.float32)
        targets = np.zeros((b, MOST_TARGETS, k), np.float32)
        owners = np.full((b, MOST_TARGETS), -1)                           # which prompt a target belongs to
        asked = []
        for i, (_, meta) in enumerate(views):
            lut = np.arange(256, dtype=np.uint8)
            lut[list(self.table.unseen_in(meta))] = IGNORE
            order, masks = self.prompts.choose(meta, self.rng)
            asked.append(order)
            # Where a model was unsure it may be one of the names that a model saw, but none that the photo's set labels.
            lut[UNCLEAR] = IGNORE if set(meta.get("completed", ())) & set().union(*masks.values()) else 0
            labels = lut[self.cache.labels(meta)]
            cells[i], weights[i] = sample_cells(labels, k, self.np_rng)
            around = cell_labels(labels, cells[i])                        # [K,16]
            known = around != IGNORE
            weights[i] *= known.sum(1) >= 8
            for j, (position, members) in enumerate(masks.items()):
                owners[i, j] = position
                member = np.zeros(256, bool)
                member[list(members)] = True
                targets[i, j] = member[around].sum(1) / np.maximum(known.sum(1), 1)
        most = max(1, max(map(len, asked)))
        text = np.zeros((b, most, self.table.embeddings.shape[1]), np.float32)
        valid = np.zeros((b, most), bool)
        for i, order in enumerate(asked):
            text[i, :len(order)], valid[i, :len(order)] = self.table.embeddings[order], True
        used = max(1, (owners >= 0).sum(1).max())
        out = {"cells": cells, "weights": weights, "targets": targets[:, :used], "owners": owners[:, :used], "text": text, "valid": valid}
        out = {name: torch.from_numpy(v) for name, v in out.items()}
        indices = np.array([i for i, _ in views])
        out["features"] = self.cache.get(indices, self.levels) if self.levels else self.cache.get(indices)
        return out

    def __next__(self):
        return self.ready.get()
