"""Exports the network of a folder of weights to ONNX, for onnxruntime-web to run against our engine.

    python export.py --weights ../weights/default --picture ../site/examples/astronaut.jpg --out .cache

Writes encode.onnx, segment-T.onnx for each number of phrases T, both.onnx (encode and the smallest segment in one
graph, without copies between), and what the page feeds them: inputs.json and inputs.bin (phrases, their embeddings and
classifier rows). Needs torch, onnx, onnxruntime, numpy and pillow.

The graphs compute what the engine computes in the same step and nothing more: encode ends with the decoder's keys and
values, the mask features at all strides and the trunk's head; segment begins with ready embeddings and ends with P and
the maps S. They are written so that onnxruntime has little to do: constants (positions, scales, the mask's binomial)
are folded in, the padding of strided convolutions is the convolution's own, keys come out as they are multiplied. Each
graph is run by onnxruntime and compared with the PyTorch network, so it is the same network and not a look-alike.
"""
import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "weights" / "train"))
from network import Conv, Network, normalise, sine_positions, up2  # noqa: E402
from text import TextEncoder  # noqa: E402

OPSET = 17
# onnxruntime adds in another order than PyTorch. Where a mask logit that steers attention lies near 0, that may block
# one more or one less cell, which moves everything behind it; hence relative to the largest number, and not 1e-5.
TOLERANCE = 1e-3

# The first 8 are in or near the picture, or clearly absent; all are single phrases, so prompts and phrases agree.
PHRASES = ["person", "flag", "helmet", "dog", "car", "tree", "sky", "chair",
           "cat", "table", "sofa", "bottle", "bicycle", "horse", "sheep", "boat", "train", "bus", "bird", "grass",
           "road", "wall", "floor", "building", "book", "cup", "shirt", "hat", "hair", "window", "door", "lamp"]
COUNTS = (8, 32)


# --------------------------------------------------------------------------------------------------------------- weights

DTYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8}


def read_shard(data):
    """The tensors of one safetensors file."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    for name, entry in header.items():
        begin, end = (8 + length + n for n in entry["data_offsets"])
        yield name, np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])


def read_weights(folder):
    """manifest.json, all tensors as float32, the vocabulary. An int8 tensor's rows are multiplied by their scales."""
    manifest = json.loads((folder / "manifest.json").read_text())
    stored = {}
    for shard in manifest["shards"]:
        data = (folder / shard["file"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != shard["sha256"]:
            sys.exit(f"{shard['file']} is not the file that the manifest lists")
        if shard["file"] != manifest["tokenizer"]:
            stored.update(read_shard(data))
    state = {}
    for name, x in stored.items():
        if x.dtype == np.int8:
            scale = stored[name + ".scale"].astype(np.float32)
            x = x.astype(np.float32) * scale.reshape(-1, *[1] * (x.ndim - 1))
        elif name.endswith(".scale") and stored.get(name.removesuffix(".scale"), x).dtype == np.int8:
            continue
        state[name] = torch.from_numpy(x.astype(np.float32))
    return manifest, state, (folder / manifest["tokenizer"]).read_text().split("\n")


def build(manifest, state):
    config = manifest["config"]
    text = {k.removeprefix("text."): v for k, v in state.items() if k.startswith("text.")}
    image = {k: v for k, v in state.items() if not k.startswith("text.")}
    names, rank = image["stage2.coef_u"].shape
    network = Network({**{k: v for k, v in config.items() if k != "text"},
                       "stage2": {"names": names, "rank": rank, "trained": len(image["stage2.trained"])}})
    network.load_state_dict(image)
    vocab, factor = text["word_u"].shape
    ffn, width = text["layers.0.linear1.weight"].shape
    encoder = TextEncoder({**config["text"], "vocab": vocab, "rank": factor, "ffn": ffn, "width": width})
    encoder.load_state_dict(text)
    return network.eval().requires_grad_(False), encoder.eval().requires_grad_(False)


def word_pieces(vocabulary, phrase):
    """WordPiece for plain lower-case English words, which is all that PHRASES has."""
    index = {w: i for i, w in enumerate(vocabulary)}
    ids = [index["[CLS]"]]
    for word in phrase.split():
        at = 0
        while at < len(word):
            end = next(e for e in range(len(word), at, -1) if ("##" * (at > 0) + word[at:e]) in index)
            ids.append(index["##" * (at > 0) + word[at:end]])
            at = end
    return ids + [index["[SEP]"]]


def embed(manifest, encoder, vocabulary, phrase):
    """The mean over the templates, as in model/phrase.go."""
    texts = [t.replace("{}", phrase) for t in manifest["config"]["templates"]]
    return normalise(sum(encoder(torch.tensor([word_pieces(vocabulary, t)]))[0] for t in texts))


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


def fold_scales(network):
    """Moves 1/√(d/heads) into the query projections, so that no graph multiplies by it."""
    for module in network.modules():
        if hasattr(module, "heads") and hasattr(module, "q"):
            scale = (module.q.out_features // module.heads) ** -0.5
            module.q.weight.data.mul_(scale)
            module.q.bias.data.mul_(scale)


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
        return p, p[:, :-1].T @ masks, masks


class Both(nn.Module):
    def __init__(self, encode, segment):
        super().__init__()
        self.encode, self.segment = encode, segment

    def forward(self, pixels, *phrases):
        return self.segment(*self.encode(pixels), *phrases)


def export(module, args, inputs, outputs, path):
    torch.onnx.export(module, args, str(path), input_names=inputs, output_names=outputs, opset_version=OPSET,
                      dynamo=False, do_constant_folding=True)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    return {op: sum(n.op_type == op for n in model.graph.node) for op in sorted({n.op_type for n in model.graph.node})}


def run(path, feeds, fetches=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {k: np.ascontiguousarray(v) for k, v in feeds.items()})))


def compare(what, got, want):
    want = want.numpy()
    error = np.abs(got - want).max() / np.abs(want).max()
    if not error < TOLERANCE:
        sys.exit(f"{what}: the exported graph differs from the network by {error:.2g} of the largest number")
    return f"{what} {error:.1e}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", type=Path, default=HERE.parent / "weights" / "default")
    p.add_argument("--picture", type=Path, default=HERE.parent / "site" / "examples" / "astronaut.jpg")
    p.add_argument("--out", type=Path, default=HERE / ".cache")
    args = p.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    manifest, state, vocabulary = read_weights(args.weights)
    network, encoder = build(manifest, state)
    config = network.config
    side = config["size"]

    embeddings = torch.stack([embed(manifest, encoder, vocabulary, t) for t in PHRASES])
    rows = network.stage2.rows(embeddings)
    share = network.stage2.weights(embeddings, config)
    tau = network.decoder.logit_scale.exp()
    coef = torch.stack(((1 - share) * tau, share * config["kappa"], -share * config["kappa"] * config["b0"]))

    picture = np.asarray(Image.open(args.picture).convert("RGB").resize((side, side), Image.BILINEAR), np.float32)
    pixels = torch.from_numpy((picture - 127) / 128).permute(2, 0, 1)[None].contiguous()
    encoded = network.encode(pixels)
    wanted = {}
    for t in COUNTS:
        out = {k: v[0] for k, v in network.segment(encoded, embeddings[None, :t]).items()}
        answer = network.answer(out, embeddings[:t])
        wanted[t] = {"P": answer["P"], "S": answer["S"].flatten(1), "masks": out["masks"].flatten(1).sigmoid(), "score": answer["score"]}
    features = {s: encoded[f"P{s}"] for s in (32, 16, 8)}
    fold_scales(network)

    encode, segment = Encode(network, side, side), Segment(network)
    memory = encode(pixels)
    ops = {"encode": export(encode, (pixels,), ["pixels"], MEMORY, args.out / "encode.onnx")}
    got = run(args.out / "encode.onnx", {"pixels": pixels.numpy()})
    said = [compare(f"m{s}", got[f"m{s}"], encoded[f"M{s}"].flatten(2)[0]) for s in (4, 8, 16, 32)]
    said.append(compare("head", got["head"], encoded["head"].flatten(2)[0].T))
    for i, (layer, s) in enumerate(zip(network.decoder.layers, (32, 16, 8))):
        rows_of = features[s].flatten(2)[0].T
        at = rows_of + sine_positions(side // s, side // s, s, config["d"], side)
        said.append(compare(f"k{i}", got[f"k{i}"], keys(layer.image, at)))
        said.append(compare(f"v{i}", got[f"v{i}"], values(layer.image, rows_of)))
    print("encode:", ", ".join(said))
    for t in COUNTS:
        phrases = embeddings[:t], rows[:t], coef[:, :t].contiguous()
        inputs = MEMORY + ["embeddings", "rows", "coef"]
        path = args.out / f"segment-{t}.onnx"
        ops[f"segment-{t}"] = export(segment, (*memory, *phrases), inputs, ["P", "S", "masks"], path)
        out = run(path, dict(zip(inputs, [got[k] for k in MEMORY] + [x.numpy() for x in phrases])))
        print(f"segment {t}:", ", ".join(compare(k, out[k], wanted[t][k]) for k in ("P", "S", "masks")))
    t = COUNTS[0]
    phrases = {"embeddings": embeddings[:t], "rows": rows[:t], "coef": coef[:, :t].contiguous()}
    export(Both(encode, segment), (pixels, *phrases.values()), ["pixels", *phrases], ["P", "S", "masks"], args.out / "both.onnx")
    out = run(args.out / "both.onnx", {"pixels": pixels.numpy(), **{k: v.numpy() for k, v in phrases.items()}})
    print("both:", ", ".join(compare(k, out[k], wanted[t][k]) for k in ("P", "S", "masks")))

    np.concatenate([x.numpy().ravel() for x in (embeddings, rows, coef)]).astype("<f4").tofile(args.out / "inputs.bin")
    (args.out / "inputs.json").write_text(json.dumps({
        "phrases": PHRASES, "counts": COUNTS, "side": side, "queries": config["queries"], "cells": (side // 4) ** 2,
        "embed": embeddings.shape[1], "row": rows.shape[1], "theta": config["theta"], "presence": config["presence"],
        "memory": MEMORY, "scores": {t: wanted[t]["score"].tolist() for t in COUNTS},
        "operators": ops, "torch": torch.__version__, "opset": OPSET}, indent=1) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
