"""Networks whose classes are embeddings of CLIP's text encoder, as detectron2 saves them: FC-CLIP and OVSeg."""
import json
import math
import re
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (Mask2FormerConfig, Mask2FormerForUniversalSegmentation, MaskFormerConfig, MaskFormerForInstanceSegmentation,
                          ResNetConfig)
from transformers.modeling_outputs import BackboneOutput

import clip
import detectron2
import published
from guided import GuidedBase
from names import clean
from network import MLP
from segments import Crops, Start, collate_crops, matched, named, phrases_of

GUIDANCE = "decoder."            # of our own tensors' names
STAGES = ["stage1", "stage2", "stage3", "stage4"]


# -------------------------------------------------------------------------------------------------------------- network

class Maps(nn.Module):
    """CLIP's image encoder as a backbone of the library's. It is frozen."""

    def __init__(self, visual):
        super().__init__()
        self.visual = visual

    @torch.no_grad()
    def forward(self, x, **_):
        return BackboneOutput(feature_maps=tuple(self.visual.maps(x)))


class Head(nn.Module):
    """Compares embeddings with those of names, of which each label may have several; the best of them counts."""

    def know(self, embeddings, numbers):
        self.register_buffer("names", embeddings, persistent=False)
        self.counts = [len(n) for n in numbers]

    def best(self, x):
        return torch.stack([part.amax(-1) for part in (x @ self.names.T).split(self.counts, -1)], -1)

    def compare(self, x, scale):
        x = F.normalize(x, dim=-1)
        return scale * torch.cat((self.best(x), x @ F.normalize(self.void.weight, dim=-1).T), -1)

    def theirs(self):
        """The names of its tensors in a checkpoint."""
        return {k: self.void_name if k == "void.weight" else detectron2.PREDICTOR + k for k in self.state_dict()}

    def forward(self, queries, masks, features):
        with torch.autocast(queries.device.type, enabled=False):
            return self.logits(queries.float(), masks.float(), features.float())


class FcClipHead(Head):
    """FC-CLIP's, which also sees the mask features under each mask."""
    void_name = "void_embedding.weight"

    def __init__(self, d, dm, embedding):
        super().__init__()
        self._mask_pooling_proj = nn.Sequential(nn.LayerNorm(dm), nn.Linear(dm, d))
        self.class_embed = nn.ModuleDict({"layers": MLP(d, d, d, embedding)})
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.void = nn.Embedding(1, embedding)

    def logits(self, queries, masks, features):
        inside = (masks.detach() > 0).to(features)
        seen = torch.einsum("bqhw,bchw->bqc", inside / (inside.sum((-2, -1), keepdim=True) + 1e-8), features)
        return self.compare(self.class_embed["layers"](self._mask_pooling_proj(seen) + queries), self.logit_scale.exp().clamp(max=100))


class OVSegHead(Head):
    void_name = "clip_adapter.non_object_embedding"

    def __init__(self, d, hidden, embedding):
        super().__init__()
        self.class_embed = nn.ModuleDict({"layers": MLP(d, hidden, embedding)})
        self.void = nn.Embedding(1, embedding)

    def logits(self, queries, masks, features):
        return self.compare(self.class_embed["layers"](queries), 100)


class CropNamer(nn.Module):
    """OVSeg's CLIP, which sees segments that are cut out. Only its mask prompts are trained."""

    def __init__(self, visual, embeddings, numbers):
        super().__init__()
        self.visual, self.head = visual, Head()
        self.head.know(embeddings, numbers)

    def inputs(self, batch, embeddings):
        return batch["pixels"].to(embeddings.device), batch["inside"].to(embeddings.device)

    def forward(self, pixels, inside):
        return self.visual(pixels, inside)

    def losses(self, seen, _, labels):
        """Cross entropy of the names, which are one another's negatives."""
        return {"loss_cross_entropy": F.cross_entropy(100 * self.head.best(F.normalize(seen.float(), dim=-1)), torch.stack(labels))}


class OpenBase(GuidedBase):
    def __init__(self, base, head, width=None):
        del base.class_predictor
        super().__init__(base, width)
        self.head = head

    def classify(self, queries, masks, features):
        return self.head(queries, masks, features)


# ----------------------------------------------------------------------------------------------------------- checkpoints

class FcClip:
    """A Mask2Former on CLIP's own image encoder."""
    prefix, rename, guided = "backbone.clip_model.", staticmethod(detectron2.mask2former), True
    mean, std, short, long, side = clip.MEAN, clip.STD, 800, 1333, 1024
    apart = rf"criterion\.|{detectron2.ENCODER}"                         # what a checkpoint does not have under the base's names

    @staticmethod
    def make(config, c):
        base = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(
            backbone_config=ResNetConfig(hidden_sizes=c.visual.widths, depths=[1] * 4, out_features=STAGES), **config))
        base.model.pixel_level_module.encoder = Maps(c.visual)
        return base, FcClipHead(base.config.hidden_dim, base.config.mask_feature_size, c.config["embedding"])

    @staticmethod
    def sizes(state, _):
        queries, d = state[detectron2.PREDICTOR + "query_embed.weight"].shape
        encoder, ffn = detectron2.PIXELS + "transformer.encoder.layers.", detectron2.PREDICTOR + "transformer_ffn_layers."
        return {"hidden_dim": d, "feature_size": d, "num_queries": queries, "mask_feature_size": len(state[detectron2.PIXELS + "mask_features.weight"]),
                "encoder_layers": clip.count(state, encoder), "encoder_feedforward_dim": len(state[encoder + "0.linear1.weight"]),
                "num_attention_heads": len(state[encoder + "0.self_attn.attention_weights.bias"]) // 12,        # three levels with four points
                "decoder_layers": 1 + clip.count(state, ffn), "dim_feedforward": len(state[ffn + "0.linear1.weight"])}

    @staticmethod
    def settings(base, c):
        return {"quick_gelu": c["quick_gelu"], "text_heads": c["text"]["heads"]}


class OVSeg:
    """A MaskFormer on a Swin. Its CLIP looks at crops; the mask generator only needs the text encoder."""
    prefix, rename, guided = "clip_adapter.clip_model.", staticmethod(detectron2.maskformer), False
    mean, std, short, long, side = published.MEAN, published.STD, 640, 2560, 640
    apart = rf"criterion\.|{detectron2.ENCODER}model\.layernorm\.|.*\.relative_position_index"

    @staticmethod
    def make(config, c):
        hidden = config.pop("class_hidden", None)
        base = MaskFormerForInstanceSegmentation(MaskFormerConfig(**config))
        d = base.config.decoder_config.hidden_size
        return base, OVSegHead(d, hidden or d, c.config["embedding"])

    @staticmethod
    def sizes(state, settings):
        if detectron2.BACKBONE + "patch_embed.norm.weight" not in state:
            raise SystemExit("its image encoder is no Swin Transformer; another one cannot be trained here")
        layers, decoder = [f"{detectron2.BACKBONE}layers.{i}.blocks." for i in range(4)], detectron2.PREDICTOR + "transformer.decoder.layers."
        tables = [state[b + "0.attn.relative_position_bias_table"].shape for b in layers]
        width, (queries, d) = len(state[detectron2.BACKBONE + "patch_embed.norm.weight"]), state[detectron2.PREDICTOR + "query_embed.weight"].shape
        return {"fpn_feature_size": len(state[detectron2.PIXELS + "layer_4.weight"]), "mask_feature_size": len(state[detectron2.PIXELS + "mask_features.weight"]),
                "class_hidden": len(state[detectron2.PREDICTOR + "class_embed.layers.0.weight"]),
                "backbone_config": {"model_type": "swin", "embed_dim": width, "depths": [clip.count(state, b) for b in layers], "num_heads": [t[1] for t in tables],
                                    "window_size": (math.isqrt(tables[0][0]) + 1) // 2, "mlp_ratio": len(state[layers[0] + "0.mlp.fc1.weight"]) / width,
                                    "out_features": STAGES},
                "decoder_config": {"model_type": "detr", "d_model": d, "num_queries": queries, "decoder_layers": clip.count(state, decoder),
                                   "decoder_attention_heads": settings.get("heads", 8), "encoder_attention_heads": settings.get("heads", 8),
                                   "decoder_ffn_dim": len(state[decoder + "0.linear1.weight"])}}

    @staticmethod
    def settings(base, c):
        return {"heads": base.config.decoder_config.decoder_attention_heads, "quick_gelu": c["quick_gelu"], "text_heads": c["text"]["heads"],
                "clip_heads": c["image"]["heads"]}


KINDS = {"fcclip": FcClip, "ovseg": OVSeg}


def locate(path):
    """The .pth that a path means, itself or alone in a folder, or else the folder's config.json."""
    path = Path(path)
    found = [path] if path.is_file() else sorted(path.glob("*.pth"))
    if len(found) > 1:
        raise SystemExit(f"{path} has several .pth files; name one of them")
    return found[0] if found else path / "config.json"


def has(path):
    """Whether a path has a network of these kinds."""
    file = locate(path)
    return file.suffix == ".pth" or file.exists() and json.loads(file.read_text())["model_type"] in KINDS


class Opened(Start):

    def __init__(self, options, names):
        file = locate(options.base)
        merges = [file.parent / "merges.txt"]
        if file.suffix == ".pth":
            if options.open_clip:
                raise SystemExit(f"--open-clip is for a folder with a config.json alone; {file} has its CLIP")
            self.state = torch.load(file, map_location="cpu", weights_only=True)
            self.state = self.state.get("model", self.state)
            found = [name for name, kind in KINDS.items() if any(k.startswith(kind.prefix) for k in self.state)]
            if not found:
                raise SystemExit(f"{file} has none of {', '.join(KINDS)}: no tensor's name begins with {' or '.join(k.prefix for k in KINDS.values())}")
            self.name, self.kind = found[0], KINDS[found[0]]
            read = file.with_suffix(".json")
            self.settings = json.loads(read.read_text()) if read.exists() else {}
            read = file.with_suffix(".txt")
            self.labels = named(read) if read.exists() else names
            config, clip_state = self.kind.sizes(self.state, self.settings), {k.removeprefix(self.kind.prefix): x for k, x in self.state.items() if k.startswith(self.kind.prefix)}
        else:
            config = json.loads(file.read_text())
            self.name, self.state, self.settings, self.labels = config.pop("model_type"), None, {}, names
            self.kind, small, clip_state = KINDS[self.name], config.pop("clip", None), None
            if options.open_clip:
                clip_state = clip.read(options.open_clip)
                merges.append(clip.file_of(options.open_clip).parent / "merges.txt")
            elif small is None:
                raise SystemExit(f"{file} has no member clip; give a CLIP with --open-clip")
        merges = [m for m in merges if m.exists()]
        if not merges:
            raise SystemExit("CLIP's tokenizer is missing; put its merges.txt beside the checkpoint")
        if clip_state is None:
            small["vocab"] = len(clip.read_merges(merges[-1])) + clip.PIECES
            self.clip = clip.CLIP(small)
        else:
            self.clip = clip.build(clip_state, **self.settings)
        self.reader = clip.ClipReader(self.clip, merges[-1])
        if options.names:
            self.labels, self.label, self.missing = named(options.names), list(range(len(names))), []
            if len(self.labels) != len(names):
                raise SystemExit(f"{options.names} has {len(self.labels)} names and the data have {len(names)} classes; each needs a line, in their order")
        else:
            self.label, self.missing = matched([clean_label(x) for x in self.labels], names)
            self.labels = names if self.missing else self.labels
        points = {"train_num_points": options.points} if self.kind is FcClip else {}
        self.base, self.head = self.kind.make({**config, **points, "id2label": dict(enumerate(self.labels))}, self.clip)
        if options.backbone:
            if self.kind is FcClip:
                raise SystemExit("an FC-CLIP has CLIP's image encoder; --open-clip is for that, not --backbone")
            published.load_backbone(self.base, options.backbone)
        scaled = {"short": self.kind.short * options.size // self.kind.side, "long": self.kind.long * options.size // self.kind.side}
        self.settings = {**scaled, **self.settings, **self.kind.settings(self.base, self.clip.config)}
        self.guided, self.prompts = self.kind.guided, options.mask_prompts
        self.mean, self.std = ([x / 255 for x in self.settings[k]] if k in self.settings else default for k, default in (("mean", self.kind.mean), ("std", self.kind.std)))

    def network(self, embeddings, numbers):
        model = OpenBase(self.base, self.head, embeddings.shape[1] if self.guided else None)
        model.head.know(embeddings, numbers)
        if self.state is not None:
            self.base.load_state_dict(detectron2.read(self.saved(self.base), self.state, self.kind.rename), strict=False)
            self.head.load_state_dict({k: self.state[name] for k, name in self.head.theirs().items()})
            own = {k.removeprefix(GUIDANCE): x for k, x in self.state.items() if k.startswith(GUIDANCE)}
            if own:
                model.guidance.load_state_dict(own)
        return model

    def saved(self, base):
        """The names of the base's tensors that a checkpoint has."""
        return [k for k in base.state_dict() if not re.match(self.kind.apart, k)]

    def export(self, model, folder):
        """The .pth, and what lies beside it. The guidance is in it by the names of our own mask decoder."""
        base, head = model.base.state_dict(), model.head.state_dict()
        tensors = {self.kind.prefix + k: x for k, x in self.clip.state_dict().items()}
        tensors |= detectron2.write({k: base[k] for k in self.saved(model.base)}, self.kind.rename)
        tensors |= {name: head[k] for k, name in model.head.theirs().items()}
        if self.guided:
            tensors |= {GUIDANCE + k: x for k, x in model.guidance.state_dict().items()}
        torch.save({"model": {k: x.detach().cpu().contiguous() for k, x in tensors.items()}}, folder / f"{self.name}.pth")
        (folder / f"{self.name}.txt").write_text("\n".join(self.labels) + "\n", encoding="utf-8")
        (folder / f"{self.name}.json").write_text(json.dumps(self.settings, indent=1) + "\n")
        shutil.copy(self.reader.merges, folder / "merges.txt")


class MaskPrompts(Opened):
    """An OVSeg of which only the mask prompts are trained."""

    def network(self, embeddings, numbers):
        if self.kind is not OVSeg:
            raise SystemExit("--mask-prompts is for an OVSeg")
        self.whole, visual = super().network(embeddings, numbers), self.clip.visual
        if visual.mask_embedding is None:
            visual.mask_embedding = nn.Parameter(torch.zeros(self.prompts, len(visual.positional_embedding) - 1, len(visual.class_embedding)))
        if (found := len(visual.mask_embedding)) != self.prompts:
            raise SystemExit(f"{self.prompts} mask prompts are asked for, and its CLIP has {found}")
        visual.mask_embedding.requires_grad_(True)
        return CropNamer(visual, embeddings, numbers)

    def examples(self, photos, _, options):
        return Crops(photos, self.label, self.clip.visual.size, options), collate_crops

    def export(self, model, folder):
        super().export(self.whole, folder)


def clean_label(label):
    """A label as the photos' names are: its names without what COCO adds."""
    return ", ".join(clean(p) for p in phrases_of(label))
