"""Checkpoints of the transformers library, Mask2Former and MaskFormer, as a run starts from them and leaves them."""
import json
import re
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import BertWordPieceTokenizer
from transformers import AutoConfig, Mask2FormerForUniversalSegmentation, MaskFormerForInstanceSegmentation, SwinBackbone, SwinConfig
from transformers.models.maskformer.modeling_maskformer_swin import MaskFormerSwinBackbone
from transformers.utils import logging

import shipped
from guided import GuidedBase
from names import clean
from segments import Start, matched
from text import embed

BASES = {"mask2former": Mask2FormerForUniversalSegmentation, "maskformer": MaskFormerForInstanceSegmentation}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]                  # of ImageNet, where a checkpoint says nothing else


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
    label, missing = matched(labels, names)
    labels = names if missing else labels
    config.id2label, config.label2id = dict(enumerate(labels)), {n: i for i, n in enumerate(labels)}
    make = BASES[config.model_type]
    if any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        base = make.from_pretrained(folder, config=config, ignore_mismatched_sizes=bool(missing))
    else:
        base = make(config)
    return base, label, missing


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
    swin = isinstance(backbone, MaskFormerSwinBackbone)
    shape = ("embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "out_features")
    config = SwinConfig(**{k: getattr(backbone.config, k) for k in shape}) if swin else backbone.config
    found, info = (SwinBackbone if swin else type(backbone)).from_pretrained(path, config=config, output_loading_info=True)
    if missing := sorted(k for k in info["missing_keys"] if "hidden_states_norms" not in k):
        raise SystemExit(f"{path} has no backbone for this base: {missing[0]} and {len(missing) - 1} more tensors are missing")
    state = found.state_dict()
    if swin:
        own = {k: x for k, x in backbone.state_dict().items() if k.endswith("relative_position_index")}
        state = own | {maskformers_swin(k): x for k, x in state.items()}
    backbone.load_state_dict(state)


def maskformers_swin(k):
    """The name that MaskFormer has for a tensor of a Swin."""
    k = re.sub(r"^swin\.", "model.", k)
    k = re.sub(r"attention\.([qkv])_proj\.", lambda m: f"attention.self.{dict(q='query', k='key', v='value')[m[1]]}.", k)
    k = k.replace("attention.o_proj.", "attention.output.dense.").replace("attention.relative_position_bias.", "attention.self.")
    k = k.replace("mlp.fc1.", "intermediate.dense.").replace("mlp.fc2.", "output.dense.")
    return re.sub(r"hidden_states_norms\.stage(\d)", lambda m: f"hidden_states_norms.{int(m[1]) - 1}", k)


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


class Published(Start):
    guided = True

    def __init__(self, options, names):
        self.base, self.label, self.missing = load_base(options.base, names, options.points)
        if options.backbone:
            load_backbone(self.base, options.backbone)
        self.labels, self.reader = list(self.base.config.id2label.values()), Reader(options.reader)
        self.pictures, self.trained = preprocessor(options.base, options.size), Path(options.base) / "pmp/model.safetensors"
        self.mean, self.std = self.pictures["image_mean"], self.pictures["image_std"]

    def network(self, embeddings, _):
        model = GuidedBase(self.base, embeddings.shape[1])
        if self.trained.exists():
            model.guidance.load_state_dict({k.removeprefix("decoder."): v for k, v in load_file(str(self.trained)).items() if k.startswith("decoder.")})
        return model

    def export(self, model, folder):
        """The base as the transformers library saves it, and beside it in pmp the guidance and the text encoder it was trained
        with, in the form of our own checkpoints."""
        logging.disable_progress_bar()
        model.base.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(self.pictures, indent=1) + "\n")
        pmp, reader = folder / "pmp", self.reader
        pmp.mkdir()
        tensors = {f"decoder.{k}": v for k, v in model.guidance.state_dict().items()}
        tensors |= {f"text.{k}": v for k, v in reader.encoder.state_dict().items()}
        save_file({k: v.float().cpu().contiguous() for k, v in tensors.items()}, str(pmp / "model.safetensors"))
        shutil.copy(reader.vocabulary, pmp / "vocab.txt")
        own = reader.manifest["config"]
        (pmp / "config.json").write_text(json.dumps({
            "arch": "guidance", "pmp": True, "text": own["text"], "templates": reader.templates,
            "parts": [p for p in reader.manifest["parts"] if "text" in p["name"]]}, indent=1) + "\n")
