"""Labels of COCO's things and stuff for photos whose set does not label them: what a trained model is sure to see there.

    python complete.py --data DATA --model weights/default --out FOLDER [--pseudo PSEUDO] [--part 0/2] [--preview montage.jpg]

The photo and its mirror image are asked for all of COCO's names together. A pixel is labelled where the best name's share of
the mean of both maps exceeds SURE and the name is there in both; it is unclear where something has more than UNSURE. Written:
NAME.png (0 = nothing, a class number, data.UNCLEAR) in a folder a source, and facts.*.json with the names that are surely not there.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import data
from evaluate import load_model
from text import embed, tokenizer
from views import enlarged, scaled, sheet

SURE = {"stuff": (0.55, 0.6), "things": (0.65, 0.85)}                     # share of a pixel, presence score
UNSURE, ABSENT = 0.3, 0.05
LEAST = 0.004                          # of the picture; smaller finds are unclear


@torch.no_grad()
def look(network, pixels, names):
    """The mean map S [T,h,w] of a photo and its mirror image, and the smaller and the larger of both scores [T]."""
    with torch.autocast("cpu", torch.bfloat16):
        features = network.trunk(pixels)
    encoded = network.encode_features({k: v.float() for k, v in features.items()})
    answer = network.answer({k: v[0] for k, v in network.segment(encoded, names[None]).items()}, names)
    return answer["S"], answer["score"]


def complete(network, pixels, names, numbers, limits, allowed, width, height):
    """uint8 [h,w] of class numbers, and the numbers that are surely absent. pixels [1,3,H,W] with width×height of them picture; limits
    [T,2] of the names, see SURE; allowed: what the photo's set does not label."""
    maps, score = look(network, pixels, names)
    # The mirror image is of the picture alone, for padding lies on the right.
    mirrored = pixels.clone()
    mirrored[..., :width] = pixels[..., :width].flip(3)
    other, again = look(network, mirrored, names)
    least, most = torch.minimum(score, again), torch.maximum(score, again)
    seen = torch.nonzero(torch.maximum(maps, other).flatten(1).amax(1) > UNSURE).flatten()          # the others count nowhere
    if not len(seen):
        seen = torch.arange(1)
    one, two = (enlarged(s[seen], height, width) for s in (maps, other))
    share, which = ((one + two.flip(2)) / 2).max(0)
    limit = limits[seen][which]
    sure = (share > limit[..., 0]) & (least[seen][which] > limit[..., 1])
    found = torch.where(sure, torch.tensor(numbers)[seen][which], torch.where(share > UNSURE, data.UNCLEAR, 0)).numpy().astype(np.uint8)
    for c in np.unique(found):
        if c not in (0, data.UNCLEAR) and (c not in allowed or (found == c).mean() < LEAST):
            found[found == c] = data.UNCLEAR
    return found, [c for c, p in zip(numbers, most.tolist()) if p < ABSENT and c in allowed]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--model", required=True, help="a shipped model's folder")
    p.add_argument("--out", required=True)
    p.add_argument("--pseudo", help="folder of pseudo.py: ImageNet's photos, too")
    p.add_argument("--part", default="0/1")
    p.add_argument("--preview", help="only a montage of 40 photos")
    args = p.parse_args()
    torch.set_num_threads(1)
    part, parts = map(int, args.part.split("/"))
    network, encoder = load_model(args.model)
    classes = data.load_classes(args.data)
    photos = data.training_photos(args.data, classes, json.loads((Path(args.data) / "splits.json").read_text()))
    if args.pseudo:
        photos += data.named_photos(args.data, classes, args.pseudo)
    photos = [p for p in photos if p.source != "coco"]
    if args.preview:
        photos = photos[::len(photos) // 40][:40]
    numbers = sorted(classes.coco.values())
    limits = torch.tensor([SURE["things" if c in classes.known["things"] else "stuff"] for c in numbers])
    names = embed(encoder, tokenizer(), [classes.names[c][0] for c in numbers])
    colours = np.random.default_rng(1).integers(40, 255, (256, 3), dtype=np.uint8)
    facts, tiles, started = {}, [], time.time()
    for photo in photos[part::parts]:
        picture = data.read_picture(photo.picture)
        scale = network.config["size"] / max(picture.shape[:2])
        w, h = (max(1, round(n * scale)) for n in (picture.shape[1], picture.shape[0]))
        found, absent = complete(network, scaled(picture, network.config["size"]), names, numbers, limits,
                                 set(numbers) - classes.known.get(photo.source, set()), w, h)
        folder = Path(args.out) / photo.source
        if args.preview:
            truth = np.asarray(Image.fromarray(photo.labels()).resize((w, h), Image.NEAREST))
            shown = np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((w, h)))
            kept = np.where(truth == 0, found, 0)
            mixed = np.where((kept > 0)[..., None], shown // 2 + colours[kept] // 2, shown)
            mixed[kept == data.UNCLEAR] = 0
            tile = Image.fromarray(mixed.astype(np.uint8)).resize((256, 256))
            for i, c in enumerate(c for c in np.unique(kept) if c not in (0, data.UNCLEAR)):
                ImageDraw.Draw(tile).text((4, 4 + 12 * i), classes.names[c][0], fill=tuple(int(v) for v in colours[c]), stroke_width=1, stroke_fill=(0, 0, 0))
            tiles.append(tile)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(found).save(folder / f"{photo.name}.png")
        facts[f"{photo.source}/{photo.name}"] = absent
        if len(facts) % 100 == 0:
            print(f"{len(facts)} photos, {len(facts) / (time.time() - started):.1f} a second", flush=True)
    if args.preview:
        sheet(tiles).save(args.preview, quality=85)
        return
    (Path(args.out) / f"facts.{part}of{parts}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
