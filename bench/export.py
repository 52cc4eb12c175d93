"""Exports the network to ONNX, in float32 and in int8, for onnxruntime-web to run against our engine.

    python export.py --weights ../weights/default --examples ../site/examples --out .cache

Writes encode.onnx, segment.onnx and both.onnx (the two as one graph, without copies between), encode-int8.onnx and
segment-int8.onnx, and what the page feeds them: inputs.json and inputs.bin (phrases, their embeddings and classifier rows). Needs torch, onnx,
onnxruntime, numpy and pillow.

The graphs compute what the engine computes in the same step and nothing more: encode ends with the decoder's keys and
values, the mask features at all strides and the trunk's head; segment begins with ready embeddings and ends with P and
the maps S. They are written so that onnxruntime has little to do: constants (positions, scales, the mask's binomial)
are folded in, the padding of strided convolutions is the convolution's own, keys come out as they are multiplied. Each
float32 graph is run by onnxruntime and compared with the PyTorch network, so it is the same network and not a look-alike.
"""
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from graphs import PHRASES, arguments, calibration_pixels, compare, prepare
from network import Conv, normalise, sine_positions, up2

OPSET = 17


# ---------------------------------------------------------------------------------------------------------------- graphs

class SameConv(torch.autograd.Function):
    """A strided convolution with TensorFlow's padding, which PyTorch needs a pad for and ONNX does not."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, before, after):
        return F.conv2d(F.pad(x, (before, after) * 2), weight, bias, stride, groups=groups(x, weight))

    @staticmethod
    def symbolic(g, x, weight, bias, stride, before, after):
        size = weight.type().sizes()[2]
        count = x.type().sizes()[1] // weight.type().sizes()[1]
        return g.op("Conv", x, weight, *([bias] if bias is not None else []), kernel_shape_i=[size] * 2, group_i=count,
                    pads_i=[before] * 2 + [after] * 2, strides_i=[stride] * 2)


def groups(x, weight):
    return x.shape[1] // weight.shape[1]


def same_conv(self, x):
    if self.same:
        return SameConv.apply(x, self.weight, self.bias, self.stride[0], self.same[0], self.same[1])
    return nn.Conv2d.forward(self, x)


class Up2(torch.autograd.Function):
    """network.up2 as one resize: with one more row and column in front, every output is at half of its index."""

    @staticmethod
    def forward(ctx, x):
        return up2(x)

    @staticmethod
    def symbolic(g, x):
        def const(*n):
            return g.op("Constant", value_t=torch.tensor(n))
        b, c, h, w = x.type().sizes()
        none = g.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
        x = g.op("Pad", x, const(0, 0, 1, 1, 0, 0, 0, 0), mode_s="edge")
        x = g.op("Resize", x, none, none, const(b, c, 2 * h + 1, 2 * w + 1), mode_s="linear", coordinate_transformation_mode_s="align_corners")
        x = g.op("Slice", x, const(1, 1), const(2 * h + 1, 2 * w + 1), const(2, 3))
        x.setType(x.type().with_sizes([b, c, 2 * h, 2 * w]) if hasattr(x.type(), "with_sizes") else x.type())
        return x


def attend(a, q, k, v, bias=None):
    """Heads of rows q [M,d] on keys [heads,d/heads,N] and values [heads,N,d/heads]; the scale is in a.q already."""
    m = q.shape[0]
    logits = a.q(q).reshape(m, a.heads, -1).transpose(0, 1) @ k
    if bias is not None:
        logits = logits + bias
    return a.out((logits.softmax(-1) @ v).transpose(0, 1).reshape(m, -1))


def keys(a, x):
    return a.k(x).reshape(x.shape[0], a.heads, -1).permute(1, 2, 0)


def values(a, x):
    return a.v(x).reshape(x.shape[0], a.heads, -1).transpose(0, 1)


class Encode(nn.Module):
    def __init__(self, network, height, width):
        super().__init__()
        self.trunk, self.pixel, self.decoder = network.trunk, network.pixel, network.decoder
        for module in self.trunk.modules():
            if isinstance(module, Conv):
                module.forward = same_conv.__get__(module)
        d, size = network.config["d"], network.config["size"]
        self.positions = {s: sine_positions(height // s, width // s, s, d, size) for s in (32, 16, 8)}
        line = torch.tensor([1., 2., 1.]) / 4
        self.binomial = (line[:, None] * line[None]).expand(network.config["dm"], 1, 3, 3).contiguous()

    def project(self, linear, x):
        """A linear layer over the cells of a map, as the 1×1 convolution that it is: [heads,d/heads,cells]."""
        y = F.conv2d(x, linear.weight[:, :, None, None], linear.bias)
        return y.reshape(self.decoder.layers[0].image.heads, -1, x.shape[2] * x.shape[3])

    def forward(self, pixels):
        p, e = self.pixel, self.pixel.encoder
        f = self.trunk(pixels)
        head = self.trunk.pooled_head(f["f32"])
        x32 = p.lateral32(f["f32"])
        h, w = x32.shape[2:]
        x = x32.reshape(-1, h * w).transpose(0, 1)
        at = x + self.positions[32]
        x = e.norm1(x + attend(e.attention, at, keys(e.attention, at), values(e.attention, x)))
        x = e.norm2(x + e.linear2(F.relu(e.linear1(x))))
        x32 = x.transpose(0, 1).reshape(1, -1, h, w)
        x16 = p.lateral16(f["f16"]) + Up2.apply(x32)
        x8 = p.lateral8(f["f8"]) + Up2.apply(x16)
        x4 = p.lateral4(f["f4"]) + Up2.apply(p.reduce4(x8))
        m = p.mask2(x4 + p.mask1(x4))
        masks = [m]
        for _ in range(3):
            m = SameConv.apply(m, self.binomial, None, 2, 0, 1)
            masks.append(m)
        out = []
        for layer, s, feature in zip(self.decoder.layers, (32, 16, 8), (p.out32(x32), p.out16(x16), p.out8(x8))):
            where = self.positions[s].T.reshape(1, -1, *feature.shape[2:])
            out.append(self.project(layer.image.k, feature + where))
            out.append(self.project(layer.image.v, feature).transpose(1, 2))
        return *out, *(m.reshape(m.shape[1], -1) for m in masks), head.reshape(-1, h * w).transpose(0, 1)


MEMORY = [f"{x}{i}" for i in range(3) for x in "kv"] + ["m4", "m8", "m16", "m32", "head"]


class Segment(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.decoder, self.center = network.decoder, network.stage2.center
        self.void = (self.decoder.logit_scale.exp() * normalise(self.decoder.void))[:, None]

    def step(self, a, x, tokens):
        return x + attend(a, x + self.decoder.query_pos, keys(a, tokens), values(a, tokens))

    def forward(self, *args):
        *memory, embeddings, rows, coef = args                # coef [3,T]: z = coef0·a + coef1·b + coef2
        memory = dict(zip(MEMORY, memory))
        d = self.decoder
        position, x = d.query_pos, d.query_feat
        if d.pmp:
            tokens = torch.cat((d.text_proj(embeddings), d.null_key[None]))
            x = self.step(d.text_first, x, tokens)
        for i, (layer, s) in enumerate(zip(d.layers, (32, 16, 8))):
            m = d.mask_mlp(d.norm(x)) @ memory[f"m{s}"]
            # A row that is blocked everywhere is not blocked: then even the lowest logit passes.
            floor = torch.where(m.amax(-1, keepdim=True) < 0, float("-inf"), 0.)
            bias = torch.where(m >= floor, 0., float("-inf"))
            x = layer.norm_image(x + attend(layer.image, x + position, memory[f"k{i}"], memory[f"v{i}"], bias))
            if d.pmp:
                x = self.step(layer.text, x, tokens)
            at = x + position
            x = layer.norm_self(x + attend(layer.self, at, keys(layer.self, at), values(layer.self, x)))
            x = layer.norm_ffn(x + layer.linear2(F.relu(layer.linear1(x))))
        z = d.norm(x)
        mask_embed = d.mask_mlp(z)
        masks = (mask_embed @ memory["m4"]).sigmoid()
        w = (mask_embed @ memory["m32"]).sigmoid()
        pooled = w / w.sum(-1, keepdim=True).clamp_min(1e-6) @ memory["head"]
        e = normalise(d.class_mlp(z) + d.pool_proj(d.pool_norm(pooled)))
        z = coef[0] * (e @ embeddings.T) + coef[1] * (normalise(pooled - self.center) @ rows.T) + coef[2]
        p = torch.cat((z, e @ self.void), 1).softmax(-1)
        return p, p[:, :-1].T @ masks


class Both(nn.Module):
    def __init__(self, encode, segment):
        super().__init__()
        self.encode, self.segment = encode, segment

    def forward(self, pixels, *phrases):
        return self.segment(*self.encode(pixels), *phrases)


def export(module, args, inputs, outputs, path):
    torch.onnx.export(module, args, str(path), input_names=inputs, output_names=outputs, opset_version=OPSET,
                      dynamo=False, do_constant_folding=True)
    onnx.checker.check_model(onnx.load(path))


def run(path, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {k: np.ascontiguousarray(v) for k, v in feeds.items()})))


# ------------------------------------------------------------------------------------------------------------------ int8

class Pictures(CalibrationDataReader):
    def __init__(self, folder, side):
        self.feeds = ({"pixels": x.numpy()} for x in calibration_pixels(folder, side))

    def get_next(self):
        return next(self.feeds, None)


def quantize_encode(source, target, pictures):
    """What a careful user would ship: static int8 for convolutions with ranges from pictures, float32 for attention and
    norms, and for the first two convolutions, without which masks are far off."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(source, ready)
        first = [n.name for n in onnx.load(ready).graph.node if n.op_type == "Conv"][:2]
        # With Clip, the range of a ReLU6 is taken behind it and not in front.
        quantize_static(ready, target, pictures, QuantFormat.QDQ, op_types_to_quantize=["Conv", "Clip"], per_channel=True,
                        nodes_to_exclude=first, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def quantize_segment(source, target):
    """Dynamic int8 for linear layers; products of two activations stay float32, since ranges are poor there."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(source, ready)
        quantize_dynamic(ready, target, op_types_to_quantize=["MatMul"], per_channel=True)


def main():
    args = arguments(__doc__)
    it = prepare(args.weights, args.examples / "astronaut.jpg")
    network, config, side = it.network, it.config, it.side
    encode, segment = Encode(network, side, side), Segment(network)

    def path(name):
        return args.out / f"{name}.onnx"

    memory = encode(it.pixels)
    phrases = {"embeddings": it.embeddings, "rows": it.rows, "coef": it.coef}
    asked = {k: v.numpy() for k, v in phrases.items()}
    export(encode, (it.pixels,), ["pixels"], MEMORY, path("encode"))
    export(segment, (*memory, *phrases.values()), [*MEMORY, *phrases], ["P", "S"], path("segment"))
    export(Both(encode, segment), (it.pixels, *phrases.values()), ["pixels", *phrases], ["P", "S"], path("both"))
    got = run(path("encode"), {"pixels": it.pixels.numpy()})
    said = [compare(f"m{s}", got[f"m{s}"], it.encoded[f"M{s}"].flatten(2)[0]) for s in (4, 8, 16, 32)]
    said.append(compare("head", got["head"], it.encoded["head"].flatten(2)[0].T))
    for i, (layer, s) in enumerate(zip(network.decoder.layers, (32, 16, 8))):
        rows_of = it.encoded[f"P{s}"].flatten(2)[0].T
        at = rows_of + sine_positions(side // s, side // s, s, config["d"], side)
        said.append(compare(f"k{i}", got[f"k{i}"], keys(layer.image, at)))
        said.append(compare(f"v{i}", got[f"v{i}"], values(layer.image, rows_of)))
    print("encode:", ", ".join(said))
    for name, feeds in (("segment", {**got, **asked}), ("both", {"pixels": it.pixels.numpy(), **asked})):
        out = run(path(name), feeds)
        print(f"{name}:", ", ".join(compare(k, out[k], it.wanted[k]) for k in ("P", "S")))

    quantize_encode(path("encode"), path("encode-int8"), Pictures(args.examples, side))
    quantize_segment(path("segment"), path("segment-int8"))

    np.concatenate([x.numpy().ravel() for x in phrases.values()]).astype("<f4").tofile(args.out / "inputs.bin")
    (args.out / "inputs.json").write_text(json.dumps({
        "phrases": PHRASES, "side": side, "queries": config["queries"], "cells": (side // 4) ** 2,
        "embed": it.embeddings.shape[1], "row": it.rows.shape[1], "theta": config["theta"], "presence": config["presence"],
        "epsilon": config["edges"]["epsilon"],
        "memory": MEMORY, "scores": it.score.tolist()}, indent=1) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
