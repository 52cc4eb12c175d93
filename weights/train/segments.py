"""Photos and their segments as training examples for the public bases: COCO panoptic, COCO-Stuff, or the labelled
photos of data.py.

An example depends on nothing but the seed and its number. So a run that goes on, or one on more graphics cards, learns from
the same examples in the same order, and no state of a sampler has to be kept.
"""
import json
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

import data
from clip import cut
from names import clean

LEAST = 100           # pixels of a segment that CLIP may learn from


def phrases_of(label):
    """The names that a label lists: "sofa, couch" has two."""
    return [p.strip() for p in label.split(",") if p.strip()]


def named(path):
    """The lines of a list of names, without numbers in front and what is no class."""
    lines = [re.sub(r"^\d+:", "", line.strip()) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and line != "invalid_class_id"]


def matched(labels, names):
    """The label of each of the photos' class names, and the names that no label has: then the names are to be the labels."""
    number = {p: i for i, label in reversed(list(enumerate(labels))) for p in [*phrases_of(label), label]}
    missing = [n for n in names if n not in number]
    return list(range(len(names))) if missing else [number[n] for n in names], missing


@dataclass
class Segments:
    """A photo: pixels [H,W,3], which segment each belongs to [H,W] (0 = none), and the class numbers of segments 1, 2, …"""
    pixels: np.ndarray
    owner: np.ndarray
    classes: list
    there: set            # classes that may be in it, whether they have a segment or not
    known: set            # classes that are absent unless they are there


class CocoPanoptic:
    """ROOT/annotations/panoptic_SPLIT.json, the PNGs in the folder of that name beside it, and the photos in ROOT/SPLIT."""

    def __init__(self, root, split):
        self.photos, about = Path(root) / split, Path(root) / f"annotations/panoptic_{split}.json"
        self.masks = about.with_suffix("")
        found = json.loads(about.read_text())
        self.files = {p["id"]: p["file_name"] for p in found["images"]}
        self.annotations = found["annotations"]
        self.names = [clean(c["name"]) for c in found["categories"]]
        self.number = {c["id"]: i for i, c in enumerate(found["categories"])}

    def __len__(self):
        return len(self.annotations)

    def read(self, i):
        a = self.annotations[i]
        coded = data.read_picture(self.masks / a["file_name"]).astype(np.int64) @ [1, 256, 65536]
        owner, classes = np.zeros(coded.shape, np.int64), []
        for s in a["segments_info"]:
            if not s.get("iscrowd"):
                classes.append(self.number[s["category_id"]])
                owner[coded == s["id"]] = len(classes)
        there = {self.number[s["category_id"]] for s in a["segments_info"]}
        return Segments(data.read_picture(self.photos / self.files[a["image_id"]]), owner, classes, there, set(range(len(self.names))))


class LabelledPhotos:
    """The photos of data.py that are labelled with COCO's names, VOC's among them: one segment a name."""

    def __init__(self, root):
        found = data.load_classes(root)
        self.number = {c: i for i, c in enumerate(found.coco.values())}
        self.names = [found.names[c][0] for c in self.number]
        self.known = {source: {self.number[c] for c in known & self.number.keys()} for source, known in found.known.items()}
        splits = json.loads((Path(root) / "splits.json").read_text())
        self.photos = [p for p in data.training_photos(root, found, splits)
                       if p.source != "clothing" and not data.is_calibration(p.source, p.name)]

    def __len__(self):
        return len(self.photos)

    def read(self, i):
        p = self.photos[i]
        owner, present = one_each(p.labels(), self.number)
        classes = [self.number[c] for c in present]
        return Segments(data.read_picture(p.picture), owner, classes, set(classes), self.known[p.source])


class CocoStuff:
    """The photos in ROOT/SPLIT and their labels as detectron2 prepares them: grey PNGs in ROOT/stuffthingmaps_detectron2/SPLIT with the
    numbers of names, 255 for none. One segment a name."""

    def __init__(self, root, split, names):
        self.photos, self.labels, self.names = Path(root) / split, Path(root) / "stuffthingmaps_detectron2" / split, names
        self.files = sorted(p.stem for p in self.labels.glob("*.png"))

    def __len__(self):
        return len(self.files)

    def read(self, i):
        labels = cv2.imread(str(self.labels / f"{self.files[i]}.png"), cv2.IMREAD_GRAYSCALE)
        owner, classes = one_each(labels, range(len(self.names)))
        return Segments(data.read_picture(self.photos / f"{self.files[i]}.jpg"), owner, classes, set(classes), set(range(len(self.names))))


def one_each(labels, numbers):
    """Labels [H,W] as segments, one for each of those numbers that are there."""
    present = [c for c in numbers if (labels == c).any()]
    table = np.zeros(256, np.int64)
    table[present] = range(1, len(present) + 1)
    return table[labels], present


def jitter(photo, size, scale, rng):
    """Large-scale jittering: the photo, mirrored or not, as large as fits into size times a random number of scale, and of that
    a random window [size,size]. → pixels and owners, and how much of the window is photo: [height, width]."""
    pixels, owner = photo.pixels, photo.owner
    if rng.random() < 0.5:
        pixels, owner = pixels[:, ::-1], owner[:, ::-1]
    h, w = owner.shape
    factor = size * rng.uniform(*scale) / max(h, w)
    sides = [max(1, round(n * factor)) for n in (h, w)]
    first = [int(rng.integers(max(n - size, 0) + 1)) for n in sides]
    shown = [min(n, size) for n in sides]
    window = tuple(slice(f, f + n) for f, n in zip(first, shown))
    pixels = cv2.resize(np.ascontiguousarray(pixels), sides[::-1], interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)[window]
    rows, columns = ((np.arange(n)[part] + 0.5) * of / n for n, of, part in zip(sides, (h, w), window))
    return pixels, owner[rows.astype(int)[:, None], columns.astype(int)], shown


def ask(present, photo, options, rng):
    """The classes to ask for, in random order: one of those present, only absent ones, or all that are present and some that
    are not. A decoder that always read the same names would learn to do without them."""
    absent = rng.permutation(sorted(photo.known - photo.there)).tolist()
    u = rng.random()
    if present and u < options.alone:
        return [int(rng.choice(present))]
    if not present or u < options.alone + options.refusals:
        return absent[:int(rng.integers(1, options.absent + 1))]
    return rng.permutation(present + absent[:int((options.absent + 1) * rng.random())]).tolist()


class Crops(torch.utils.data.Dataset):
    """The endless list of segments as CLIP sees them, cut out of their photos, and their labels."""

    def __init__(self, photos, label, size, options):
        self.photos, self.label, self.size, self.options = photos, label, size, options

    def __getitem__(self, n):
        rng, found = np.random.default_rng([self.options.seed, 2, n]), []
        while not found:
            photo = self.photos.read(int(rng.integers(len(self.photos))))
            found = [k for k, area in zip(*np.unique(photo.owner, return_counts=True)) if k and area >= LEAST]
        k = int(rng.choice(found))
        pixels, inside = photo.pixels, photo.owner == k
        if rng.random() < 0.5:
            pixels, inside = pixels[:, ::-1], inside[:, ::-1]
        seen, inside = cut(torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1), torch.from_numpy(inside.copy()), self.size)
        return {"pixels": seen[0], "inside": inside[0], "labels": torch.tensor(self.label[photo.classes[k - 1]])}


def collate_crops(examples):
    """A batch: pixels [B,3,S,S], which of them are inside [B,1,S,S], and a list of labels."""
    return {"pixels": torch.stack([e["pixels"] for e in examples]), "inside": torch.stack([e["inside"] for e in examples]),
            "masks": [], "labels": [e["labels"] for e in examples]}


class Start:
    """What a run starts from and leaves: labels, of which label[c] is that of class c of the photos, missing if they are the data's own,
    what mean and std pixels have, a reader of phrases, and whether the network reads prompts."""

    def examples(self, photos, numbers, options):
        """numbers[l] are the phrases of label l. → examples and what makes a batch of them."""
        if not self.guided:                                               # nobody reads prompts, so all that is there is asked for
            options.alone = options.refusals = 0
        return Examples(photos, self.label, numbers, self.mean, self.std, options), collate


class Examples(torch.utils.data.Dataset):
    """The endless list of examples. label[c] is the base's label for class c of the photos, phrases[l] are the numbers of label
    l's phrases; options are those of bases.py."""

    def __init__(self, photos, label, phrases, mean, std, options):
        self.photos, self.label, self.phrases, self.options = photos, label, phrases, options
        self.mean, self.std = (np.array(x, np.float32) for x in (mean, std))
        self.round, self.order = None, None

    def __getitem__(self, n):
        o = self.options
        once, place = divmod(n, len(self.photos))
        if once != self.round:
            self.round, self.order = once, np.random.default_rng([o.seed, 0, once]).permutation(len(self.photos))
        rng = np.random.default_rng([o.seed, 1, n])
        photo = self.photos.read(self.order[place])
        pixels, owner, (h, w) = jitter(photo, o.size, o.scale, rng)
        seen = [k for k in np.unique(owner).tolist() if k]
        asked = ask(sorted({photo.classes[k - 1] for k in seen}), photo, o, rng)
        seen = [k for k in seen if photo.classes[k - 1] in asked]
        x = np.full((o.size, o.size, 3), 128, np.float32)                 # padded with grey
        x[:h, :w] = pixels
        masks = np.zeros((len(seen), o.size, o.size), bool)
        masks[:, :h, :w] = owner == np.array(seen, int)[:, None, None]
        x = (x / 255 - self.mean) / self.std
        return {"pixels": torch.from_numpy(x).permute(2, 0, 1), "masks": torch.from_numpy(masks),
                "labels": torch.tensor([self.label[photo.classes[k - 1]] for k in seen], dtype=torch.int64),
                "prompts": torch.tensor([int(rng.choice(self.phrases[self.label[c]])) for c in asked], dtype=torch.int64)}


def collate(examples):
    """A batch: pixels [B,3,S,S], lists of masks [N,S,S] and labels [N], and prompts [B,T] of which valid ones exist."""
    prompts = torch.nn.utils.rnn.pad_sequence([e["prompts"] for e in examples], batch_first=True, padding_value=-1)
    return {"pixels": torch.stack([e["pixels"] for e in examples]), "masks": [e["masks"] for e in examples],
            "labels": [e["labels"] for e in examples], "prompts": prompts.clamp_min(0), "valid": prompts >= 0}
