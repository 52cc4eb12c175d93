"""What the second stage is fitted to: names, and for each the row of the ImageNet classifier that tells what it looks like.

ImageNet's 1,000 names have rows of their own. Of many more names CLIP knows what they look like: there are its features of the text
of LVIS' and Objects365's names, and of pictures of LVIS'. Kernel ridge regression, fitted on the names that both lists have, takes these
features to rows, and kernel ridge regression again takes our own text encoder's vectors to the rows of all names together.
"""
import copy
from pathlib import Path

import numpy as np
import torch

import names
from network import likeness, load_published, normalise
from text import embed

RIDGE = 0.5
CLIP_RIDGE = 0.3
FOLDS = 20


def ridge(vectors, rows, weight):
    """Coefficients [n,C] of the kernel ridge regression from vectors of length one [n,D] to rows [n,C]."""
    return torch.linalg.solve(likeness(vectors, vectors) + weight * torch.eye(len(vectors)), rows)


def clip_features(data_dir):
    """CLIP's features of names: of their texts {name: [512]}, and of pictures of some of them."""
    # A text's features lie in a column, pictures' in a row.
    read = lambda file: (lambda x: torch.from_numpy(x if x.shape[-1] == 512 else x.T).float())(np.load(Path(data_dir) / "clip-names" / file))
    texts, pictures = {}, {}
    for found, groups, file in ((texts, names.lvis_names(data_dir), "lvis_v1_clip_a+cname.npy"),
                                (pictures, names.lvis_names(data_dir), "lvis_image_exemplar_features_avg.npy"),
                                (texts, names.objects365_names(data_dir), "o365_clip_a+cnamefix.npy")):
        for group, features in zip(groups, read(file), strict=True):
            for name in group:
                found.setdefault(name, features)
    return texts, pictures


class Seen:
    """The names, their vectors and their rows.

    trunk: a network's, of which the kind counts, not the weights; encoder, words: what embeds names; trained: names that the
    second stage has nothing to say about. names are ImageNet's 1,000 and behind them the others; vectors is [N,embed].
    """

    def __init__(self, trunk, data_dir, encoder, words, trained):
        imagenet = names.imagenet_names(data_dir)
        labels = [[name, *more] for name, more in zip(imagenet, names.imagenet_labels(data_dir)[1:], strict=True)]
        texts, pictures = clip_features(data_dir)
        left = {name for group in labels for name in group} | set(trained)
        self.names = [*imagenet, *(name for name in texts if name not in left)]
        self.vectors = embed(encoder, words, self.names)
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
            total[has] += likeness(from_mean[has], known) @ ridge(known, self.rows[chosen], CLIP_RIDGE)
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
        coefficients = ridge(centres, rows, RIDGE)
        predicted = likeness(centres, centres) @ coefficients
        # The best low rank for the predicted rows, not for the coefficients themselves.
        basis = torch.linalg.svd(predicted, full_matrices=False).Vh[:rank]
        kept = ((predicted @ basis.T).square().sum() / predicted.square().sum()).item()
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
            found[left] = likeness(places[left], centres) @ ridge(centres, rows, RIDGE)
        return normalise(found @ basis.T @ basis)
