"""Trains the networks of public checkpoints with prompt guidance: Mask2Former and MaskFormer of the transformers library, and FC-CLIP; and
OVSeg, which reads no prompts, and its mask prompts.

    torchrun --nproc-per-node 8 bases.py --base BASE --coco COCO --out RUN
    python bases.py --base BASE --photos DATA --out RUN --steps 40 --size 128 --batch 2     # the labelled photos of data.py

BASE is a folder that save_pretrained leaves, the .pth of an FC-CLIP or an OVSeg with what "pmp import" wants beside it, or the export of another
run; a folder with a config.json alone is a network that starts from random numbers. After a layer's attention to the picture the queries
read the prompts. What is added begins with a zero output, so that training starts from the base as it was. A run that finds RUN/last.pt
goes on from there, to the last bit as if it had not been interrupted. At its end "pmp import" takes RUN/export.
"""
import argparse
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

import opened
import published
from names import clean
from segments import CocoPanoptic, CocoStuff, LabelledPhotos, named, phrases_of

BACKBONE = "base.model.pixel_level_module.encoder."


def save(path, saved):
    part = path.with_suffix(".part")
    torch.save(saved, part)
    os.replace(part, path)


# -------------------------------------------------------------------------------------------------------------- training

def parameter_groups(model, options):
    """Parameters by their learning rate and decay: the backbone learns slower; norms, embeddings and tables do not decay."""
    groups = {}
    for place, module in model.named_modules():
        for name, p in module.named_parameters(place, recurse=False):
            if p.requires_grad:
                plain = isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.Embedding)) or "position" in name or name.endswith(("null_key", "mask_embedding"))
                key = options.backbone_rate if name.startswith(BACKBONE) else 1.0, 0.0 if plain else options.decay
                groups.setdefault(key, []).append(p)
    return [{"params": ps, "rate": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]


def rate(step, options):
    """What the learning rates are multiplied with."""
    return min(1, (step + 1) / max(1, options.warmup)) * 0.1 ** sum(step >= d for d in options.drops)


def photos_of(options):
    if options.coco:
        return CocoPanoptic(options.coco, options.split)
    if not options.stuff:
        return LabelledPhotos(options.photos)
    if not options.names:
        raise SystemExit("COCO-Stuff's labels are numbers; give their names with --names")
    return CocoStuff(options.stuff, options.split, [clean(phrases_of(line)[0]) for line in named(options.names)])


def train(options):
    ranks, rank, local = (int(os.environ.get(k, d)) for k, d in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)))
    device = torch.device("cuda", local) if torch.cuda.is_available() and not options.cpu else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if options.batch % ranks:
        raise SystemExit(f"--batch {options.batch} is the number of examples of all {ranks} processes together, and must be a multiple of it")
    if ranks > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    photos = photos_of(options)
    torch.manual_seed(options.seed)
    kind = opened.MaskPrompts if options.mask_prompts else opened.Opened if opened.has(options.base) else published.Published
    start = kind(options, photos.names)
    phrases, numbers = [], []
    for text in start.labels:
        numbers.append(range(len(phrases), len(phrases) + len(phrases_of(text))))
        phrases += phrases_of(text)
    embeddings = start.reader.embed(phrases).to(device)
    model = start.network(embeddings, numbers).to(device).train()
    optimiser = torch.optim.AdamW(parameter_groups(model, options), options.lr)
    first = 0
    if (out / "last.pt").exists():
        saved = torch.load(out / "last.pt", map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"]
    whole = nn.parallel.DistributedDataParallel(model, [local] if device.type == "cuda" else None) if ranks > 1 else model
    examples, together = start.examples(photos, numbers, options)
    each = options.batch // ranks
    steps = [range(s * options.batch + rank * each, s * options.batch + (rank + 1) * each) for s in range(first, options.steps)]
    loader = torch.utils.data.DataLoader(examples, batch_sampler=steps, collate_fn=together, num_workers=options.workers,
                                         pin_memory=device.type == "cuda")

    def say(line):
        if rank == 0:
            print(line, flush=True)

    say(f"{len(photos)} photos, {len(phrases)} phrases of {len(numbers)} labels, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters; "
        f"steps {first} to {options.steps}")
    if start.missing:
        say(f"the labels are those of the data, since the base has none for {', '.join(start.missing[:5])}{' …' if len(start.missing) > 5 else ''}")
    started, sums, counted = time.time(), 0, 0
    for step, batch in zip(range(first, options.steps), loader):
        # Points and dropout are drawn anew for each step, so that no state of a generator has to be kept.
        torch.manual_seed(int(np.random.SeedSequence([options.seed, step, rank]).generate_state(1)[0]))
        for g in optimiser.param_groups:
            g["lr"] = options.lr * g["rate"] * rate(step, options)
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=options.amp):
            predictions = whole(*model.inputs(batch, embeddings))
        losses = model.losses(predictions, [m.to(device).float() for m in batch["masks"]], [x.to(device) for x in batch["labels"]])
        loss = sum(losses.values())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        seen = torch.stack([loss, *losses.values(), norm]).detach()
        if ranks > 1:
            dist.all_reduce(seen)
            seen /= ranks
        if not seen.isfinite().all():
            raise SystemExit(f"step {step + 1}: the loss or its gradient is not finite; {out / 'last.pt'} is from before")
        optimiser.step()
        sums, counted = sums + seen, counted + 1
        if (step + 1) % options.every == 0 or step + 1 == options.steps:
            values = dict(zip(("loss", *losses, "norm"), (sums / counted).tolist()))
            say(f"step {step + 1} " + " ".join(f"{k.removeprefix('loss_')} {v:.4f}" for k, v in values.items()) + f" {time.time() - started:.0f} s")
            if rank == 0:
                with open(out / "log.jsonl", "a") as log:
                    print(json.dumps({"step": step + 1, "rate": rate(step, options), **values}), file=log)
            sums, counted = 0, 0
        if rank == 0 and ((step + 1) % options.save == 0 or step + 1 == options.steps):
            save(out / "last.pt", {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1})
    if rank == 0:
        shutil.rmtree(out / "export", ignore_errors=True)
        (out / "export").mkdir()
        start.export(model, out / "export")
    if ranks > 1:
        dist.destroy_process_group()


def options(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", required=True, help="folder of a Mask2Former or a MaskFormer: config.json, and the tensors if it is trained; or the .pth of an FC-CLIP or an OVSeg, "
                   "its folder, or one with a config.json")
    p.add_argument("--backbone", help="folder of a classifier whose backbone replaces the base's, for a base that has but a config.json "
                   "or a file of a ResNet of torchvision")
    p.add_argument("--open-clip", help="file or folder of a CLIP of open_clip or OpenAI, for an FC-CLIP or an OVSeg that has but a config.json")
    p.add_argument("--names", help="names of the data's classes that FC-CLIP and OVSeg are to be trained with: a line each in the data's order, synonyms separated by commas")
    where = p.add_mutually_exclusive_group(required=True)
    where.add_argument("--coco", help="folder with annotations/panoptic_SPLIT.json, the PNGs beside it and the photos in SPLIT")
    where.add_argument("--stuff", help="folder with COCO-Stuff's labels in stuffthingmaps_detectron2/SPLIT, as detectron2 prepares them, and the photos in SPLIT")
    where.add_argument("--photos", help="the folder of labelled photos that train.py takes")
    p.add_argument("--split", default="train2017")
    p.add_argument("--out", required=True)
    p.add_argument("--reader", default=str(Path(__file__).parent.parent / "default"), help="weights whose text encoder reads the prompts")
    p.add_argument("--steps", type=int, default=368_750)
    p.add_argument("--batch", type=int, default=16, help="examples a step, of all processes together")
    p.add_argument("--size", type=int, default=1024, help="sides of an example in pixels")
    p.add_argument("--scale", type=float, nargs=2, default=(0.1, 2.0), help="bounds of large-scale jittering")
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--backbone-rate", type=float, default=0.1, help="the backbone's learning rate as a part of --lr")
    p.add_argument("--warmup", type=int, default=10)
    p.add_argument("--drops", type=int, nargs="*", default=[327_778, 355_092], help="steps at which the learning rate falls to a tenth")
    p.add_argument("--decay", type=float, default=0.05)
    p.add_argument("--clip", type=float, default=0.01, help="largest norm of all gradients together")
    p.add_argument("--mask-prompts", type=int, metavar="N", help="train nothing but OVSeg's mask prompts, before N layers of its CLIP, on segments that are cut out")
    p.add_argument("--points", type=int, default=12_544, help="points a mask that Mask2Former's losses are computed at")
    p.add_argument("--alone", type=float, default=0.25, help="share of examples in which one of the names that are there is asked for")
    p.add_argument("--refusals", type=float, default=0.1, help="share of examples in which only absent names are")
    p.add_argument("--absent", type=int, default=64, help="absent names that are asked for, at most")
    p.add_argument("--amp", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available(), help="bfloat16 where it does no harm")
    p.add_argument("--cpu", action="store_true", help="even if there is a graphics card")
    p.add_argument("--workers", type=int, default=4, help="processes that make examples, for each that trains")
    p.add_argument("--every", type=int, default=20, help="steps between lines of the log")
    p.add_argument("--save", type=int, default=1000, help="steps between checkpoints")
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args(argv)


if __name__ == "__main__":
    train(options())
