"""Exports the network to LiteRT's format, for LiteRT.js to run against our engine.

    python export_litert.py --weights ../weights/default --examples ../site/examples --out .cache

Writes encode.tflite, segment.tflite, encode-int8.tflite and encode-bytes.tflite (int8 all through: faster, but its masks
are far off). Needs litert-torch 0.10.0, ai-edge-quantizer 0.10.0 and pillow; they pin a PyTorch of their own, so give
them an environment of their own.

It is the network of export.py in the shape that LiteRT's XNNPACK takes best: maps are channels-last, there are no
booleans, and products of two things that are both made at run time have a batch of at least two, since of one the converter
makes a fully connected layer, which packs its weights anew in each run. Each graph is compared with PyTorch.
"""

import litert_torch
import numpy as np
import torch
import torch.nn.functional as F
from ai_edge_quantizer import qtyping, quantizer, recipe, recipe_manager
from torch import nn

from graphs import arguments, calibration_pixels, compare, prepare
from network import normalise, sine_positions

# relu6(−STEEP·m) is 6 where m < 0 and else 0. LOW is as good as −∞ in front of a softmax.
STEEP, LOW = 1e20, -1e4


def up2(x):
    """network.up2 as one resize: with one more row and column in front, every output is at half of its index."""
    h, w = x.shape[2:]
    x = torch.cat((x[:, :, :1], x), 2)                # XNNPACK has no pad that repeats
    x = torch.cat((x[:, :, :, :1], x), 3)
    return F.interpolate(x, size=(2 * h + 1, 2 * w + 1), mode="bilinear", align_corners=True)[:, :, 1:, 1:]


def unit(x):
    """Rows of length one, in steps that XNNPACK has: it has no normalisation of its own."""
    return x * (x * x).mean(-1, keepdim=True).rsqrt() * x.shape[-1] ** -0.5


def heads(x, n):
    """Rows [N,d] → [n,N,d/n]."""
    return x.reshape(x.shape[0], n, -1).transpose(0, 1)


def attend(a, q, k, v, bias=None):
    """Heads of rows q [M,d] on keys and values [heads,N,d/heads]; the scale is in a.q already."""
    logits = heads(a.q(q), a.heads) @ k.transpose(1, 2)
    if bias is not None:
        logits = logits + bias
    return a.out((logits.softmax(-1) @ v).transpose(0, 1).reshape(q.shape[0], -1))


class Tokens(nn.Module):
    """The transformer layer at stride 32. A module of its own, since quantize knows it by its name."""

    def __init__(self, encoder, positions):
        super().__init__()
        self.encoder, self.positions = encoder, positions

    def forward(self, x):
        e, a = self.encoder, self.encoder.attention
        h, w = x.shape[2:]
        x = x.permute(0, 2, 3, 1).reshape(h * w, -1)
        at = x + self.positions
        x = e.norm1(x + attend(a, at, heads(a.k(at), a.heads), heads(a.v(x), a.heads)))
        x = e.norm2(x + e.linear2(F.relu(e.linear1(x))))
        return x.reshape(1, h, w, -1).permute(0, 3, 1, 2)


class Encode(nn.Module):
    def __init__(self, network, side):
        super().__init__()
        self.trunk, self.pixel, self.decoder = network.trunk, network.pixel, network.decoder
        d, dm = network.config["d"], network.config["dm"]
        self.positions = {s: sine_positions(side // s, side // s, s, d, side) for s in (32, 16, 8)}
        self.tokens = Tokens(self.pixel.encoder, self.positions[32])
        # network.down2 with a row and column of zeros in front, as 4×4: then its padding is one the converter folds in.
        line = torch.tensor([0., 1., 2., 1.]) / 4
        self.binomial = (line[:, None] * line[None]).expand(dm, 1, 4, 4).contiguous()

    def rows(self, linear, x):
        """A linear layer over the cells of a map, as the 1×1 convolution that it is: heads of rows."""
        y = F.conv2d(x, linear.weight[:, :, None, None], linear.bias)
        return heads(y.permute(0, 2, 3, 1).reshape(-1, y.shape[1]), self.decoder.layers[0].image.heads)

    def forward(self, pixels):
        p = self.pixel
        f = self.trunk(pixels)
        head = self.trunk.pooled_head(f["f32"])
        x32 = self.tokens(p.lateral32(f["f32"]))
        x16 = p.lateral16(f["f16"]) + up2(x32)
        x8 = p.lateral8(f["f8"]) + up2(x16)
        x4 = p.lateral4(f["f4"]) + up2(p.reduce4(x8))
        m = p.mask2(x4 + p.mask1(x4))
        masks = [m]
        for _ in range(3):
            m = F.conv2d(m, self.binomial, stride=2, padding=1, groups=m.shape[1])
            masks.append(m)
        out = []
        for layer, s, feature in zip(self.decoder.layers, (32, 16, 8), (p.out32(x32), p.out16(x16), p.out8(x8))):
            where = self.positions[s].reshape(1, *feature.shape[2:], -1).permute(0, 3, 1, 2)
            out += [self.rows(layer.image.k, feature + where), self.rows(layer.image.v, feature)]
        out += [m.permute(0, 2, 3, 1).reshape(2, -1, m.shape[1]) for m in masks]
        return *out, head.permute(0, 2, 3, 1).reshape(2, -1, head.shape[1])


class Segment(nn.Module):
    """Masks and the head come in two halves of their cells, which are the batches of the products with them."""

    def __init__(self, network):
        super().__init__()
        self.decoder = d = network.decoder
        self.center = network.stage2.center
        self.void = (d.logit_scale.exp() * normalise(d.void))[:, None]

    def step(self, a, x, tokens):
        k, v = heads(a.k(tokens), a.heads), heads(a.v(tokens), a.heads)
        return x + attend(a, x + self.decoder.query_pos, k, v)

    @staticmethod
    def halves(x, m):
        """x [Q,c], m [2,N/2,c] → x·mᵀ as [2,Q,N/2]."""
        return torch.stack((x, x)) @ m.transpose(1, 2)

    @staticmethod
    def dots(x, y):
        """x [Q,c], y [T,c] → x·yᵀ, halves of the queries being the batch."""
        return (x.reshape(2, -1, x.shape[1]) @ torch.stack((y, y)).transpose(1, 2)).reshape(x.shape[0], -1)

    def forward(self, k0, v0, k1, v1, k2, v2, m4, m8, m16, m32, head, embeddings, rows, coef):
        d = self.decoder
        position, x = d.query_pos, d.query_feat
        tokens = torch.cat((d.text_proj(embeddings), d.null_key[None]))
        x = self.step(d.text_first, x, tokens)
        for layer, k, v, m in zip(d.layers, (k0, k1, k2), (v0, v1, v2), (m32, m16, m8)):
            logits = self.halves(d.mask_mlp(d.norm(x)), m).transpose(0, 1).reshape(x.shape[0], -1)
            # A row that is blocked everywhere is not blocked.
            blocked = F.relu6(logits * -STEEP)
            some = 6 - F.relu6(logits.amax(-1, keepdim=True) * -STEEP)
            x = layer.norm_image(x + attend(layer.image, x + position, k, v, blocked * (some * (LOW / 36))))
            x = self.step(layer.text, x, tokens)
            at = x + position
            a = layer.self
            x = layer.norm_self(x + attend(a, at, heads(a.k(at), a.heads), heads(a.v(x), a.heads)))
            x = layer.norm_ffn(x + layer.linear2(F.relu(layer.linear1(x))))
        z = d.norm(x)
        embed = d.mask_mlp(z)
        masks = self.halves(embed, m4).sigmoid()
        w = self.halves(embed, m32).sigmoid()
        pooled = (w @ head).sum(0) / w.sum((0, 2)).clamp_min(1e-6)[:, None]
        e = unit(d.class_mlp(z) + d.pool_proj(d.pool_norm(pooled)))
        z = coef[0] * self.dots(e, embeddings) + coef[1] * self.dots(unit(pooled - self.center), rows) + coef[2]
        p = torch.cat((z, e @ self.void), 1).softmax(-1)
        prompts = p[:, :-1].T
        return p, (torch.stack((prompts, prompts)) @ masks).transpose(0, 1).reshape(prompts.shape[0], -1)


def convert(module, args, path):
    model = litert_torch.convert(module.eval(), args)
    model.export(str(path))
    got, want = model(*args), module(*args)
    print(f"{path.name}:", ", ".join(compare(i, g, w) for i, (g, w) in enumerate(zip(got, want))))


def quantize(source, target, pictures, first):
    """Static int8, but for attention and norms, and unless `first` for the first two convolutions, without which masks are
    far off."""
    rules = recipe_manager.RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    ops = qtyping.TFLOperationName
    keep = [(".*", ops.INPUT), (".*", ops.OUTPUT), (".*Tokens_tokens.*", ops.ALL_SUPPORTED)]
    if not first:
        keep += [(".*Conv_stem.*", ops.ALL_SUPPORTED), (".*InvertedResidual_0/network.Conv_depthwise.*", ops.ALL_SUPPORTED)]
    for where, op in keep:
        rules.add_quantization_config(where, op, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE)
    q = quantizer.Quantizer(str(source), rules.get_quantization_recipe())
    ranges = q.calibrate({"serving_default": [{"args_0": x.numpy()} for x in pictures]})
    target.unlink(missing_ok=True)
    q.quantize(ranges).export_model(str(target))


def main():
    args = arguments(__doc__)
    it = prepare(args.weights, args.examples / "astronaut.jpg")

    def rows(x):
        return x.permute(0, 2, 3, 1).contiguous()

    encode = litert_torch.to_channel_last_io(Encode(it.network, it.side).eval(), args=[0])
    memory = encode(rows(it.pixels))
    convert(encode, (rows(it.pixels),), args.out / "encode.tflite")
    segment = Segment(it.network).eval()
    phrases = it.embeddings, it.rows, it.coef
    for name, got in zip(("P", "S"), segment(*memory, *phrases)):
        compare(name, got, it.wanted[name])
    convert(segment, (*memory, *phrases), args.out / "segment.tflite")
    for name, first in (("encode-int8", False), ("encode-bytes", True)):
        quantize(args.out / "encode.tflite", args.out / f"{name}.tflite", map(rows, calibration_pixels(args.examples, it.side)), first)


if __name__ == "__main__":
    with torch.no_grad():
        main()
