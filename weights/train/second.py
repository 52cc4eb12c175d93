"""What the second stage is fitted to: names, and for each the row of the ImageNet classifier that tells what it looks like.

ImageNet's 1,000 names have rows of their own. Of many more names CLIP knows what they look like: there are its features of the text
of LVIS' and Objects365's names, and of pictures of LVIS'. Kernel ridge regression, fitted on the names that both lists have, takes these
features to rows, and kernel ridge regression again takes our own text encoder's vectors to the rows of all names together.
"""
import copy
import csv
import json
import re
from pathlib import Path

import numpy as np
import torch

import names
from network import load_published, normalise

RIDGE = 0.5
CLIP_RIDGE = 0.3
FOLDS = 20


def likeness(a, b):
    """The regressions' kernel of vectors of length one [n,C], [m,C] → [n,m]; the engine has the same."""
    return ((a @ b.T - 1) / 0.3).exp()


def clip_features(data_dir):
    """CLIP's features of names: of their texts {name: [512]}, and of pictures of some of them."""
    folder = Path(data_dir) / "clip-names"
    # A text's features lie in a column, pictures' in a row.
    read = lambda file: (lambda x: torch.from_numpy(x if x.shape[-1] == 512 else x.T).float())(np.load(folder / file))
    texts, pictures = {}, {}
    lvis = sorted(json.loads((folder / "lvis_v1_train_cat_info.json").read_text()), key=lambda entry: entry["id"])
    for entry, text, picture in zip(lvis, read("lvis_v1_clip_a+cname.npy"), read("lvis_image_exemplar_features_avg.npy"), strict=True):
        for name in [entry["name"], *entry["synonyms"]]:
            texts.setdefault(names.clean(name), text)
            pictures.setdefault(names.clean(name), picture)
    with open(folder / "Objects365_names_fix.csv") as f:
        for line, text in zip(csv.reader(f), read("o365_clip_a+cnamefix.npy"), strict=True):
            for name in line[1:]:
                texts.setdefault(names.clean(name), text)
    return texts, pictures


def imagenet_labels(data_dir):
    """All the names of each ImageNet class, in the classifier's order."""
    lines = (Path(data_dir) / "backbones/imagenet_labels.txt").read_text().splitlines()[1:]
    return [[names.clean(name) for name in re.sub(r"^\d+\s+", "", line).split(",")] for line in lines]


class Seen:
    """The names, their vectors and their rows.

    trunk: a network's, of which the kind counts, not the weights; embed: names → vectors [n,embed] of length one; trained: names
    that the second stage has nothing to say about. names are ImageNet's 1,000 and behind them the others; vectors is [N,embed].
    """

    def __init__(self, trunk, data_dir, embed, trained):
        imagenet = names.imagenet_names(data_dir)
        labels = [[name, *more] for name, more in zip(imagenet, imagenet_labels(data_dir), strict=True)]
        texts, pictures = clip_features(data_dir)
        left = {name for group in labels for name in group} | set(trained)
        self.names = [*imagenet, *(name for name in texts if name not in left)]
        self.vectors = embed(self.names)
        classifier, _ = load_published(copy.deepcopy(trunk), data_dir)
        self.rows = normalise(classifier - classifier.mean(0))            # of ImageNet's names [1000,C]
        # For each of names what CLIP calls it; none for many of ImageNet's.
        called = [next((name for name in group if name in texts), None) for group in labels] + self.names[len(imagenet):]
        stack = lambda features: torch.stack([features.get(name, torch.zeros(512)) for name in called])
        self.features = [stack(texts), stack(pictures)]

    def rows_by_clip(self, fitted):
        """Rows [N,C] by CLIP's features, the mean of what text and pictures say, zeros where CLIP has none; from those of ImageNet's names in
        the mask fitted [1000]."""
        total, count = torch.zeros(len(self.names), self.rows.shape[1]), torch.zeros(len(self.names), 1)
        for features in self.features:
            has = features.any(1)
            chosen = has[:len(fitted)] & fitted
            from_mean = normalise(features - features[:len(fitted)][chosen].mean(0))
            known = from_mean[:len(fitted)][chosen]
            coefficients = torch.linalg.solve(likeness(known, known) + CLIP_RIDGE * torch.eye(len(known)), self.rows[chosen])
            total[has] += likeness(from_mean[has], known) @ coefficients
            count[has] += 1
        return total / count.clamp_min(1)

    def known(self, fitted):
        """What the second stage is fitted to if of ImageNet's names those in the mask fitted [1000] have rows of their own: indices of names, and
        their rows. The rest of ImageNet's names has CLIP's, or none."""
        rows = self.rows_by_clip(fitted)
        rows[:len(fitted)][fitted] = self.rows[fitted]
        index = torch.nonzero(rows.any(1)).flatten()
        return index, rows[index]

    def fit(self, pooled, rank, space):
        """The second stage's tensors (see network.SecondStage): kernel ridge regression at low rank, from vectors of space numbers.

        pooled: average head features of ImageNet photos [n,C]; their mean is the centre of the similarity.
        """
        index, rows = self.known(torch.ones(len(self.rows), dtype=torch.bool))
        index, rows = (x[:len(index) // 8 * 8] for x in (index, rows))    # the engine takes names in eights
        vectors = self.vectors[index]
        mean = vectors.mean(0)
        project = torch.linalg.svd(vectors - mean, full_matrices=False).Vh[:space]
        centres = normalise((vectors - mean) @ project.T)
        kernel = likeness(centres, centres)
        coefficients = torch.linalg.solve(kernel + RIDGE * torch.eye(len(kernel)), rows)
        # The best low rank for the predicted rows, not for the coefficients themselves.
        basis = torch.linalg.svd(kernel @ coefficients, full_matrices=False).Vh[:rank]
        kept = ((kernel @ coefficients @ basis.T).square().sum() / (kernel @ coefficients).square().sum()).item()
        print(f"second stage: {len(rows)} names, rank {rank} keeps {kept:.4f} of the predicted rows", flush=True)
        return {"project.weight": project, "project.bias": -project @ mean, "names": centres, "coef_u": coefficients @ basis.T,
                "coef_v": basis, "center": pooled.mean(0)}

    def rows_without(self, stage):
        """The rows [1000,C] that a second stage would give to ImageNet's names, had it been fitted without their own: a twentieth of these is left
        out at a time."""
        found, basis = torch.empty_like(self.rows), stage.coef_v
        places = stage.place(self.vectors)
        fold = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(0)) % FOLDS
        for number in range(FOLDS):
            index, rows = self.known(fold != number)
            centres, left = places[index], torch.nonzero(fold == number).flatten()
            coefficients = torch.linalg.solve(likeness(centres, centres) + RIDGE * torch.eye(len(centres)), rows)
            found[left] = likeness(places[left], centres) @ coefficients
        return normalise(found @ basis.T @ basis)
