"""What the exports have in common: the network from a folder of weights, what it is asked, and what it must answer."""
import argparse
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "weights" / "train"))
from network import Network, SecondStage, normalise  # noqa: E402
from text import TextEncoder  # noqa: E402

# Single phrases, so prompts and phrases agree. The first 8 are in or near the picture, or clearly absent. All were trained with masks: for
# others the engine tells proposals apart on the host (`cap`), which the graphs do not do.
PHRASES = ["person", "banner", "tie", "dog", "car", "tree", "sky", "chair", "cat", "table",
           "sofa", "bottle", "bicycle", "horse", "sheep", "boat", "train", "bus", "bird", "grass"]
# The order of an exported graph's additions is not PyTorch's. Where a mask logit that steers attention lies near 0, that
# may block one more or one less cell, which moves everything behind it; hence relative to the largest number, and not 1e-5.
TOLERANCE = 1e-3


def arguments(about):
    """What an export is told on its command line; its folder is there afterwards."""
    p = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", type=Path, default=HERE.parent / "weights" / "default")
    p.add_argument("--examples", type=Path, default=HERE.parent / "site" / "examples")
    p.add_argument("--out", type=Path, default=HERE / ".cache")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


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
            if x.shape[2:] == (8, 4) and len(scale) == 8 * len(x):  # in panels: weights/tensor.go
                x = x.transpose(0, 2, 1, 3).reshape(len(scale), -1)
            x = x.astype(np.float32)
            x = x * scale.reshape(-1, *[1] * (x.ndim - 1))
        elif name.endswith(".scale") and stored.get(name.removesuffix(".scale"), x).dtype == np.int8:
            continue
        state[name] = torch.from_numpy(x.astype(np.float32))
    return manifest, state, (folder / manifest["tokenizer"]).read_text().split("\n")


def build(manifest, state):
    network = Network(manifest["config"] | {"stage2": SecondStage.sizes(state)})
    load(network, {k: v for k, v in state.items() if not k.startswith("text.")})
    text = {k.removeprefix("text."): v for k, v in state.items() if k.startswith("text.")}
    vocab, factor = text["word_u"].shape
    ffn, width = text["layers.0.linear1.weight"].shape
    encoder = TextEncoder({**manifest["config"]["text"], "vocab": vocab, "rank": factor, "ffn": ffn, "width": width})
    load(encoder, text)
    return network.eval().requires_grad_(False), encoder.eval().requires_grad_(False)


def load(module, state):
    """A matrix in panels has lost the two sides of length one that a 1×1 convolution has."""
    shapes = {name: x.shape for name, x in module.state_dict().items()}
    module.load_state_dict({name: x.reshape(shapes.get(name, x.shape)) for name, x in state.items()})


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


# ---------------------------------------------------------------------------------------------------------------- inputs

def read_pixels(file, side):
    """A picture as the network takes it: planes [1,3,side,side]."""
    picture = np.asarray(Image.open(file).convert("RGB").resize((side, side), Image.BILINEAR), np.float32)
    return torch.from_numpy((picture - 127) / 128).permute(2, 0, 1)[None].contiguous()


def calibration_pixels(folder, side):
    """The example pictures, whole and mirrored: what integer graphs take their ranges from."""
    for file in sorted(Path(folder).glob("*.jpg")):
        pixels = read_pixels(file, side)
        yield pixels
        yield pixels.flip(3).contiguous()


def fold_scales(network):
    """Moves 1/√(d/heads) into the query projections, so that no graph multiplies by it."""
    for module in network.modules():
        if hasattr(module, "heads") and hasattr(module, "q"):
            scale = (module.q.out_features // module.heads) ** -0.5
            module.q.weight.data.mul_(scale)
            module.q.bias.data.mul_(scale)


def prepare(weights, picture):
    """The network with its scales folded in, a picture and phrases for it, and what PyTorch makes of them."""
    torch.set_num_threads(1)
    manifest, state, vocabulary = read_weights(weights)
    network, encoder = build(manifest, state)
    config = network.config
    embeddings = torch.stack([embed(manifest, encoder, vocabulary, t) for t in PHRASES])
    share = network.stage2.weights(embeddings, config)
    # z = coef0·a + coef1·b + coef2 joins the decoder's logits with those of the second stage.
    own = (1 - share * (1 - config["keep"])) * network.decoder.logit_scale.exp()
    coef = torch.stack((own, share * config["kappa"], -share * config["kappa"] * config["b0"]))
    pixels = read_pixels(picture, config["size"])
    encoded = network.encode(pixels)
    out = {k: v[0] for k, v in network.segment(encoded, embeddings[None]).items()}
    answer = network.answer(out, embeddings)
    fold_scales(network)
    return SimpleNamespace(network=network, config=config, side=config["size"], pixels=pixels, embeddings=embeddings,
                           rows=network.stage2.rows(embeddings), coef=coef, encoded=encoded,
                           wanted={"P": answer["P"], "S": answer["S"].flatten(1)}, score=answer["score"])


def compare(what, got, want):
    want = want.numpy()
    error = np.abs(np.asarray(got) - want).max() / np.abs(want).max()
    if not error < TOLERANCE:
        sys.exit(f"{what}: the exported graph differs from the network by {error:.2g} of the largest number")
    return f"{what} {error:.1e}"
