"""Masks for the ImageNet photos, whose names are known but not where the thing is: what a trained model proposes there.

    python pseudo.py --data DATA --checkpoint shipped.pt --text text.pt --out FOLDER [--preview montage.jpg]

Of the proposals that the photo's own name gives, the one is taken whose pooled head features the published ImageNet classifier
calls by that name, and that is itself sure of its pixels. It is kept if it is of a usable size, holds most of where
the classifier sees the name (its class activation map), and lies away from what is unclear. Written: NAME.png (255 = the
thing, 128 = unclear, 0 = not it) and facts.json with the name, and with the names of COCO's things that the model is
sure are not there.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

import data
import names
from network import Network, load_efficientnet_lite0, normalise
from text import embed, tokenizer
from train import load_text
from views import enlarged, read_pixels, sheet

SIDE = 512


def classifier_rows(trunk):
    """The ImageNet classifier [1000,1280], centred and normalised, and the published trunk's own head features."""
    weight, _ = load_efficientnet_lite0(trunk)
    return normalise(weight - weight.mean(0))


@torch.no_grad()
def mask_of(network, published, rows, center, pixels, number, name_embedding):
    """Soft mask [h,w] at stride 4 of the photo's thing, and how good it is: a dict of numbers."""
    encoded = network.encode(pixels)
    out = {k: v[0] for k, v in network.segment(encoded, name_embedding[None, None]).items()}
    soft = out["masks"].sigmoid()                                         # [Q,h,w]
    area = soft.flatten(1).mean(1)
    sure = (soft * (soft > 0.5)).flatten(1).sum(1) / (soft > 0.5).flatten(1).sum(1).clamp_min(1)
    head = published.pooled_head(published(pixels)["f32"])[0]             # [C,H/32,W/32]
    small = F.adaptive_avg_pool2d(soft[None], head.shape[1:])[0]
    pooled = (small.flatten(1) / small.flatten(1).sum(1, keepdim=True).clamp_min(1e-6)) @ head.flatten(1).T
    alike = normalise(pooled - center) @ rows.T                           # [Q,1000]
    chance = (25 * alike).softmax(1)[:, number]
    seen = normalise(head.flatten(1).T - center) @ rows[number]           # class activation map [H·W/32²]
    seen = (seen.clamp_min(0) ** 2).view(head.shape[1:])
    held = (small * seen).flatten(1).sum(1) / seen.sum().clamp_min(1e-6)
    named = out["a"][:, 0] - out["v"]
    quality = chance.clamp_min(1e-4).log() + 2 * held.clamp_min(1e-4).log() + 2 * sure.clamp_min(1e-4).log() + 0.1 * named
    quality[(area < 0.015) | (area > 0.85)] = -1e4
    q = int(quality.argmax())
    return soft[q], {"area": float(area[q]), "sure": float(sure[q]), "chance": float(chance[q]), "held": float(held[q])}


def good(f):
    """The activation map is coarse, so that little of it lies on a small thing; such a one must be called by its name clearly."""
    clear = f["chance"] > 0.7 and f["sure"] > 0.9
    likely = f["chance"] > 0.12 and f["sure"] > 0.86 and f["held"] > 0.6
    return (clear or likely) and 0.015 < f["area"] < 0.75


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--checkpoint", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--preview", help="a montage of 48 of the photos, kept or not")
    p.add_argument("--limit", type=int, default=1000)
    args = p.parse_args()
    torch.set_num_threads(1)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    saved = torch.load(args.checkpoint, weights_only=True)
    network = Network(saved["config"])
    published = Network().trunk.eval().requires_grad_(False)
    rows = classifier_rows(published)
    network.load_state_dict(saved["model"])
    network.eval().requires_grad_(False)
    center = network.stage2.center
    encoder, words = load_text(args.text), tokenizer()
    called = names.imagenet_names(args.data)
    embeddings = embed(encoder, words, called)
    classes = data.load_classes(args.data)
    things = sorted(classes.known["things"])
    asked = embed(encoder, words, [classes.names[c][0] for c in things])
    facts, shown = {}, []
    files = sorted((Path(args.data) / "imagenet1000/images").iterdir())
    step = max(1, len(files) // args.limit)
    for number in range(0, len(files), step):
        file = files[number]
        pixels = read_pixels(file, SIDE)
        soft, f = mask_of(network, published, rows, center, pixels, number, embeddings[number])
        picture = Image.open(file).convert("RGB")
        scale = SIDE / max(picture.size)
        w, h = round(picture.width * scale), round(picture.height * scale)
        large = enlarged(soft[None], h, w)[0]
        mask = np.full((h, w), 128, np.uint8)
        mask[large.numpy() > 0.6], mask[large.numpy() < 0.25] = 255, 0
        f["name"] = called[number]
        encoded = network.encode(pixels)
        answer = network.answer({k: v[0] for k, v in network.segment(encoded, asked[None]).items()}, asked)
        f["absent"] = [c for c, s in zip(things, answer["score"].tolist()) if s < 0.05]
        f["good"] = good(f)
        if f["good"]:
            Image.fromarray(mask).save(out / f"{file.stem}.png")
        facts[file.stem] = f
        if args.preview and len(shown) < 48 and number % (len(files) // 48) < step:
            x = np.asarray(picture.resize((w, h)))
            x = np.where((mask == 255)[..., None], x, x // 4 + np.array([90, 90, 90] if f["good"] else [150, 30, 30], np.uint8))
            tile = Image.fromarray(x.astype(np.uint8)).resize((192, 192))
            ImageDraw.Draw(tile).text((4, 4), f"{f['name'][:22]} {f['sure']:.2f} {f['chance']:.2f} {f['held']:.2f} {f['area']:.2f}", fill=(255, 255, 0))
            shown.append(tile)
        if len(facts) % 50 == 0:
            print(f"{len(facts)} photos, {sum(f['good'] for f in facts.values())} kept", flush=True)
    (out / "facts.json").write_text(json.dumps(facts, indent=0))
    if args.preview:
        sheet(shown).save(args.preview, quality=85)
    print(f"{len(facts)} photos, {sum(f['good'] for f in facts.values())} kept", flush=True)


if __name__ == "__main__":
    main()
