"""Trains the networks of public checkpoints with prompt guidance: Mask2Former and MaskFormer of the transformers library.

    torchrun --nproc-per-node 8 bases.py --base FOLDER --coco COCO --out RUN
    python bases.py --base FOLDER --photos DATA --out RUN --steps 40 --size 128 --batch 2     # the labelled photos of data.py

FOLDER is what save_pretrained leaves, or the export of another run; with a config.json alone the network starts from random numbers. After a layer's
attention to the picture the queries read the prompts. What is added begins with a zero output, so that training starts from
the base as it was. A run that finds RUN/last.pt goes on from there, to the last bit as if it had not been interrupted. At its end
RUN/export is a folder for the transformers library, and in export/pmp lies what "pmp import" needs besides.
"""
import argparse
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import BertWordPieceTokenizer
from torch import nn
from transformers import AutoConfig, Mask2FormerForUniversalSegmentation, MaskFormerForInstanceSegmentation
from transformers.utils import logging

import shipped
from names import clean
from network import TextReader, TextStep
from segments import CocoPanoptic, Examples, LabelledPhotos, collate
from text import embed

BASES = {"mask2former": Mask2FormerForUniversalSegmentation, "maskformer": MaskFormerForInstanceSegmentation}
BACKBONE = "base.model.pixel_level_module.encoder."
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]                  # of ImageNet, where a checkpoint says nothing else


# -------------------------------------------------------------------------------------------------------------- network

class Guidance(TextReader):
    """The names of its tensors are those of our own mask decoder."""

    def __init__(self, d, heads, layers, width):
        super().__init__()
        self.read_text(d, heads, width)
        self.layers = nn.ModuleList(nn.ModuleDict({"text": TextStep(d, heads)}) for _ in range(layers))


def in_float32(forward):
    """A pixel decoder's forward without mixed precision, which its sampling positions do not bear."""
    def run(features, *rest, **named):
        with torch.autocast(features[0].device.type, enabled=False):
            return forward([f.float() for f in features], *rest, **named)
    return run


class GuidedBase(nn.Module):
    """A base whose queries read embeddings of prompts of some width."""

    def __init__(self, base, width):
        super().__init__()
        self.base = base
        self.mask2former = base.config.model_type == "mask2former"
        c = base.config if self.mask2former else base.config.decoder_config
        if getattr(c, "pre_norm", False) or getattr(c, "auxiliary_loss", False):
            raise SystemExit("a base with pre_norm, or with decoder_config.auxiliary_loss, cannot be trained here, nor can pmp import it")
        self.decoder, layers = self.transformer().decoder, self.transformer().decoder.layers
        heads = c.num_attention_heads if self.mask2former else c.decoder_attention_heads
        self.guidance = Guidance(c.hidden_size, heads, len(layers), width)
        self.decoder.register_forward_pre_hook(self.begin, with_kwargs=True)
        for layer, guided in zip(layers, self.guidance.layers):
            norm = layer.cross_attn_layer_norm if self.mask2former else layer.encoder_attn_layer_norm
            norm.register_forward_hook(lambda _, __, x, step=guided["text"]: self.read(step, x))
            if not self.mask2former:
                layer.register_forward_hook(lambda _, __, x: self.hidden.append(x))
        pixels = base.model.pixel_level_module.decoder
        pixels.forward = in_float32(pixels.forward)
        self.norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        # The last norm of a Swin as a classifier: a backbone has it, and does not compute it.
        idle = [m for name, m in base.model.pixel_level_module.encoder.named_modules() if name in ("swin.layernorm", "model.layernorm")]
        for m in self.norms + idle:
            m.requires_grad_(False)

    def transformer(self):
        return self.base.model.transformer_module

    def train(self, mode=True):
        """Batch norms keep their statistics, as in the published recipes."""
        super().train(mode)
        for m in self.norms:
            m.eval()
        return self

    def read(self, step, x):
        """The text step on queries, which Mask2Former keeps as [Q,B,d]."""
        x = x.transpose(0, 1) if self.mask2former else x
        x = step(x, self.transformer().queries_embedder.weight, *self.tokens)
        return x.transpose(0, 1) if self.mask2former else x

    def begin(self, _, args, named):
        self.hidden = []
        return args, named | {"inputs_embeds": self.read(self.guidance.text_first, named["inputs_embeds"])}

    def forward(self, pixels, text, valid=None):
        """Pixels [B,3,H,W], embeddings [B,T,width] of which valid ones exist → the predictions after each layer, the last one
        last: class logits [B,Q,L+1] and mask logits [B,Q,H/4,W/4]."""
        self.tokens = self.guidance.text_tokens(text, valid)
        out = self.base(pixel_values=pixels, output_auxiliary_logits=self.mask2former)
        if self.mask2former:
            before = [(x["class_queries_logits"], x["masks_queries_logits"]) for x in out.auxiliary_logits]
        else:
            hidden = [self.decoder.layernorm(x) for x in self.hidden[:-1]]
            before = [(self.base.class_predictor(x), torch.einsum("bqc,bchw->bqhw", self.base.mask_embedder(x), out.pixel_decoder_last_hidden_state))
                      for x in hidden]
        return [*before, (out.class_queries_logits, out.masks_queries_logits)]

    def losses(self, predictions, masks, labels):
        """The base's own losses by their names, each the sum over all predictions. Their mean over the processes is what one
        process would compute of all examples."""
        predictions = [(c.float(), m.float()) for c, m in predictions]
        *before, (classes, found) = predictions
        void, queries = self.base.criterion.eos_coef, classes.shape[1]
        matched = sum(min(len(x), queries) for x in labels)
        ours = torch.tensor([sum(len(x) for x in labels), matched + void * (len(labels) * queries - matched)], device=classes.device)
        mean = ours.clone()
        if dist.is_initialized():
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        self.base.criterion.get_num_masks = lambda *_, **__: mean[0].clamp(min=1)
        parts = self.base.get_loss_dict(found, classes, masks, labels, [{"masks_queries_logits": m, "class_queries_logits": c} for c, m in before])
        sums = {name: sum(v for k, v in parts.items() if k.startswith(name)) for name in self.base.weight_dict}
        sums["loss_cross_entropy"] = sums["loss_cross_entropy"] * ours[1] / mean[1]
        return sums


# ----------------------------------------------------------------------------------------------------------------- text

class Reader:
    """The frozen text encoder of a model of ours, with its vocabulary."""

    def __init__(self, folder):
        self.manifest, state = shipped.read(folder)
        self.encoder = shipped.text_of(state).eval().requires_grad_(False)
        self.vocabulary = Path(folder) / self.manifest["tokenizer"]
        self.words = BertWordPieceTokenizer(str(self.vocabulary), lowercase=True)
        self.words.enable_truncation(self.encoder.config["max_tokens"])
        self.words.enable_padding(pad_id=0)
        self.templates = self.manifest["config"]["templates"]

    def embed(self, phrases):
        """Phrases → E [N,width], the mean over the templates."""
        every = torch.stack([embed(self.encoder, self.words, [t.replace("{}", p) for p in phrases]) for t in self.templates])
        return F.normalize(every.mean(0), dim=-1)


# ----------------------------------------------------------------------------------------------------------- checkpoints

def phrases_of(label):
    """The names that a label lists: "sofa, couch" has two."""
    return [p.strip() for p in label.split(",") if p.strip()]


def load_base(folder, names, points):
    """The base in a folder, and the label of each of the photos' class names. If its labels lack one of them, it gets a new
    class head, for these names."""
    folder = Path(folder)
    config = AutoConfig.from_pretrained(folder)
    if config.model_type not in BASES:
        raise SystemExit(f"{folder} has a network of type {config.model_type}; it must be one of {', '.join(BASES)}")
    config.use_auxiliary_loss = config.model_type == "mask2former"        # MaskFormer's come without the norm; they are made here
    if config.use_auxiliary_loss:
        config.train_num_points = points
    labels = [clean(config.id2label[i]) for i in range(len(config.id2label))]
    if len(set(labels)) < len(labels):
        labels = list(config.id2label.values())
    number = {p: i for i, label in reversed(list(enumerate(labels))) for p in [*phrases_of(label), label]}
    missing = [n for n in names if n not in number]
    if missing:
        labels, number = names, {n: i for i, n in enumerate(names)}
    config.id2label, config.label2id = dict(enumerate(labels)), {n: i for i, n in enumerate(labels)}
    make = BASES[config.model_type]
    if any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        base = make.from_pretrained(folder, config=config, ignore_mismatched_sizes=bool(missing))
    else:
        base = make(config)
    return base, [number[n] for n in names], missing


def load_backbone(base, path):
    """Fills the backbone from a folder with a classifier, or from a file with the state dict of a ResNet of torchvision. The norms of a
    Swin's outputs are not part of a classifier."""
    backbone = base.model.pixel_level_module.encoder
    if Path(path).is_file():
        if getattr(backbone.config, "downsample_in_bottleneck", False):
            raise SystemExit("the base's ResNet has its strides where torchvision's have none; set downsample_in_bottleneck to false in its config.json")
        want, found = backbone.state_dict(), torchvision(path)
        found = {k: x for k, x in want.items() if k.endswith("num_batches_tracked")} | found        # older files lack these
        depths = [len({k.split(".")[4] for k in found if k.startswith(f"encoder.stages.{i}.")}) for i in range(4)]
        if all(depths) and depths != list(backbone.config.depths):
            raise SystemExit(f"{path} has {depths} blocks in its stages, and the base's backbone {list(backbone.config.depths)}")
        for k in [*want, *found]:
            theirs, ours = ("nothing" if x is None else list(x.shape) for x in (found.get(k), want.get(k)))
            if theirs != ours:
                raise SystemExit(f"{path} has no backbone for this base: {theirs} for {k}, which is {ours} here")
        backbone.load_state_dict(found)
        return
    found, info = type(backbone).from_pretrained(path, config=backbone.config, output_loading_info=True)
    if missing := sorted(k for k in info["missing_keys"] if "hidden_states_norms" not in k):
        raise SystemExit(f"{path} has no backbone for this base: {missing[0]} and {len(missing) - 1} more tensors are missing")
    backbone.load_state_dict(found.state_dict())


def torchvision(path):
    """The state dict of a classifier of torchvision, without the classifier, in the transformers library's names."""
    state = load_file(path) if str(path).endswith(".safetensors") else torch.load(path, map_location="cpu", weights_only=True)
    parts = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}
    found = {}
    for key, x in state.get("state_dict", state).items():
        key = re.sub(r"^(conv|bn)1\.", lambda m: f"embedder.embedder.{parts[m[1]]}.", key)
        key = re.sub(r"^layer(\d)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.", key)
        key = re.sub(r"\.(conv|bn)(\d)\.", lambda m: f".layer.{int(m[2]) - 1}.{parts[m[1]]}.", key)
        key = re.sub(r"\.downsample\.([01])\.", lambda m: f".shortcut.{parts[m[1]]}.", key)
        if not key.startswith("fc."):
            found[key] = x
    return found


def preprocessor(folder, size):
    """How pictures are made ready: as the base's folder says, or in the proportions of the usual 800, 1333 and 1024."""
    file = Path(folder) / "preprocessor_config.json"
    if file.exists():
        return {"image_mean": MEAN, "image_std": STD} | json.loads(file.read_text())
    return {"size": {"shortest_edge": size * 800 // 1024, "longest_edge": size * 1333 // 1024}, "image_mean": MEAN, "image_std": STD}


def export(model, reader, pictures, folder):
    """The base as the transformers library saves it, and beside it in pmp the guidance and the text encoder it was trained with, in
    the form of our own checkpoints."""
    shutil.rmtree(folder, ignore_errors=True)
    logging.disable_progress_bar()
    model.base.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures, indent=1) + "\n")
    pmp = folder / "pmp"
    pmp.mkdir()
    tensors = {f"decoder.{k}": v for k, v in model.guidance.state_dict().items()}
    tensors |= {f"text.{k}": v for k, v in reader.encoder.state_dict().items()}
    save_file({k: v.float().cpu().contiguous() for k, v in tensors.items()}, str(pmp / "model.safetensors"))
    shutil.copy(reader.vocabulary, pmp / "vocab.txt")
    own = reader.manifest["config"]
    (pmp / "config.json").write_text(json.dumps({
        "arch": "guidance", "pmp": True, "text": own["text"], "templates": reader.templates,
        "parts": [p for p in reader.manifest["parts"] if "text" in p["name"]]}, indent=1) + "\n")


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
                plain = isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.Embedding)) or "position" in name or name.endswith("null_key")
                key = options.backbone_rate if name.startswith(BACKBONE) else 1.0, 0.0 if plain else options.decay
                groups.setdefault(key, []).append(p)
    return [{"params": ps, "rate": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]


def rate(step, options):
    """What the learning rates are multiplied with."""
    return min(1, (step + 1) / max(1, options.warmup)) * 0.1 ** sum(step >= d for d in options.drops)


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
    photos = CocoPanoptic(options.coco, options.split) if options.coco else LabelledPhotos(options.photos)
    torch.manual_seed(options.seed)
    base, label, missing = load_base(options.base, photos.names, options.points)
    if options.backbone:
        load_backbone(base, options.backbone)
    reader = Reader(options.reader)
    phrases, numbers = [], []
    for text in base.config.id2label.values():
        numbers.append(range(len(phrases), len(phrases) + len(phrases_of(text))))
        phrases += phrases_of(text)
    embeddings = reader.embed(phrases).to(device)
    model = GuidedBase(base, embeddings.shape[1]).to(device).train()
    if (trained := Path(options.base) / "pmp/model.safetensors").exists():
        model.guidance.load_state_dict({k.removeprefix("decoder."): v for k, v in load_file(str(trained)).items() if k.startswith("decoder.")})
    optimiser = torch.optim.AdamW(parameter_groups(model, options), options.lr)
    first = 0
    if (out / "last.pt").exists():
        saved = torch.load(out / "last.pt", map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"]
    whole = nn.parallel.DistributedDataParallel(model, [local] if device.type == "cuda" else None) if ranks > 1 else model
    pictures = preprocessor(options.base, options.size)
    examples = Examples(photos, label, numbers, pictures["image_mean"], pictures["image_std"], options)
    each = options.batch // ranks
    steps = [range(s * options.batch + rank * each, s * options.batch + (rank + 1) * each) for s in range(first, options.steps)]
    loader = torch.utils.data.DataLoader(examples, batch_sampler=steps, collate_fn=collate, num_workers=options.workers,
                                         pin_memory=device.type == "cuda")

    def say(line):
        if rank == 0:
            print(line, flush=True)

    say(f"{len(photos)} photos, {len(phrases)} phrases of {len(numbers)} labels, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters; "
        f"steps {first} to {options.steps}")
    if missing:
        say(f"a new class head, since the base has no label for {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")
    started, sums, counted = time.time(), 0, 0
    for step, batch in zip(range(first, options.steps), loader):
        # Points and dropout are drawn anew for each step, so that no state of a generator has to be kept.
        torch.manual_seed(int(np.random.SeedSequence([options.seed, step, rank]).generate_state(1)[0]))
        for g in optimiser.param_groups:
            g["lr"] = options.lr * g["rate"] * rate(step, options)
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=options.amp):
            predictions = whole(batch["pixels"].to(device), embeddings[batch["prompts"].to(device)], batch["valid"].to(device))
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
        export(model, reader, pictures, out / "export")
    if ranks > 1:
        dist.destroy_process_group()


def options(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", required=True, help="folder of a Mask2Former or a MaskFormer: config.json, and the tensors if it is trained")
    p.add_argument("--backbone", help="folder of a classifier whose backbone replaces the base's, for a base that has but a config.json "
                   "(not for MaskFormer's Swin, which the library names otherwise), or a file of a ResNet of torchvision")
    where = p.add_mutually_exclusive_group(required=True)
    where.add_argument("--coco", help="folder with annotations/panoptic_SPLIT.json, the PNGs beside it and the photos in SPLIT")
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
