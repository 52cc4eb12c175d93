"""CLIP with the names of open_clip and OpenAI: its image encoders, its text encoder and its tokenizer.

A state dict of either is one of CLIP's here, name by name. Sizes come from the tensors, but for heads and the activation.
"""
import math
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

TEMPLATES = ["a photo of a {}.", "This is a photo of a {}", "There is a {} in the scene", "There is the {} in the scene", "a photo of a {} in the scene",
             "a photo of a small {}.", "a photo of a medium {}.", "a photo of a large {}.", "This is a photo of a small {}.",
             "This is a photo of a medium {}.", "This is a photo of a large {}.", "There is a small {} in the scene.",
             "There is a medium {} in the scene.", "There is a large {} in the scene."]
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
CONTEXT = 77
PIECES = 2 * 256 + 2             # tokens besides the merges: bytes inside and at the end of words, and those that begin and end a text


# ------------------------------------------------------------------------------------------------------ image encoders

class ChannelNorm(nn.LayerNorm):
    """A layer norm of maps [B,C,H,W]."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.conv_dw, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width)))

    def forward(self, x):
        return x + (self.gamma * self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """timm's ConvNeXt, and behind it open_clip's head: one layer, or two where hidden is given."""

    def __init__(self, widths, depths, embedding, hidden=None):
        super().__init__()
        trunk = self.trunk = nn.Module()
        trunk.stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], eps=1e-6))
        trunk.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(widths, depths)):
            down = nn.Sequential(ChannelNorm(widths[i - 1], eps=1e-6), nn.Conv2d(widths[i - 1], width, 2, 2)) if i else nn.Identity()
            trunk.stages.append(nn.Sequential(OrderedDict(downsample=down, blocks=nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth))))))
        trunk.head = nn.Sequential(OrderedDict(norm=nn.LayerNorm(widths[3], eps=1e-6)))
        one = dict(proj=nn.Linear(widths[3], embedding, bias=False))
        two = hidden and dict(mlp=nn.Sequential(OrderedDict(fc1=nn.Linear(widths[3], hidden), act=nn.GELU(), fc2=nn.Linear(hidden, embedding, bias=False))))
        self.head = nn.Sequential(OrderedDict(two or one))
        self.widths = widths

    def maps(self, x):
        x, maps = self.trunk.stem(x), []
        for stage in self.trunk.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Bottleneck(nn.Module):
    """A block of CLIP's ResNets, whose stride is a mean of cells."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.pool = nn.AvgPool2d(stride)
        self.downsample = None
        if stride > 1 or channels != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(self.pool(y))) + (x if self.downsample is None else self.downsample(self.pool(x))))


class ResNet(nn.Module):
    """CLIP's ResNet, whose stem has three convolutions and which attention pools."""

    def __init__(self, width, depths, side, embedding):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv2, self.bn2 = nn.Conv2d(width // 2, width // 2, 3, 1, 1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv3, self.bn3 = nn.Conv2d(width // 2, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        channels = width
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                blocks.append(Bottleneck(channels, width << i, 2 if i > 0 and j == 0 else 1))
                channels = 4 * width << i
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.attnpool = nn.Module()
        self.attnpool.positional_embedding = nn.Parameter(torch.randn(side * side + 1, channels) / channels ** 0.5)
        for name in "qkvc":
            self.attnpool.add_module(f"{name}_proj", nn.Linear(channels, embedding if name == "c" else channels))
        self.widths = [4 * width << i for i in range(4)]

    def maps(self, x):
        for i in "123":
            x = F.relu(getattr(self, "bn" + i)(getattr(self, "conv" + i)(x)))
        x, maps = F.avg_pool2d(x, 2), []
        for i in "1234":
            x = getattr(self, "layer" + i)(x)
            maps.append(x)
        return maps


# -------------------------------------------------------------------------------------------------------- transformers

class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width, heads, quick, hidden):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(width, hidden), act=QuickGELU() if quick else nn.GELU(), c_proj=nn.Linear(hidden, width)))

    def forward(self, x, mask=None):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


def transformer(layers, width, heads, quick, hidden=None):
    t = nn.Module()
    t.resblocks = nn.ModuleList(Block(width, heads, quick, hidden or 4 * width) for _ in range(layers))
    return t


class ViT(nn.Module):
    """CLIP's vision transformer. Where prompts are, patches that a mask does not touch are replaced by learned ones before so many layers."""

    def __init__(self, width, layers, heads, patch, side, embedding, quick, hidden=None, prompts=0):
        super().__init__()
        self.conv1, self.class_embedding = nn.Conv2d(3, width, patch, patch, bias=False), nn.Parameter(torch.randn(width) / width ** 0.5)
        self.positional_embedding = nn.Parameter(torch.randn(side * side + 1, width) / width ** 0.5)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = transformer(layers, width, heads, quick, hidden)
        self.proj = nn.Parameter(torch.randn(width, embedding) / width ** 0.5)
        self.mask_embedding = nn.Parameter(torch.zeros(prompts, side * side, width)) if prompts else None
        self.patch, self.size = patch, patch * side

    def forward(self, pixels, inside):
        """Pixels [B,3,size,size], of which those inside [B,1,size,size] are 1 → [B,embedding]."""
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        touched = F.max_pool2d(inside, self.patch).flatten(2).transpose(1, 2) > 0
        prompts = [] if self.mask_embedding is None else self.mask_embedding
        if len(prompts):
            x = torch.where(touched, x, prompts[0])
        x = self.ln_pre(torch.cat((self.class_embedding.expand(len(x), 1, -1), x), 1) + self.positional_embedding)
        for i, block in enumerate(self.transformer.resblocks):
            if 0 < i < len(prompts):
                x = torch.cat((x[:, :1], torch.where(touched, x[:, 1:], prompts[i])), 1)
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj


def cut(pixels, inside, size):
    """The box of a mask [H,W] in a picture [3,H,W] from 0 to 1, with CLIP's mean around the mask, as OVSeg has it: what CLIP sees
    [1,3,size,size], and which of its pixels are in the mask [1,1,size,size]."""
    y, x = inside.nonzero(as_tuple=True)
    box = (..., slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1))
    mean, std = (torch.tensor(v, dtype=pixels.dtype)[:, None, None] for v in (MEAN, STD))
    seen = (torch.where(inside[box], pixels[box], mean) - mean) / std
    seen = F.interpolate(seen[None], size=(size, size), mode="bicubic")   # neither filtered nor with corners aligned
    return seen, F.interpolate(inside[box].to(pixels)[None, None], size=(size, size), mode="nearest")


# ---------------------------------------------------------------------------------------------------------------- CLIP

IMAGE = {"convnext": ConvNeXt, "resnet": ResNet, "vit": ViT}


class CLIP(nn.Module):
    """config: {"image": {"kind": …}, "embedding", "quick_gelu", "vocab", "text": {"layers", "width", "heads", "hidden"}}. It is frozen."""

    def __init__(self, config):
        super().__init__()
        self.config, text = config, config["text"]
        image = dict(config["image"])
        if image["kind"] == "vit":
            image["quick"] = config["quick_gelu"]
        self.visual = IMAGE[image.pop("kind")](embedding=config["embedding"], **image)
        self.token_embedding = nn.Embedding(config["vocab"], text["width"])
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, text["width"]))
        self.transformer = transformer(text["layers"], text["width"], text["heads"], config["quick_gelu"], text.get("hidden"))
        self.ln_final = nn.LayerNorm(text["width"])
        self.text_projection = nn.Parameter(torch.randn(text["width"], config["embedding"]) / text["width"] ** 0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.eval().requires_grad_(False)

    def train(self, mode=True):
        return super().train(False)

    def encode_text(self, ids):
        """Token ids [N,L], which end with the largest one → [N,embedding]."""
        n = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:n]
        mask = torch.full((n, n), -math.inf, device=x.device, dtype=x.dtype).triu(1)
        for block in self.transformer.resblocks:
            x = block(x, mask)
        return self.ln_final(x)[torch.arange(len(ids), device=ids.device), ids.argmax(-1)] @ self.text_projection


PROMPTS = "visual.mask_embedding"


def count(state, prefix):
    """How many members the list of modules with this prefix has."""
    return len({k[len(prefix):].split(".")[0] for k in state if k.startswith(prefix)})


def sizes(state):
    """The config of a state dict's CLIP; heads and activation are those that CLIP's own have."""
    def rows(name):
        return state[name].shape[0]
    width, embedding = state["text_projection"].shape
    if "visual.trunk.stem.0.weight" in state:
        image = {"kind": "convnext", "widths": [rows(f"visual.trunk.stages.{i}.blocks.0.gamma") for i in range(4)],
                 "depths": [count(state, f"visual.trunk.stages.{i}.blocks.") for i in range(4)]}
        if "visual.head.mlp.fc1.weight" in state:
            image["hidden"] = rows("visual.head.mlp.fc1.weight")
    elif "visual.attnpool.positional_embedding" in state:
        image = {"kind": "resnet", "width": rows("visual.conv3.weight"), "depths": [count(state, f"visual.layer{i}.") for i in range(1, 5)],
                 "side": math.isqrt(rows("visual.attnpool.positional_embedding") - 1)}
    elif "visual.class_embedding" in state:
        wide = rows("visual.class_embedding")
        image = {"kind": "vit", "width": wide, "layers": count(state, "visual.transformer.resblocks."), "heads": max(wide // 64, 1),
                 "patch": state["visual.conv1.weight"].shape[-1], "side": math.isqrt(rows("visual.positional_embedding") - 1),
                 "hidden": rows("visual.transformer.resblocks.0.mlp.c_fc.weight"), "prompts": rows(PROMPTS) if PROMPTS in state else 0}
    else:
        raise SystemExit("its CLIP has no ConvNeXt, no ResNet and no vision transformer of the usual names")
    return {"image": image, "embedding": embedding, "quick_gelu": image["kind"] != "convnext", "vocab": rows("token_embedding.weight"),
            "text": {"layers": count(state, "transformer.resblocks."), "width": width, "heads": max(width // 64, 1), "hidden": rows("transformer.resblocks.0.mlp.c_fc.weight")}}


def build(state, **changes):
    """The CLIP of a state dict. What a CLIP's own file has besides, its mask of tokens and sizes, is left out."""
    config = sizes(state)
    config["quick_gelu"] = changes.get("quick_gelu", config["quick_gelu"])
    config["text"]["heads"] = changes.get("text_heads") or config["text"]["heads"]
    if "heads" in config["image"]:
        config["image"]["heads"] = changes.get("clip_heads") or config["image"]["heads"]
    clip = CLIP(config)
    want = clip.state_dict()
    # One mask prompt may stand for those of all patches.
    found = {k: x.float().expand(want[k].shape) if k == PROMPTS else x.float() for k, x in state.items() if k in want}
    found |= {k: x for k, x in want.items() if k.endswith("num_batches_tracked") and k not in found}       # older files lack these
    if missing := [k for k in want if k not in found]:
        raise SystemExit(f"its CLIP lacks {missing[0]} and {len(missing) - 1} more tensors")
    clip.load_state_dict(found)
    return clip


def file_of(path):
    """A CLIP's file: the path itself, or the one that a folder of open_clip has."""
    path = Path(path)
    names = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    found = [path] if path.is_file() else [path / n for n in names if (path / n).exists()]
    if not found:
        raise SystemExit(f"{path} has none of {', '.join(names)}; give the file of an open_clip or OpenAI CLIP")
    return found[0]


def read(path):
    """The state dict in a file of open_clip, or of OpenAI, whose own are archives of TorchScript."""
    path = file_of(path)
    if path.suffix == ".safetensors":
        return load_file(str(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except RuntimeError:
        state = torch.jit.load(str(path), map_location="cpu").state_dict()
    return state.get("state_dict", state)


# ---------------------------------------------------------------------------------------------------------------- text

def characters():
    """OpenAI's order of bytes: those that are printable, then the others by other characters."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [b for b in range(256) if b not in shown]
    return {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}


def tokenizer(merges):
    """CLIP's tokenizer with pairs of pieces that are merged. Two merges may make the same piece; its number is the last one's."""
    pieces = [*characters().values()]
    pieces += [p + "</w>" for p in pieces] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=merges)


def read_merges(path, most=None):
    """The pairs in a merges.txt, at most as many as a vocabulary has room for."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return merges[:most]


class ClipReader:
    """A frozen text encoder of CLIP with its tokenizer. merges is the path of its merges.txt."""

    def __init__(self, clip, merges):
        self.clip, self.merges = clip, Path(merges)
        self.words = tokenizer(read_merges(merges, clip.config["vocab"] - PIECES))
        if (tokens := self.words.eos_token_id + 1) != clip.config["vocab"]:
            raise SystemExit(f"{merges} makes {tokens} tokens and CLIP has {clip.config['vocab']}; it must be the merges.txt that belongs to it")

    @torch.no_grad()
    def embed(self, phrases, batch=64):
        """Phrases → E [N,embedding]: of each the mean over the templates, of length one."""
        device, every = self.clip.text_projection.device, []
        for i in range(0, len(phrases), batch):
            sentences = [t.format(p) for p in phrases[i:i + batch] for t in TEMPLATES]
            ids = self.words(sentences, truncation=True, max_length=CONTEXT, padding=True, return_tensors="pt")["input_ids"]
            e = F.normalize(self.clip.encode_text(ids.to(device)), dim=-1)
            every.append(F.normalize(e.unflatten(0, (-1, len(TEMPLATES))).mean(1), dim=-1))
        return torch.cat(every)
