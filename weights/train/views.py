"""Makes the training views once and caches the frozen trunk's features of each.

    python views.py --data DATA --out CACHE [--count 11500] [--until 5000] [--part 0/2] [--encoder mobilenet-v2]

A view is a 512×512 picture (a crop, a zoomed-out or a whole photo, flipped, with jittered colours and pasted cut-outs) and
its map of class numbers. Several parts can run side by side; view i depends only on the seed and on i. Kept per view:
features f4, f8, f16, f32 as int8 with one scale a channel, the label map compressed, and what is known of its names.
"""
import argparse
import json
import random
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import data
from network import ENCODERS, Network, load_published

SIZE = 512
SHARE = {"coco": 0.17, "things": 0.26, "voc": 0.23, "animals": 0.25, "clothing": 0.09}
NAMED = 0.15                                                               # share of the ImageNet photos, where they are used
LEVELS = {"f4": 128, "f8": 64, "f16": 32, "f32": 16}                        # cells along a side
STAMPS = 0.35                                                              # of the pasted things, where there are any
TINY = 48                                                                  # pixels; smaller segments are ignored


def read_pixels(path, side=SIZE):
    """A photo's file as the network wants it, see scaled."""
    return scaled(data.read_picture(path), side)


def scaled(pixels, side=SIZE):
    """A photo [H,W,3] as the network wants it: long side scaled to side, normalised, padded with zeros to multiples of 32."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / max(picture.size)
    w, h = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    x = np.asarray(picture.resize((w, h), Image.BILINEAR)).astype(np.float32)
    x = np.pad((x - 127) / 128, ((0, -h % 32), (0, -w % 32), (0, 0)))
    return torch.from_numpy(x).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)


def enlarged(maps, height, width):
    """Maps [T,h,w] at stride 4 of what read_pixels returns → [T,height,width], its picture's pixels."""
    # Cell i is centred at pixel 4i+4; an enlarged map is centred 2 pixels before.
    large = F.interpolate(maps[None], scale_factor=4, mode="bilinear")[0]
    return torch.roll(large, (2, 2), (1, 2))[:, :height, :width]


def sheet(tiles, columns=8):
    """Pictures of one size on one sheet, row by row."""
    width, height = tiles[0].size
    large = Image.new("RGB", (width * columns, height * -(-len(tiles) // columns)))
    for i, tile in enumerate(tiles):
        large.paste(tile, (i % columns * width, i // columns * height))
    return large


class Cutouts:
    """Objects cut out of the training photos, by class; rare classes are drawn more often than their count. And stamps."""

    def __init__(self, photos, classes, data_dir, limit=60, stamps=()):
        self.items, self.stamps = {}, list(stamps)
        self.class_of = classes.by_phrase()
        rng = random.Random(0)
        things = classes.known["things"]
        order = sorted(photos, key=lambda p: (p.source, p.name))
        rng.shuffle(order)
        for p in order:
            if p.source in ("clothing", "imagenet"):
                continue
            mask = p.labels()
            for c in np.unique(mask):
                if c not in things or len(self.items.setdefault(int(c), [])) >= limit:
                    continue
                count, parts, stats, _ = cv2.connectedComponentsWithStats((mask == c).astype(np.uint8))
                for k in range(1, count):
                    x, y, w, h, area = stats[k]
                    whole = x > 1 and y > 1 and x + w < mask.shape[1] - 1 and y + h < mask.shape[0] - 1
                    if area > 900 and area > 0.25 * w * h and (whole or rng.random() < 0.3):
                        self.items[int(c)].append((p, (x, y, w, h), parts[y:y + h, x:x + w] == k))
        self.items = {c: v for c, v in self.items.items() if v}
        self.classes = sorted(self.items)
        self.chances = np.array([len(self.items[c]) for c in self.classes]) ** -0.35

    def draw(self, rng, forbidden, own, maybe):
        """A random cut-out: class number, picture [h,w,3], alpha [h,w]. own maps numbers to the view's own names so far,
        maybe gets the classes that what is drawn may belong to as well."""
        if self.stamps and rng.random() < STAMPS:
            name, file, kinds = self.stamps[rng.integers(len(self.stamps))]
            c = self.class_of.get(name) or next((k for k, v in own.items() if v == name), data.OWN + len(own))
            if c not in forbidden and c < data.OWN + data.MOST_OWN:
                if c >= data.OWN:
                    own[c] = name
                maybe |= kinds
                x = np.asarray(Image.open(file).convert("RGBA"))
                return c, np.ascontiguousarray(x[..., :3]), x[..., 3].astype(np.float32) / 255
        chances = self.chances * [c not in forbidden for c in self.classes]
        c = self.classes[rng.choice(len(chances), p=chances / chances.sum())]
        p, (x, y, w, h), mask = self.items[c][rng.integers(len(self.items[c]))]
        return c, data.read_picture(p.picture)[y:y + h, x:x + w], mask.astype(np.float32)


def choose_box(rng, labels):
    """The part of the photo to look at (x0, y0, x1, y1) and the long side it gets in the view."""
    h, w = labels.shape
    u = rng.random()
    if u < 0.27:
        return (0, 0, w, h), SIZE
    if u < 0.40:
        return (0, 0, w, h), int(rng.integers(256, SIZE))
    if u < 0.60:                                                           # round one of the segments
        present = [c for c in np.unique(labels) if c not in (0, data.UNCLEAR, data.IGNORE)]
        if present:
            ys, xs = np.nonzero(labels == rng.choice(present))
            cy, cx = (ys.min() + ys.max()) / 2, (xs.min() + xs.max()) / 2
            side = max(np.ptp(ys), np.ptp(xs), 64) * rng.uniform(1.15, 2.5)
            cx, cy = cx + rng.uniform(-0.15, 0.15) * side, cy + rng.uniform(-0.15, 0.15) * side
            box = [max(0, cx - side / 2), max(0, cy - side / 2), min(w, cx + side / 2), min(h, cy + side / 2)]
            return tuple(int(v) for v in box), SIZE
    area, aspect = rng.uniform(0.3, 1.0), np.exp(rng.uniform(-0.3, 0.3))
    cw, ch = min(w, int(w * (area * aspect) ** 0.5)), min(h, int(h * (area / aspect) ** 0.5))
    x, y = rng.integers(0, w - cw + 1), rng.integers(0, h - ch + 1)
    return (int(x), int(y), int(x + cw), int(y + ch)), SIZE


def jitter(rng, picture):
    """Random brightness, contrast, saturation, tint and now and then grey or blur; float [h,w,3] in 0..255."""
    x = picture.astype(np.float32)
    if rng.random() < 0.8:
        x = x * rng.uniform(0.65, 1.35)
        mean = x.mean()
        x = (x - mean) * rng.uniform(0.7, 1.3) + mean
        grey = x.mean(-1, keepdims=True)
        x = grey + (x - grey) * rng.uniform(0.5, 1.4)
        x = x * rng.uniform(0.93, 1.07, 3)
    if rng.random() < 0.04:
        x = np.repeat(x.mean(-1, keepdims=True), 3, -1)
    if rng.random() < 0.08:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.5, 1.2))
    return x.clip(0, 255)


def paste(rng, picture, labels, cutout):
    """Pastes a cut-out at a random size and place, with a soft edge."""
    c, piece, alpha = cutout
    h, w = labels.shape
    scale = rng.uniform(0.12, 0.5) * (h * w) ** 0.5 / (piece.shape[0] * piece.shape[1]) ** 0.5
    ph, pw = max(8, int(piece.shape[0] * scale)), max(8, int(piece.shape[1] * scale))
    if ph >= h or pw >= w:
        return
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    piece, alpha = cv2.resize(piece, (pw, ph), interpolation=how), cv2.resize(alpha, (pw, ph), interpolation=how)
    if rng.random() < 0.5:
        piece, alpha = piece[:, ::-1], alpha[:, ::-1]
    y, x = rng.integers(0, h - ph), rng.integers(0, w - pw)
    soft = cv2.GaussianBlur(np.ascontiguousarray(alpha), (0, 0), 0.7)[..., None]
    spot = picture[y:y + ph, x:x + pw]
    spot[:] = spot * (1 - soft) + jitter(rng, piece) * soft
    labels[y:y + ph, x:x + pw][alpha > 0.5] = c


def make_view(photo, classes, cutouts, rng):
    """→ picture uint8 [512,512,3], labels uint8 [512,512], size (h, w) of the part that is picture, meta."""
    labels, picture = photo.labels(), Image.fromarray(np.ascontiguousarray(data.read_picture(photo.picture)))
    if labels.shape != (picture.height, picture.width):
        raise ValueError(f"{photo.source}/{photo.name}: the mask's size differs from the photo's")
    completed = np.zeros(0, np.uint8)
    if photo.completed:
        completed = cv2.resize(photo.completed(), labels.shape[::-1], interpolation=cv2.INTER_NEAREST)[labels == 0]
        labels[labels == 0] = completed
    own, maybe = {data.OWN: photo.own} if photo.own else {}, set()
    box, side = choose_box(rng, labels)
    scale = side / max(box[2] - box[0], box[3] - box[1])
    w, h = (max(32, min(SIZE, round((box[i + 2] - box[i]) * scale))) for i in (0, 1))
    picture = np.asarray(picture.resize((w, h), Image.BILINEAR, box=box)).astype(np.float32)
    labels = np.array(Image.fromarray(labels).resize((w, h), Image.NEAREST, box=box))
    if rng.random() < 0.5:
        picture, labels = np.ascontiguousarray(picture[:, ::-1]), np.ascontiguousarray(labels[:, ::-1])
    if rng.random() < (0.25 if photo.source == "clothing" else 0.45):
        forbidden = set(np.unique(labels).tolist())
        if photo.source == "clothing":
            forbidden |= classes.known["things"] - classes.absent["clothing"]
        for _ in range(rng.integers(1, 4)):
            cutout = cutouts.draw(rng, forbidden, own, maybe)
            paste(rng, picture, labels, cutout)
    picture = jitter(rng, picture)
    numbers, counts = np.unique(labels, return_counts=True)
    named = [(int(c), n) for c, n in zip(numbers, counts) if c not in (0, data.UNCLEAR, data.IGNORE)]
    present, tiny = [c for c, n in named if n >= TINY], [c for c, n in named if n < TINY]
    labels[np.isin(labels, tiny)] = data.IGNORE
    # Padding belongs to nothing: 0 with a photo whose unlabelled pixels are unknown too, since it is known to be empty.
    full_picture, full_labels = np.full((SIZE, SIZE, 3), 127, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    full_picture[:h, :w], full_labels[:h, :w] = picture.round(), labels
    return full_picture, full_labels, {"source": photo.source, "name": photo.name, "present": present, "tiny": tiny, "size": [h, w],
                                       "own": own, "maybe": sorted(maybe), "absent": list(photo.absent),
                                       "completed": sorted({*present} & {*np.unique(completed).tolist()})}


class Cache:
    """The cached views on disk: memory-mapped features and one file of labels and one of facts a part."""

    def __init__(self, folder, count=None, channels=None):
        """An existing cache, or a new one of count views with so many channels a level."""
        self.folder = Path(folder)
        create = count is not None and not (self.folder / "f4.i8").exists()
        if count is None:
            count = json.loads((self.folder / "count.json").read_text())
        elif create:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "count.json").write_text(json.dumps(count))
        self.count = count
        mode = "w+" if create else "r+"
        self.features, self.scales = {}, {}
        for level, side in LEVELS.items():
            shape = (count * channels[level],) if create else None
            scales = np.memmap(self.folder / f"{level}.scale", np.float32, mode, shape=shape).reshape(count, -1)
            self.features[level] = np.memmap(self.folder / f"{level}.i8", np.int8, mode, shape=(count, side, side, scales.shape[1]))
            self.scales[level] = scales

    def put(self, i, features):
        """features: {level: [C,h,w]} of one view."""
        for level, x in features.items():
            x = x.float().permute(1, 2, 0)
            scale = x.abs().amax((0, 1)).clamp_min(1e-6) / 127
            self.features[level][i] = (x / scale).round().to(torch.int8).numpy()
            self.scales[level][i] = scale.numpy()

    def get(self, indices, levels=tuple(LEVELS)):
        """{level: bf16 [B,C,h,w] in channels-last memory} of some views."""
        out = {}
        for level in levels:
            x = torch.from_numpy(self.features[level][indices]).bfloat16()
            x *= torch.from_numpy(self.scales[level][indices])[:, None, None].bfloat16()
            out[level] = x.permute(0, 3, 1, 2)
        return out

    def facts(self):
        """[(index, meta)] of all finished views, in order."""
        lines = [json.loads(line) for f in sorted(self.folder.glob("facts.*.jsonl")) for line in f.read_text().splitlines()]
        return sorted(((m["index"], m) for m in lines), key=lambda m: m[0])

    def labels(self, meta):
        with open(self.folder / meta["file"], "rb") as f:
            f.seek(meta["offset"])
            return np.frombuffer(zlib.decompress(f.read(meta["length"])), np.uint8).reshape(SIZE, SIZE)


def frozen_trunk(encoder, data_dir):
    """A published trunk in bf16, for features that are not trained through."""
    network = Network({"trunk": ENCODERS[encoder]})
    load_published(network.trunk, data_dir)
    return network.trunk.requires_grad_(False).eval().to(torch.bfloat16).to(memory_format=torch.channels_last)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--out", required=True)
    p.add_argument("--count", type=int, default=11500)
    p.add_argument("--first", type=int, default=0, help="begin with this view, in a cache that has those before")
    p.add_argument("--until", type=int, help="stop before this view; training then draws from the finished ones")
    p.add_argument("--encoder", choices=ENCODERS, default="efficientnet-lite0")
    p.add_argument("--part", default="0/1")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--pseudo", help="folder of pseudo.py: the ImageNet photos with masks become views, too")
    p.add_argument("--completed", help="folder of complete.py: what it saw in photos counts where their sets have no label")
    p.add_argument("--stamps", help="folder of Tux Paint's stamps (Debian's tuxpaint-stamps-default) to paste")
    p.add_argument("--preview", type=int, default=0, help="only write this many views as pictures and stop")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    part, parts = map(int, args.part.split("/"))
    classes = data.load_classes(args.data)
    photos = data.training_photos(args.data, classes, json.loads((Path(args.data) / "splits.json").read_text()))
    share = SHARE
    if args.pseudo:
        photos += data.named_photos(args.data, classes, args.pseudo)
        share = {s: v * (1 - NAMED) for s, v in SHARE.items()} | {"imagenet": NAMED}
    stamps = data.stamps(args.stamps, classes) if args.stamps else []
    cutouts = Cutouts(photos, classes, args.data, stamps=stamps)
    if args.completed:
        photos = data.complete_photos(photos, args.completed)
    by_source = {s: [p for p in photos if p.source == s] for s in share}
    print({s: len(v) for s, v in by_source.items()}, f"{sum(map(len, cutouts.items.values()))} cut-outs", flush=True)

    # Every photo of a source is used as often as any other; the order mixes the sources.
    plan = []
    for source, part_of in share.items():
        want, pool = round(args.count * part_of), by_source[source]
        plan += [pool[k % len(pool)] for k in range(want)]
    plan = plan[:args.count] + plan[:max(0, args.count - len(plan))]
    random.Random(args.seed).shuffle(plan)

    if args.preview:
        colours = np.random.default_rng(1).integers(40, 255, (256, 3), dtype=np.uint8)
        colours[0], colours[255] = 0, 255
        Path(args.out).mkdir(parents=True, exist_ok=True)
        for i in range(args.preview):
            picture, labels, meta = make_view(plan[i], classes, cutouts, np.random.default_rng([args.seed, i]))
            Image.fromarray(np.concatenate((picture, colours[labels]), 1)).save(f"{args.out}/{i:03d}_{meta['source']}.jpg")
        return

    until = min(args.until or args.count, args.count)
    trunk = frozen_trunk(args.encoder, args.data)
    cache = Cache(args.out, args.count, trunk.channels)
    own = sorted({p.own for p in photos if p.own} | {s[0] for s in stamps})
    (cache.folder / "names.json").write_text(json.dumps(own))
    started, batch, done = time.time(), [], 0
    piece = f"{args.first}.{part}of{parts}" if args.first else f"{part}of{parts}"
    with open(cache.folder / f"labels.{piece}", "wb") as labels_file, \
            open(cache.folder / f"facts.{piece}.jsonl", "w") as facts_file, torch.no_grad():
        for i in range(args.first + part, until, parts):
            picture, labels, meta = make_view(plan[i], classes, cutouts, np.random.default_rng([args.seed, i]))
            packed = zlib.compress(labels.tobytes(), 1)
            meta |= {"index": i, "file": Path(labels_file.name).name, "offset": labels_file.tell(), "length": len(packed)}
            labels_file.write(packed)
            batch.append((i, picture, meta))
            if len(batch) == 2 or i + parts >= until:
                pixels = torch.from_numpy(np.stack([b[1] for b in batch])).permute(0, 3, 1, 2)
                pixels = ((pixels.float() - 127) / 128).bfloat16().contiguous(memory_format=torch.channels_last)
                features = trunk(pixels)
                labels_file.flush()
                for k, (index, _, m) in enumerate(batch):
                    cache.put(index, {level: x[k] for level, x in features.items()})
                    facts_file.write(json.dumps(m) + "\n")
                facts_file.flush()
                done += len(batch)
                batch = []
                if done % 200 == 0:
                    print(f"{done} views, {done / (time.time() - started):.1f} a second", flush=True)


if __name__ == "__main__":
    main()
