"""Makes the fixture of package model's tests: what PyTorch says of the network with random weights.

    python make.py path/to/weights/train

The weights are not stored. random_tensor below makes them from the tensors' names, and so does the Go test, bit for bit.
Everything here runs in 64-bit floats, so that the fixture has the true values and the tests' tolerance is the engine's alone.
What network.py and text.py say is checked on the way against code that shares nothing with them: the trunk against timm's
tf_efficientnet_lite0, the text encoder against transformers' BertModel, the rest against a second reading of the
network's description that is built on torch.nn.MultiheadAttention (see Reading).
What the fixture keeps of a tensor is in streams.py.
"""
import math
import sys
from pathlib import Path

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import save_file
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, sys.argv[1])
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double          # network.py's guards against bfloat16 shall not round here

import network as net  # noqa: E402
import text as txt     # noqa: E402
from streams import fixture, picture, sampled, uniform  # noqa: E402

AGREE = 1e-9           # between two computations in 64 bits; 1e-12 is usual, a mistake is far above
MARGIN = 1e-5          # far above rounding in 32 bits

# The same numbers are in fixture_test.go.
CONFIG = {
    "size": 256, "queries": 24, "layers": 3,
    "stage2": {"names": 48, "rank": 16, "trained": 5},
    "alpha": 0.1, "beta": 0.7, "keep": 0.3, "kappa": 12.0, "b0": 0.05, "seen_hi": 0.1, "seen_lo": -0.05,
    "presence": {"bias": -5.0, "logit": 0.8, "peak": 0.4, "prompts": -0.2},
}
TEXT = {"layers": 2, "max_tokens": 64}
TEMPLATES = ["{}", "a photo of {}."]
PICTURES = {"wide": (150, 100), "tall": (61, 203)}
PROMPTS = {
    "several": ["sofa, couch", "Dog", "a big red ball"],
    "one": ["dog"],
    "twenty": ["dog", "cat", "sofa", "couch", "ball", "tree", "grass", "sky", "road", "car",
               "bus", "person", "man", "woman", "bottle", "chair", "table", "lamp", "door", "wall"],
}
CASES = [("wide", "several"), ("wide", "one"), ("wide", "twenty"), ("tall", "several")]
LETTERS = "b c d e f g h i j k l m n o p q r s t u v w x y z "
TEXTS = ["dog", "A red SOFA", "dogs, trees; zebras", "a photo of the person.", "b c d e f g",          # the last: 8 tokens
         "b c d e f g h", LETTERS[:28].strip(), LETTERS[:30].strip(), (LETTERS * 2)[:60].strip(),     # 9, 16, 17, 32
         (LETTERS * 2)[:62].strip(), (LETTERS * 3)[:124].strip(), (LETTERS * 9).strip(), "\u4e2d \u00e9t\u00e9 42"]  # 33, 64, cut, odd


# ------------------------------------------------------------------------------------------------------- random weights

def spread(name, shape):
    """Middle and half width of a tensor's uniform distribution, such that activations stay near one."""
    last = name.rsplit(".", 1)[-1]
    if name == "decoder.logit_scale":
        return 2.5, 0.0
    if last == "center":
        return 0.0, 0.02
    if last == "bias":
        return 0.0, 0.01 if name == "decoder.mask_mlp.2.bias" else 0.1
    if last == "weight" and len(shape) == 1:
        return 1.0, 0.2
    if name == "decoder.text_proj.weight" or len(shape) == 1 or last in ("query_feat", "query_pos", "word_u"):
        return 0.0, math.sqrt(3)
    if last == "position":
        return 0.0, 0.3
    fan = shape[0] if last in ("word_v", "coef_u", "coef_v") else math.prod(shape[1:])
    gain = 2.0 if len(shape) == 4 else 1.0            # of the variance; ReLU6 takes half
    if ".lateral" in name:
        gain = 0.1                                    # the trunk's features are large, and softmaxes shall not be all or nothing
    if name == "decoder.mask_mlp.2.weight":
        gain = 0.04                                   # nor shall masks be
    return 0.0, math.sqrt(3 * gain / fan)


def random_tensor(name, shape):
    return uniform(name, shape, *spread(name, shape))


def fill(module, prefix=""):
    for name, p in module.named_parameters():
        p.data = random_tensor(prefix + name, tuple(p.shape))
    return module.eval().requires_grad_(False)


# -------------------------------------------------------------------------------------------------------------- fixture

def rows(x):
    """[1,C,H,W] → [H·W,C], as the engine has maps."""
    return x[0].flatten(1).T


def agree(what, a, b):
    worst = ((a - b).abs().max() / b.abs().max()).item()
    assert worst < AGREE, f"{what}: {worst}"
    return worst


# ---------------------------------------------------------------------------------------------- independent computations

def timm_trunk(trunk):
    """timm's tf_efficientnet_lite0 with unfolded batch norms that fold to the trunk's weights."""
    import timm
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).double().eval()

    def unfold(name, conv, norm, folded):
        c = folded.weight.shape[0]
        gamma, var, mean = (random_tensor(f"{name}.{p}.weight", (c,)) for p in ("gamma", "var", "mean"))
        scale = gamma / (var + 1e-3).sqrt()
        conv.weight.data = folded.weight / scale[:, None, None, None]
        norm.weight.data, norm.running_var, norm.running_mean = gamma, var, mean
        norm.bias.data = folded.bias + mean * scale

    unfold("stem", model.conv_stem, model.bn1, trunk.stem)
    flat = [b for stage in model.blocks for b in stage]
    for i, (theirs, ours) in enumerate(zip(flat, trunk.blocks, strict=True)):
        if ours.expanded:
            unfold(f"{i}.e", theirs.conv_pw, theirs.bn1, ours.expand)
            unfold(f"{i}.d", theirs.conv_dw, theirs.bn2, ours.depthwise)
            unfold(f"{i}.p", theirs.conv_pwl, theirs.bn3, ours.project)
        else:
            unfold(f"{i}.d", theirs.conv_dw, theirs.bn1, ours.depthwise)
            unfold(f"{i}.p", theirs.conv_pw, theirs.bn2, ours.project)
    unfold("head", model.conv_head, model.bn2, trunk.head)

    @torch.no_grad()
    def run(x):
        out = {}
        x = model.bn1(model.conv_stem(x))
        for stage, name in zip(model.blocks, (None, "f4", "f8", None, "f16", None, "f32")):
            x = stage(x)
            if name:
                out[name] = x
        out["head"] = model.bn2(model.conv_head(x))
        return out
    return run


def bert(encoder):
    """transformers' BertModel with the text encoder's weights; its token type is taken out of the positions again."""
    from transformers import BertConfig, BertModel
    c = encoder.config
    model = BertModel(BertConfig(
        vocab_size=c["vocab"], hidden_size=c["width"], num_hidden_layers=c["layers"], num_attention_heads=c["heads"],
        intermediate_size=c["ffn"], max_position_embeddings=c["max_tokens"], layer_norm_eps=1e-12), add_pooling_layer=False).double().eval()
    s, kind = encoder.state_dict(), random_tensor("token type", (2, c["width"]))
    state = {"embeddings.word_embeddings.weight": s["word_u"] @ s["word_v"], "embeddings.token_type_embeddings.weight": kind,
             "embeddings.position_embeddings.weight": s["position"] - kind[0]}
    names = {"attention.q": "attention.self.query", "attention.k": "attention.self.key", "attention.v": "attention.self.value",
             "attention.out": "attention.output.dense", "norm1": "attention.output.LayerNorm",
             "linear1": "intermediate.dense", "linear2": "output.dense", "norm2": "output.LayerNorm"}
    for p in ("weight", "bias"):
        state[f"embeddings.LayerNorm.{p}"] = s[f"embed_norm.{p}"]
        for i in range(c["layers"]):
            for ours, theirs in names.items():
                state[f"encoder.layer.{i}.{theirs}.{p}"] = s[f"layers.{i}.{ours}.{p}"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in m or "token_type_ids" in m for m in missing), (missing, unexpected)

    @torch.no_grad()
    def run(ids):
        """Token ids of one text → E."""
        states = model(input_ids=ids[None], attention_mask=torch.ones(1, len(ids), dtype=torch.long)).last_hidden_state[0]
        mean = states.mean(0)
        e = mean / mean.norm() - s["center"]
        return e / e.norm()
    return run


class Reading:
    """The pixel decoder, the mask decoder and the second stage once more, for one picture, from the description."""

    def __init__(self, state, config):
        self.s, self.c = state, config

    def linear(self, name, x):
        w = self.s[name + ".weight"]
        return x @ w.reshape(w.shape[0], -1).T + self.s[name + ".bias"]

    def norm(self, name, x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() \
            * self.s[name + ".weight"] + self.s[name + ".bias"]

    def attention(self, name, q, k, v, blocked=None):
        m = nn.MultiheadAttention(q.shape[-1], self.c["heads"], batch_first=True).eval()
        part = [[self.s[f"{name}.{x}.{p}"] for x in "qkv"] for p in ("weight", "bias")]
        m.in_proj_weight.data, m.in_proj_bias.data = torch.cat(part[0]), torch.cat(part[1])
        m.out_proj.weight.data, m.out_proj.bias.data = self.s[name + ".out.weight"], self.s[name + ".out.bias"]
        with torch.no_grad():
            return m(q[None], k[None], v[None], attn_mask=blocked)[0][0]

    def separable(self, name, x):                                        # x [H,W,C]
        h, w, c = x.shape
        padded = torch.zeros(h + 2, w + 2, c)
        padded[1:-1, 1:-1] = x
        weight = self.s[name + ".depthwise.weight"]
        y = sum(padded[i:i + h, j:j + w] * weight[:, 0, i, j] for i in range(3) for j in range(3))
        return self.linear(name + ".pointwise", (y + self.s[name + ".depthwise.bias"]).clamp(0, 6))

    @staticmethod
    def up(x):
        """Bilinear between the cells' centres, which lie at s·(i+1)."""
        for dim in (0, 1):
            n = x.shape[dim]
            at = ((torch.arange(2 * n) + 1) / 2 - 1).clamp(0, n - 1)     # the output's centre, counted in input cells
            low = at.floor().long()
            f = (at - low).reshape(-1, *[1] * (2 - dim))
            x = x.index_select(dim, low) * (1 - f) + x.index_select(dim, (low + 1).clamp(max=n - 1)) * f
        return x

    @staticmethod
    def down(x):
        """[1 2 1]/4 along both sides round every second cell; what lies behind the edge is zero."""
        for dim in (0, 1):
            x = x.movedim(dim, 0)
            x = torch.cat((x, torch.zeros_like(x[:1])))
            n = (len(x) - 1) // 2
            x = (x[0:2 * n:2] + 2 * x[1:2 * n:2] + x[2:2 * n + 1:2]) / 4
            x = x.movedim(0, dim)
        return x

    def positions(self, h, w, stride):
        out = torch.zeros(h, w, self.c["d"])
        half = self.c["d"] // 2
        for half_at, n in ((0, h), (half, w)):
            for i in range(n):
                v = (stride * i + stride) / self.c["size"] * 2 * math.pi
                for j in range(half // 2):
                    angle = v / 10000 ** (2 * j / half)
                    cells = out[i] if half_at == 0 else out[:, i]
                    cells[:, half_at + 2 * j], cells[:, half_at + 2 * j + 1] = math.sin(angle), math.cos(angle)
        return out

    def pixel(self, f):
        x32 = self.linear("pixel.lateral32", f["f32"])
        h, w, d = x32.shape
        x, where = x32.reshape(-1, d), self.positions(h, w, 32).reshape(-1, d)
        x = self.norm("pixel.encoder.norm1", x + self.attention("pixel.encoder.attention", x + where, x + where, x))
        x = self.norm("pixel.encoder.norm2", x + self.linear("pixel.encoder.linear2", self.linear("pixel.encoder.linear1", x).relu()))
        x32 = x.reshape(h, w, d)
        x16 = self.linear("pixel.lateral16", f["f16"]) + self.up(x32)
        x8 = self.linear("pixel.lateral8", f["f8"]) + self.up(x16)
        x4 = self.linear("pixel.lateral4", f["f4"]) + self.up(self.linear("pixel.reduce4", x8))
        y4 = x4 + self.separable("pixel.mask1", x4)
        out = {"x32": x32, "x16": x16, "x8": x8, "x4": x4, "M4": self.separable("pixel.mask2", y4)}
        for s in (8, 16, 32):
            out[f"M{s}"] = self.down(out[f"M{s // 2}"])
            out[f"P{s}"] = self.separable(f"pixel.out{s}", out[f"x{s}"])
        return out

    def predict(self, x, p, head):
        z = self.norm("decoder.norm", x)
        m = z
        for i in range(3):
            m = self.linear(f"decoder.mask_mlp.{i}", m.relu() if i else m)
        weight = (m @ p["M32"].reshape(-1, m.shape[-1]).T).sigmoid()
        pooled = weight / weight.sum(-1, keepdim=True) @ head.reshape(-1, head.shape[-1])
        e = self.linear("decoder.class_mlp.1", self.linear("decoder.class_mlp.0", z).relu()) \
            + self.linear("decoder.pool_proj", self.norm("decoder.pool_norm", pooled))
        return {"mask_embed": m, "pooled": pooled, "e": e / e.norm(dim=-1, keepdim=True)}

    def decode(self, p, head, embeddings, groups):
        s, config, d = self.s, self.c, self.c["d"]
        x, where = s["decoder.query_feat"], s["decoder.query_pos"]
        text = torch.cat((s["decoder.null_key"][None], self.linear("decoder.text_proj", embeddings)))
        out = {"text_tokens": text}

        def step(name, x):
            return x + self.attention(name, x + where, text, text)
        out["text_first"] = x = step("decoder.text_first", x)
        margin = math.inf                                                # of mask logits to zero, in standard deviations
        for i, stride in enumerate((32, 16, 8)):
            name = f"decoder.layers.{i}"
            feature = p[f"P{stride}"]
            logits = self.predict(x, p, head)["mask_embed"] @ p[f"M{stride}"].reshape(-1, config["dm"]).T
            margin = min(margin, (logits.abs().min() / logits.std()).item())
            blocked = logits < 0
            print(name, "blocks", round(blocked.double().mean().item(), 2), "differs", round(blocked.double().std(0).mean().item(), 2))
            blocked[blocked.all(1)] = False
            key = (feature + self.positions(*feature.shape[:2], stride)).reshape(-1, d)
            x = self.norm(name + ".norm_image", x + self.attention(name + ".image", x + where, key, feature.reshape(-1, d), blocked))
            out[f"layers.{i}.image"] = x
            out[f"layers.{i}.text"] = x = step(name + ".text", x)
            x = self.norm(name + ".norm_self", x + self.attention(name + ".self", x + where, x + where, x))
            out[f"layers.{i}.self"] = x
            x = self.norm(name + ".norm_ffn", x + self.linear(name + ".linear2", self.linear(name + ".linear1", x).relu()))
            out[f"layers.{i}.ffn"] = x
        last = self.predict(x, p, head)
        tau, void = math.exp(s["decoder.logit_scale"]), s["decoder.void"]
        masks = (last["mask_embed"] @ p["M4"].reshape(-1, config["dm"]).T).sigmoid()
        a, v = tau * last["e"] @ embeddings.T, tau * last["e"] @ void / void.norm()

        row = torch.exp((embeddings @ s["stage2.names"].T - 1) / 0.3) @ s["stage2.coef_u"] @ s["stage2.coef_v"]
        row = row / row.norm(dim=-1, keepdim=True)
        seen = last["pooled"] - s["stage2.center"]
        b = seen / seen.norm(dim=-1, keepdim=True) @ row.T
        z = torch.full((len(x), len(groups) + 1), -math.inf)
        z[:, -1] = v
        w = []
        for t, group in enumerate(groups):
            for g in group:
                near = (s["stage2.trained"] @ embeddings[g]).max().item()
                share = np.interp(near, [config["seen_lo"], config["seen_hi"]], [config["beta"], config["alpha"]])
                w.append(share)
                z[:, t] = torch.maximum(z[:, t], (1 - share * (1 - config["keep"])) * a[:, g] + share * config["kappa"] * (b[:, g] - config["b0"]))
        P = z.softmax(-1)
        S = P[:, :-1].T @ masks
        best = P[:, :-1].amax(0)
        c = config["presence"]
        peak = S.reshape(-1, *p["M4"].shape[:2])[:, 1::2, 1::2].amax((1, 2)).clamp(1e-6, 1 - 1e-6)
        score = 1 / (1 + torch.exp(-(c["bias"] + c["logit"] * torch.log(best / (1 - best)) + c["peak"] * torch.log(peak / (1 - peak))
                                     + c["prompts"] * math.log(len(groups)))))
        return {**out, **last, "masks": masks, "a": a, "v": v, "row": row, "b": b, "w": torch.tensor(w),
                "P": P.T, "S": S, "score": score}, margin


# ------------------------------------------------------------------------------------------------------------- the parts

def tokens(tokenizer, text):
    return torch.tensor(tokenizer.encode(text).ids)


def make_text(encoder, tokenizer):
    reference = bert(encoder)

    def embed(text):
        ids = tokens(tokenizer, text)
        e = encoder(ids[None])[0]
        agree(f"text {text!r}", e, reference(ids))
        return e

    lengths = []
    for i, text in enumerate(TEXTS):
        ids = tokens(tokenizer, text)
        lengths.append(len(ids))
        fixture[f"text/{i}/bytes"] = np.frombuffer(text.encode(), np.uint8)
        fixture[f"text/{i}/ids"] = ids.numpy().astype(np.float32)
        sampled(f"text/{i}/E", embed(text))
    print("text lengths", lengths)

    def phrase(p):
        return net.normalise(sum(embed(t.replace("{}", p)) for t in TEMPLATES))
    return phrase


def prepared(pixels, size):
    """A picture as the network gets it: [1,3,H,W], padded with zeros, and its size without the padding."""
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    w, h = (max(int(math.floor(n * scale + 0.5)), 1) for n in (width, height))
    x = np.zeros((3, -(-h // 32) * 32, -(-w // 32) * 32))
    for c in range(3):
        resized = Image.fromarray(pixels[..., c].astype(np.float32), "F").resize((w, h), Image.BILINEAR)
        x[c, :h, :w] = (np.asarray(resized, np.float64) - 127) / 128
    return torch.from_numpy(x)[None], w, h


def stretch(cells, pixels, scale):
    """The matrix [pixels, cells] of the bilinear way from cells, centred at 4i+4 in the frame, to a picture's pixels."""
    at = (np.arange(pixels) + 0.5) * scale
    return np.stack([np.interp(at, 4 * np.arange(cells) + 4, row) for row in np.eye(cells)], 1)


def pack(x):
    return np.packbits(x.ravel())


@torch.no_grad()
def make_cases(network, phrase):
    reading = Reading(network.state_dict(), network.config)
    timm = timm_trunk(network.trunk)
    encoded = {}
    for name, (width, height) in PICTURES.items():
        x, w, h = prepared(picture(name, width, height), CONFIG["size"])
        e = encoded[name] = network.encode(x)
        sampled(f"{name}/x", F.pad(x, (0, 1, 0, 1))[0].permute(1, 2, 0))
        independent = timm(x)
        for k in ("f4", "f8", "f16", "f32", "head"):
            agree(f"{name} {k}", e[k], independent[k])
            sampled(f"{name}/{k}", rows(e[k]))
        independent = reading.pixel({k: v[0].permute(1, 2, 0) for k, v in e.items() if k[0] == "f"})
        for k, v in independent.items():
            agree(f"{name} {k}", rows(e[k]), v.flatten(0, 1))
            sampled(f"{name}/{k}", rows(e[k]))
        print(name, tuple(x.shape), {k: round(v.std().item(), 2) for k, v in e.items()})

    for name, prompts in CASES:
        e, case = encoded[name], f"{name}/{prompts}"
        groups, phrases = [], []
        for p in PROMPTS[prompts]:
            parts = [s.strip() for s in p.split(",")]
            groups.append(list(range(len(phrases), len(phrases) + len(parts))))
            phrases += parts
        embeddings = torch.stack([phrase(p) for p in phrases])
        ours = {}
        out = network.segment(e, embeddings[None], record=ours)
        ours = {k: v[0] for k, v in ours.items() if k != "predictions"}
        ours["text_tokens"] = ours["text_tokens"].roll(1, 0)              # the engine has the null key first
        last = {k: v[0] for k, v in out.items()}
        answer = network.answer(last, embeddings, groups)
        ours |= {k: last[k] for k in ("mask_embed", "pooled", "e", "a", "v")}
        ours |= {"masks": last["masks"].sigmoid().flatten(1), "row": network.stage2.rows(embeddings), "b": answer["b"], "w": answer["w"],
                 "P": answer["P"].T, "S": answer["S"].flatten(1), "score": answer["score"]}
        maps = {k: v[0].permute(1, 2, 0) for k, v in e.items()}
        theirs, margin = reading.decode(maps, maps["head"], embeddings, groups)
        assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
        for k, v in ours.items():
            agree(f"{case} {k}", v, theirs[k])
            sampled(f"{case}/{k}", v)
        sampled(f"{case}/E", embeddings)
        # A logit that is nearly zero would let rounding decide whether a query looks at a cell.
        print(case, "closest mask logit", margin, "shares", ours["w"][:4].numpy().round(2), "scores", ours["score"][:3].numpy().round(3),
              "P void", ours["P"][-1].mean().item())
        assert margin > MARGIN, "change SALT in streams.py"

        # Masks and label map at the picture's own resolution; where rounding may decide is marked as unsure.
        width, height = PICTURES[name]
        _, w, h = prepared(picture(name, width, height), CONFIG["size"])
        cells = answer["S"].numpy()

        def paint(s):
            return np.einsum("yi,tij,xj->tyx", stretch(s.shape[1], height, h / height), s, stretch(s.shape[2], width, w / width))
        theta = float(np.float32(np.median(paint(cells).max(0))))
        assert np.abs(cells - theta).min() > 1e-6, "a cell lies on the threshold: change SALT in streams.py"
        s = paint(np.stack([tidy(c, theta) for c in cells]))
        top = np.sort(np.concatenate((np.full_like(s[:1], theta), s)), 0)
        fixture[f"{case}/theta"] = np.array([theta], np.float32)
        fixture[f"{case}/mask"] = pack(s > theta)
        fixture[f"{case}/mask sure"] = pack(np.abs(s - theta) > 1e-4)
        fixture[f"{case}/label"] = np.where(s.max(0) > theta, s.argmax(0), 255).astype(np.uint8).ravel()
        fixture[f"{case}/label sure"] = pack((top[-1] - top[-2] > 1e-4) & (np.abs(s - theta) > 1e-4).all(0))


def tidy(cells, theta):
    """A map [h,w] without islands of less than 0.1 % of its cells or 5 % of the largest one, and without holes of less than 0.1 %."""
    cells = cells.copy()
    islands, n = scipy.ndimage.label(cells > theta)
    sizes = np.bincount(islands.ravel(), minlength=n + 1)
    for i in range(1, n + 1):
        if sizes[i] < max(0.001 * cells.size, 0.05 * sizes[1:].max()):
            cells[islands == i] = theta / 2
    holes, n = scipy.ndimage.label(cells <= theta)
    for i in range(1, n + 1):
        if (holes == i).sum() < 0.001 * cells.size:
            cells[holes == i] = (1 + theta) / 2
    return cells


def make_resize():
    pixels = picture("resize", 37, 23)
    for i, (w, h) in enumerate([(16, 10), (50, 31), (37, 5), (1, 23), (37, 23)]):
        out = [np.asarray(Image.fromarray(pixels[..., c].astype(np.float32), "F").resize((w, h), Image.BILINEAR)) for c in range(3)]
        fixture[f"resize/{i}"] = np.stack(out, -1).astype(np.float32)


def main():
    from tokenizers import BertWordPieceTokenizer
    tokenizer = BertWordPieceTokenizer(str(HERE / "vocab.txt"), lowercase=True)
    tokenizer.enable_truncation(TEXT["max_tokens"])
    encoder = fill(txt.TextEncoder({**TEXT, "vocab": tokenizer.get_vocab_size()}), "text.")
    network = fill(net.Network(CONFIG))
    # Names of length one, which the engine makes of them itself.
    network.stage2.trained.data = net.normalise(network.stage2.trained.data)
    shapes = {**network.state_dict(), **{"text." + k: v for k, v in encoder.state_dict().items()}}
    names = sorted(" ".join([k, *map(str, v.shape)]) for k, v in shapes.items())
    fixture["names"] = np.frombuffer("\n".join(names).encode(), np.uint8)
    make_cases(network, make_text(encoder, tokenizer))
    make_resize()
    save_file(fixture, HERE / "network.safetensors")
    print("bytes", (HERE / "network.safetensors").stat().st_size, "tensors", len(fixture))


if __name__ == "__main__":
    main()
