"""Trains the segmenter on cached views, alone or as several processes that average their gradients.

    python train.py --data DATA --cache CACHE --text text.pt --out RUN --steps 2600               # phase 1: the trunk is frozen
    python train.py … --out RUN2 --init RUN/last.pt --finetune --lr 3e-4                           # phase 2: and its upper part too

Phase 2 keeps the trunk's head features near the frozen ones (a distillation loss), because the second stage reads them and
only one trunk is shipped. A run that finds RUN/last.pt goes on from there; the signal TERM to its
first process makes it save and end.
"""
import argparse
import json
import math
import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

import data
import names
from batches import Batches, PhraseTable
from losses import set_loss
from network import DEFAULTS, ENCODERS, GENERATORS, Network, load_published
from text import TextEncoder, embed, tokenizer
from views import read_pixels

AFTER_F8 = 5           # the trunk's block that reads f8


def load_text(path):
    encoder = TextEncoder()
    encoder.load_state_dict(torch.load(path, weights_only=True))
    return encoder.eval().requires_grad_(False)


def own_names(cache):
    """The names that only some views have, see views.py."""
    file = Path(cache) / "names.json"
    return json.loads(file.read_text()) if file.exists() else []


def masked_classes(data_dir, cache):
    """The ImageNet classes [indices] whose names some views have masks of."""
    own = set(own_names(cache))
    return {i for i, name in enumerate(names.imagenet_names(data_dir)) if name in own}


@torch.no_grad()
def imagenet_pooled(network, data_dir, cache):
    """Average head features of the 1,000 ImageNet photos, whole and mirrored [2,1000,1280]; kept in the cache folder."""
    file = Path(cache) / "imagenet.pt"
    if file.exists():
        return torch.load(file, weights_only=True)
    out = []
    for path in sorted((Path(data_dir) / "imagenet1000/images").iterdir()):
        x = read_pixels(path, 256)
        with torch.autocast("cpu", torch.bfloat16):
            both = network.trunk.pooled_head(network.trunk(torch.cat((x, x.flip(3))))["f32"])
        out.append(both.float().mean((2, 3)))
    out = torch.stack(out, 1)
    part = file.with_suffix(f".{os.getpid()}")                            # runs side by side may all be the first
    torch.save(out, part)
    os.replace(part, file)
    return out


def frozen(first_tuned=8):
    """How the names of what phase 2 leaves as it was published begin. Of these a shipped model has but a rounded copy."""
    return ("trunk.stem.", *(f"trunk.blocks.{i}." for i in range(first_tuned)))


class Ema:
    """Exponential moving average of the trained parameters; shorter at the start, so that it forgets the initial ones."""

    def __init__(self, parameters, decay):
        self.parameters, self.decay, self.steps = parameters, decay, 0
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self):
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 20))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    def swap(self):
        """Exchanges the averages with the parameters."""
        for p, v in zip(self.parameters, self.values):
            p.data, v.data = v.data, p.data


def save(path, network, ema, optimiser, step, seconds):
    ema.swap()
    averaged = {k: v.clone() for k, v in network.state_dict().items()}
    ema.swap()
    part = path.with_suffix(".part")
    torch.save({"config": network.config, "model": averaged, "raw": network.state_dict(), "optimiser": optimiser.state_dict(),
                "ema_steps": ema.steps, "step": step, "seconds": seconds}, part)
    os.replace(part, path)


def average_gradients(parameters, ranks):
    flat = torch.cat([p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= ranks
    for p, g in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad.copy_(g.view_as(p))


def configuration(args):
    """The network's configuration as the options ask for it."""
    config = {"pmp": not args.no_pmp, "trunk": ENCODERS[args.encoder], "text_first": not args.no_text_first,
              "null_key": not args.no_null_key, "pool": not args.no_pool, "queries": args.queries, **GENERATORS[args.generator]}
    if args.text_after:
        order = [step for step in config.get("order", DEFAULTS["order"]) if step != "text"]
        order.insert(0 if args.text_after == "none" else order.index(args.text_after) + 1, "text")
        config["order"] = order
    if any(config[key] != DEFAULTS[key] for key in config.keys() - {"pmp", "queries"}):
        config["arch"] = "study"                                          # no network of the Go engine
    return config


def train(args, rank=0):
    torch.set_num_threads(1 if args.processes > 1 else args.threads)
    torch.manual_seed(args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{out.resolve()}/.meeting{os.getppid()}", rank=rank, world_size=args.processes)

    splits = json.loads((Path(args.data) / "splits.json").read_text())
    classes = data.load_classes(args.data)
    encoder, words = load_text(args.text), tokenizer()
    unseen = data.unseen_names(splits) if args.unseen else ()
    table = PhraseTable(classes, args.data, lambda phrases: embed(encoder, words, phrases), unseen, own_names(args.cache))
    imagenet = embed(encoder, words, names.imagenet_names(args.data))     # [1000,embed]
    placed = torch.from_numpy(~table.near_unseen(imagenet.numpy())).nonzero().flatten()   # the ImageNet photos that are learned

    network = Network(configuration(args))
    load_published(network.trunk, args.data)
    if rank == 0:
        imagenet_pooled(network, args.data, args.cache)
    if args.processes > 1:
        dist.barrier()
    pooled = imagenet_pooled(network, args.data, args.cache)
    frozen_head = torch.nn.Conv2d(*network.trunk.head.weight.shape[1::-1], 1).requires_grad_(False)
    frozen_head.load_state_dict(network.trunk.head.state_dict())
    if args.init:
        start = torch.load(args.init, weights_only=True)
        left = ("stage2.", *frozen(args.first_tuned))
        network.load_state_dict({k: v for k, v in start["model"].items() if not k.startswith(left)}, strict=False)
    network.trunk.requires_grad_(False)
    network.stage2.requires_grad_(False)
    tuned = []
    if args.finetune:
        for block in network.trunk.blocks[args.first_tuned:]:
            tuned += block.requires_grad_(True).parameters()
        tuned += network.trunk.head.requires_grad_(True).parameters()
    network.to(memory_format=torch.channels_last)
    own = [p for part in (network.pixel, network.decoder) for p in part.parameters()]
    parameters = own + tuned
    decayed, plain = [p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.02, "rate": 1.0}, {"params": plain, "weight_decay": 0.0, "rate": 1.0}]
    if tuned:
        groups.append({"params": tuned, "weight_decay": 0.0, "rate": args.trunk_rate})
    optimiser = torch.optim.AdamW(groups, args.lr, betas=(0.9, 0.99), fused=True)
    ema, first, spent = Ema(parameters, args.ema), 0, 0.0
    if (out / "last.pt").exists():
        saved = torch.load(out / "last.pt", weights_only=True)
        network.load_state_dict(saved["model"])
        ema = Ema(parameters, args.ema)
        network.load_state_dict(saved["raw"])
        optimiser.load_state_dict(saved["optimiser"])
        ema.steps, first, spent = saved["ema_steps"], saved["step"], saved["seconds"]

    levels = ("f4", "f8", "f16", "f32") if not args.finetune else ("f4", "f8", "f32")
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    batches = Batches(args.cache, classes, table, args.batch, args.points, args.seed + 1000 * first, rank, args.processes, levels,
                      splits["voc_unseen"] if args.unseen else (), args.all_names, refusals=args.refusals)
    chief = rank == 0
    log = open(out / "log.txt", "a") if chief else None

    def say(line):
        if chief:
            print(line, flush=True)
            print(line, file=log, flush=True)

    say(f"{vars(args)}; {sum(p.numel() for p in parameters) / 1e6:.2f} M trained parameters; from step {first}")
    started = saved_at = time.time()
    worked = time.process_time()
    sums, counted = {}, 0
    step = first
    while True:
        progress = (spent + time.time() - started) / 60 / args.minutes if args.minutes else step / args.steps
        if args.processes > 1:
            # One process decides for all, so that every schedule ends in the same step.
            agreed = torch.tensor(2.0 if stop else progress)
            dist.broadcast(agreed, 0)
            progress = agreed.item()
        elif stop:
            progress = 2.0
        if progress >= 1:
            break
        rate = min(1, (step + 1) / args.warmup) * (0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)
        for g in optimiser.param_groups:
            g["lr"] = args.lr * g["rate"] * rate
        batch = next(batches)
        features = batch["features"]
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            distance = None
            if args.finetune:
                with torch.no_grad():
                    kept = F.relu6(frozen_head(features["f32"]))
                features = features | network.trunk.run(features["f8"], AFTER_F8)
                encoded = {**features, "head": network.trunk.pooled_head(features["f32"])}
                distance = F.mse_loss(encoded["head"].float(), kept.float()) / kept.float().var()
                encoded |= network.pixel(features)
            else:
                encoded = network.encode_features(features)
            predictions = network.decoder(encoded, batch["text"], batch["valid"])
            loss, parts = set_loss(predictions, encoded["M4"], batch)
            if network.decoder.pool:
                # The pooled features of whole ImageNet photos must land at their names.
                chosen = placed[torch.randint(len(placed), (64,))]
                x = pooled[torch.randint(len(pooled), (64,)), chosen]
                x = F.normalize(network.decoder.pool_proj(network.decoder.pool_norm(x)).float(), dim=-1)
                aux = F.cross_entropy(network.decoder.logit_scale.exp() * (x @ imagenet.T).float(), chosen)
                loss = loss + 0.5 * aux
                parts["imagenet"] = float(aux.detach())
            if distance is not None:
                loss = loss + args.keep * distance
                parts["keep"] = float(distance.detach())
        loss.backward()
        if args.processes > 1:
            average_gradients(parameters, args.processes)
        norm = torch.nn.utils.clip_grad_norm_(parameters, 2.0)
        optimiser.step()
        with torch.no_grad():
            network.decoder.logit_scale.clamp_(max=math.log(100))
        ema.update()
        for name, value in {"loss": float(loss.detach()), "norm": float(norm), **parts}.items():
            sums[name] = sums.get(name, 0) + value
        counted += 1
        step += 1
        if step % 25 == 0:
            speed = (step - first) * args.batch * args.processes / (time.time() - started)
            say(f"step {step} ({progress:.0%}) " + " ".join(f"{k} {v / counted:.3f}" for k, v in sums.items())
                + f" scale {network.decoder.logit_scale.exp():.1f} {speed:.1f}/s {time.time() - started:.0f} s, "
                f"of the processor {time.process_time() - worked:.0f} s")
            sums, counted = {}, 0
        if chief and time.time() - saved_at > 180:
            save(out / "last.pt", network, ema, optimiser, step, spent + time.time() - started)
            saved_at = time.time()
    if chief:
        save(out / "last.pt", network, ema, optimiser, step, spent + time.time() - started)
        say("done" if progress < 2 else "stopped")
    if progress == 2:                                                     # not for compare.sh to take it for complete
        raise SystemExit("stopped before the end; the same command goes on from there")


def run_rank(rank, args):
    train(args, rank)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--cache", required=True, help="folder that views.py made")
    p.add_argument("--text", required=True, help="text encoder that distil_text.py made")
    p.add_argument("--out", required=True)
    p.add_argument("--steps", type=int, default=2600)
    p.add_argument("--minutes", type=float, help="train for this long instead of --steps, whatever the speed")
    p.add_argument("--batch", type=int, default=8, help="views per process and step")
    p.add_argument("--processes", type=int, default=2)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--warmup", type=int, default=60)
    p.add_argument("--ema", type=float, default=0.998)
    p.add_argument("--points", type=int, default=2048, help="sampled mask cells a view")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--no-pmp", action="store_true", help="without the text cross-attention, all else alike")
    p.add_argument("--generator", choices=GENERATORS, default="mask2former", help="the decoder that proposes masks")
    p.add_argument("--encoder", choices=ENCODERS, default="efficientnet-lite0", help="the trunk; --cache must be of the same one")
    p.add_argument("--no-pool", action="store_true", help="the class embedding without the pooled features (and their loss)")
    p.add_argument("--text-after", choices=["none", "image", "self", "ffn"],
                   help="the step of a layer that the text step follows; none: it comes first")
    p.add_argument("--no-text-first", action="store_true", help="without the text step before the first prediction")
    p.add_argument("--no-null-key", action="store_true", help="without the text token that stands for no prompt")
    p.add_argument("--all-names", action="store_true", help="prompts are always all names of the photo's source, none is sampled")
    p.add_argument("--queries", type=int, default=DEFAULTS["queries"], help="how many mask proposals a picture gets")
    p.add_argument("--unseen", action="store_true", help="leave out the unseen names of splits.json and data.UNSEEN_STUFF")
    p.add_argument("--refusals", type=float, default=0.0, help="share of views with only absent names, above the usual tenth")
    p.add_argument("--init", help="checkpoint to start from")
    p.add_argument("--finetune", action="store_true", help="phase 2: train the trunk above stride 8 as well")
    p.add_argument("--first-tuned", type=int, default=8, help="the first of the trunk's blocks (5…15) that phase 2 trains")
    p.add_argument("--trunk-rate", type=float, default=0.1, help="the trunk's learning rate as a part of --lr")
    p.add_argument("--keep", type=float, default=2.0, help="weight of the distillation of the head features")
    args = p.parse_args()
    if args.processes > 1:
        torch.multiprocessing.spawn(run_rank, (args,), args.processes)
    else:
        train(args)


if __name__ == "__main__":
    main()
