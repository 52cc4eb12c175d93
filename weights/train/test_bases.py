"""Tests of bases.py and what it uses: python test_bases.py. bases_test.go runs them where torch and transformers are installed.

    python test_bases.py export BASE FOLDER

trains one of the networks in tiny a little and leaves in FOLDER/export what it exports, and in FOLDER/expected.json what it
answers, for the test that compares that with the engine.
"""
import contextlib
import io
import json
import math
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from torch import nn

import bases
import clip
import detectron2
import guided as network
import opened
import published
import segments

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "model/testdata"))
import fcclip as oracle  # noqa: E402
import ovseg as oracle_ovseg  # noqa: E402

TINY = sorted(p.name for p in (HERE / "tiny").iterdir())
OPEN = [name for name in TINY if opened.has(HERE / "tiny" / name)]
LIBRARY = [name for name in TINY if name not in OPEN]
GUIDED = [name for name in TINY if name != "ovseg"]
NAMES = ["dog", "cat", "tree-merged", "sky-other-merged", "potted plant", "road"]
COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10), (10, 250, 250), (250, 10, 250)]
IDS = [7, 300, 70_000]


def coco(root, count=6, halves=False):
    """A folder as COCO's: on grey, some large rectangles of the colour of their class, or the halves above their diagonals; a fourth of
    them are crowds."""
    rng = np.random.default_rng(5)
    (root / "train2017").mkdir(parents=True)
    (root / "annotations/panoptic_train2017").mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        h, w = 60 + 4 * i, 90 - 6 * i
        pixels, coded = np.full((h, w, 3), 128, np.uint8), np.zeros((h, w), np.int64)
        about = []
        for k, number in enumerate(IDS):
            c = int(rng.integers(len(NAMES)))
            y, x = int(rng.integers(h // 2)), k * w // 3
            rows, columns = np.mgrid[:h, :w] - [[[y]], [[x]]]
            inside = (rows >= 0) & (rows < h // 2) & (columns >= 0) & (columns < w // 3)
            if halves:
                inside &= rows * (w // 3) + columns * (h // 2) < (h // 2) * (w // 3)
            coded[inside], pixels[inside] = number, COLOURS[c]
            about.append({"id": number, "category_id": 10 * c + 3, "iscrowd": int((i + k) % 4 == 3)})
        png = np.stack((coded >> 16, coded >> 8 & 255, coded & 255), -1).astype(np.uint8)   # BGR, as OpenCV writes
        cv2.imwrite(str(root / f"annotations/panoptic_train2017/{i}.png"), png)
        cv2.imwrite(str(root / f"train2017/p{i}.png"), pixels[..., ::-1])
        images.append({"id": 100 + i, "file_name": f"p{i}.png"})
        annotations.append({"image_id": 100 + i, "file_name": f"{i}.png", "segments_info": about})
    categories = [{"id": 10 * c + 3, "name": n} for c, n in enumerate(NAMES)]
    (root / "annotations/panoptic_train2017.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def arguments(base, root, out, *more):
    return ["--base", str(base), "--coco", str(root), "--out", str(out), "--size", "64", "--batch", "4", "--points", "256", "--absent", "3",
            "--workers", "0", "--every", "1", "--cpu", "--no-amp", "--clip", "1", "--lr", "1e-3", *more]


def run(*args):
    with contextlib.redirect_stdout(io.StringIO()):
        bases.train(bases.options(arguments(*args)))
    return torch.load(Path(args[2]) / "last.pt", weights_only=True)


def begin(folder, names, *more):
    return opened.Opened(bases.options(["--base", str(folder), "--coco", "", "--out", "", *more]), names)


def known(start):
    """Embeddings of all names of a start's labels, and which are each label's."""
    counts = [len(segments.phrases_of(x)) for x in start.labels]
    ends = np.cumsum(counts)
    return start.reader.embed([p for x in start.labels for p in segments.phrases_of(x)]), [range(e - n, e) for e, n in zip(ends, counts)]


def guided(name, **changes):
    """A small network with guidance that says something, and something to show it."""
    torch.manual_seed(3)
    folder = HERE / "tiny" / name
    if name in OPEN:
        points = str(changes.pop("train_num_points", 256))
        about = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            (about if key in about else about["decoder_config"])[key] = value
        with tempfile.TemporaryDirectory() as other:
            (Path(other) / "config.json").write_text(json.dumps(about))
            (Path(other) / "merges.txt").write_text((folder / "merges.txt").read_text())
            start = begin(other, ["dog, cat", "sofa", "tree", "sky", "road"], "--points", points)
            model = start.network(*known(start)).eval()
        parts = model.base.model.pixel_level_module.decoder, model.base.model.transformer_module, model.head            # and not CLIP
    else:
        config = published.AutoConfig.from_pretrained(folder)
        for key, value in changes.items():
            setattr(config if hasattr(config, key) else config.decoder_config, key, value)
        base = published.BASES[config.model_type](config)
        model, parts = network.GuidedBase(base, 12).eval(), [base]
    for part in parts:
        for p in part.parameters():                                       # what begins at 0 and 1 would hide mistakes
            if p.ndim == 1:
                p.data += torch.rand_like(p) * 0.6 - 0.3
    return model, torch.randn(2, 3, 64, 96), torch.randn(2, 3, model.guidance.text_proj.in_features if model.guidance else 1)


def speak(model):
    for key, p in model.guidance.named_parameters() if model.guidance else ():
        if ".out." in key:
            torch.nn.init.normal_(p, std=0.1)


class Network(unittest.TestCase):
    def test_begins_as_the_base(self):
        for name in GUIDED:
            model, pixels, text = guided(name)
            with torch.no_grad():
                classes, masks = model(pixels, text)[-1]
                model.decoder._forward_pre_hooks.clear()
                for module in model.decoder.modules():
                    module._forward_hooks.clear()
                if name in OPEN:
                    plain_classes, plain_masks = model(pixels, text)[-1]
                else:
                    plain = model.base(pixel_values=pixels)
                    plain_classes, plain_masks = plain.class_queries_logits, plain.masks_queries_logits
            self.assertTrue(torch.equal(classes, plain_classes) and torch.equal(masks, plain_masks), name)

    def test_reads_the_prompts(self):
        for name in GUIDED:
            model, pixels, text = guided(name)
            speak(model)
            with torch.no_grad():
                one = model(pixels, text)
                turned = model(pixels, text.flip(1))
                padded = model(pixels, torch.cat((text, torch.randn_like(text[:, :2])), 1), torch.tensor([[True] * 3 + [False] * 2] * 2))
                other = model(pixels, text + 1)
            for i, (classes, masks) in enumerate(one):
                size = masks.std()
                self.assertLess((turned[i][1] - masks).abs().max(), 1e-4 * size, "the order of prompts matters")
                self.assertLess((padded[i][1] - masks).abs().max(), 1e-4 * size, "prompts that do not exist matter")
                self.assertGreater((other[i][1] - masks).abs().max(), 1e-3 * size, "prompts do not matter")

    def test_earlier_predictions(self):
        """What is predicted after a layer is what a network of so many layers predicts."""
        for name in TINY:
            model, pixels, text = guided(name)
            speak(model)
            fewer, _, _ = guided(name, decoder_layers=len(model.decoder.layers) if model.mask2former else 2)
            fewer.load_state_dict(model.state_dict(), strict=False)
            with torch.no_grad():
                for x, y in zip(model(pixels, text)[-2], fewer(pixels, text)[-1]):
                    self.assertLess((x - y).abs().max(), 1e-5 * y.abs().max(), name)

    def test_losses(self):
        """They are what the transformers library computes."""
        for name in LIBRARY:
            model, pixels, text = guided(name, num_labels=5, use_auxiliary_loss=name.startswith("mask2former"))
            masks = [(torch.rand(n, 64, 96) < 0.3).float() for n in (2, 3)]
            labels = [torch.tensor([4, 1]), torch.tensor([0, 1, 1])]
            torch.manual_seed(8)
            predictions = model(pixels, text)
            ours = sum(model.losses(predictions if model.mask2former else predictions[-1:], masks, labels).values())
            del model.base.criterion.get_num_masks
            torch.manual_seed(8)
            theirs = model.base(pixel_values=pixels, mask_labels=masks, class_labels=labels).loss
            self.assertLess(abs(ours - theirs), 1e-5 * theirs)

    def test_mixed_precision(self):
        for name in TINY:
            model, pixels, text = guided(name)
            speak(model)
            kinds = set()
            model.base.model.pixel_level_module.decoder.mask_projection.register_forward_hook(lambda _, __, x: kinds.add(x.dtype))
            model.decoder.layers[0].fc1.register_forward_hook(lambda _, __, x: kinds.add(x.dtype)) if model.mask2former else None
            with torch.no_grad():
                whole = model(pixels, text)[0][1]
                self.assertEqual(kinds, {torch.float32})
                with torch.autocast("cpu", torch.bfloat16):
                    mixed = model(pixels, text)[0][1]
            self.assertEqual(kinds, {torch.float32, torch.bfloat16} if model.mask2former else {torch.float32}, name)
            self.assertLess((mixed.float() - whole).std(), 0.1 * whole.std(), name)

    def test_backbone(self):
        for name in ("mask2former-resnet", "mask2former-swin"):
            model, _, _ = guided(name)
            config = model.base.config.backbone_config
            kind = transformers.ResNetForImageClassification if config.model_type == "resnet" else transformers.SwinForImageClassification
            classifier = kind(config)
            want = {k.partition(".")[2]: v for k, v in classifier.state_dict().items()}
            with tempfile.TemporaryDirectory() as folder:
                classifier.save_pretrained(folder)
                published.load_backbone(model.base, folder)
                got = model.base.model.pixel_level_module.encoder.state_dict()
                same = [k for k, v in got.items() for name in (k, k.partition(".")[2]) if name in want and torch.equal(want[name], v)]
                self.assertGreater(len(same), 0.85 * len(got), name)
                transformers.ViTForImageClassification(transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
                                                                              intermediate_size=16, image_size=32)).save_pretrained(folder)
                with self.assertRaisesRegex(SystemExit, "has no backbone"):
                    published.load_backbone(model.base, folder)

    def test_backbone_of_maskformer(self):
        """Its Swin, which the library names otherwise, makes the maps of a classifier's."""
        for name in ("maskformer-swin", "ovseg"):
            model, pixels, _ = guided(name)
            backbone = model.base.model.pixel_level_module.encoder
            config = transformers.SwinConfig(**{k: getattr(backbone.config, k) for k in ("embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "out_features")})
            classifier = transformers.SwinForImageClassification(config)
            for p in classifier.parameters():
                p.data += torch.rand_like(p) * 0.2 - 0.1
            with tempfile.TemporaryDirectory() as folder:
                classifier.save_pretrained(folder)
                published.load_backbone(model.base, folder)
                want = transformers.SwinBackbone.from_pretrained(folder, config=config).eval()
            with torch.no_grad():
                for ours, theirs in zip(backbone.eval()(pixels).feature_maps, want(pixels).feature_maps, strict=True):
                    self.assertLess((ours - theirs).abs().max(), 1e-5 * theirs.abs().max(), name)

    def test_torchvision(self):
        """A classifier in torchvision's names, written down here, makes the maps of the backbone that it fills."""
        model, _, _ = guided("mask2former-resnet")
        backbone = model.base.model.pixel_level_module.encoder.eval()
        classifier = TorchvisionResNet(backbone.config).eval()
        for k, x in classifier.state_dict().items():
            if x.is_floating_point():
                torch.nn.init.uniform_(x, 0.5, 1.5) if k.endswith("running_var") else torch.nn.init.normal_(x, std=0.1)
        state, x = classifier.state_dict(), torch.randn(1, 3, 64, 96)
        with tempfile.TemporaryDirectory() as folder:
            for ending, save in {"pth": torch.save, "safetensors": safetensors.torch.save_file}.items():
                path = f"{folder}/resnet.{ending}"
                for kept in (state, {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}):
                    for p in backbone.parameters():
                        torch.nn.init.zeros_(p)
                    save(kept, path)
                    published.load_backbone(model.base, path)
                    with torch.no_grad():
                        for ours, theirs in zip(backbone(x).feature_maps, classifier(x), strict=True):
                            self.assertLess((ours - theirs).abs().max(), 1e-4 * theirs.abs().max())
            path = f"{folder}/wrong.pth"
            for why, wrong in {"blocks in its stages": {k.replace("layer1.0.", "layer1.7."): v for k, v in state.items()} | state,
                               "for encoder.stages.3.layers.0.layer.1.convolution.weight": state | {"layer4.0.conv2.weight": torch.zeros(3, 3)},
                               "nothing for embedder": {k: v for k, v in state.items() if k != "conv1.weight"},
                               "nothing here": state | {"layer4.0.conv4.weight": torch.zeros(3)}}.items():
                torch.save(wrong, path)
                with self.assertRaisesRegex(SystemExit, why):
                    published.load_backbone(model.base, path)
            backbone.config.downsample_in_bottleneck = True
            with self.assertRaisesRegex(SystemExit, "downsample_in_bottleneck"):
                published.load_backbone(model.base, f"{folder}/resnet.pth")

    def test_everything_learns(self):
        for name in TINY:
            model, pixels, text = guided(name, train_num_points=64)
            model.train()
            # Nothing to be found is no reason to leave a parameter out, which other processes wait for.
            losses = model.losses(model(pixels, text), [torch.zeros(0, 64, 96)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2)
            sum(losses.values()).backward()
            for key, p in model.named_parameters():
                self.assertEqual(p.grad is not None, p.requires_grad, key)
            norms = [p for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in (*m.parameters(), m.num_batches_tracked)]
            self.assertTrue(all(not p.requires_grad for p in norms) and all(p == 0 for p in norms if p.ndim == 0), "a batch norm learns")


class TorchvisionResNet(nn.Module):
    """A ResNet of bottlenecks with torchvision's names."""

    def __init__(self, config):
        super().__init__()
        channels = config.embedding_size
        self.conv1, self.bn1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels)
        for i, (out, depth) in enumerate(zip(config.hidden_sizes, config.depths)):
            stage = []
            for j in range(depth):
                block, stride = nn.Module(), 2 if i > 0 and j == 0 else 1
                for k, (ins, outs, size, step) in enumerate(((channels, out // 4, 1, 1), (out // 4, out // 4, 3, stride), (out // 4, out, 1, 1)), 1):
                    block.add_module(f"conv{k}", nn.Conv2d(ins, outs, size, step, size // 2, bias=False))
                    block.add_module(f"bn{k}", nn.BatchNorm2d(outs))
                if j == 0:
                    block.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
                stage.append(block)
                channels = out
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(channels, 7)

    def forward(self, x):
        x, maps = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1), []
        for i in range(1, 5):
            for b in getattr(self, f"layer{i}"):
                y = F.relu(b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x))))))
                x = F.relu(b.bn3(b.conv3(y)) + (b.downsample(x) if hasattr(b, "downsample") else x))
            maps.append(x)
        return maps


class Training(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        coco(self.root / "coco")
        torch.set_num_threads(1)

    def test_examples(self):
        photos = segments.CocoPanoptic(self.root / "coco", "train2017")
        self.assertEqual(photos.names, ["dog", "cat", "tree", "sky", "potted plant", "road"])
        self.assertEqual([len(photos.read(i).classes) for i in range(len(photos))], [3, 2, 2, 2, 3, 2])   # the rest are crowds
        o = bases.options(["--base", "", "--coco", "", "--out", "", "--size", "64", "--absent", "3"])
        label = [5, 4, 3, 2, 1, 0]
        examples = segments.Examples(photos, label, [[10 * l, 10 * l + 1] for l in range(6)], [0, 0, 0], [1, 1, 1], o)
        alone = refused = found = 0
        for n in range(200):
            e = examples[n]
            pixels, masks, labels, prompts = e["pixels"] * 255, e["masks"], e["labels"].tolist(), e["prompts"].tolist()
            asked = [p // 10 for p in prompts]
            self.assertEqual(len(set(asked)), len(asked))
            self.assertTrue(set(labels) <= set(asked), "a mask whose name is not asked for")
            for mask, l in zip(masks, labels):
                if mask.sum() > 100:
                    found += 1
                    middle = pixels[:, mask].median(1).values
                    self.assertLess((middle - torch.tensor(COLOURS[5 - l])).abs().max(), 3, "a mask lies on another colour")
            # Colours tell what is there, crowds too: of what is asked for, that has masks, and the rest is absent or a crowd.
            for l in set(asked) - set(labels):
                there = (pixels - torch.tensor(COLOURS[5 - l])[:, None, None].float()).abs().amax(0) < 3
                self.assertLess(there.sum(), 30, "an absent name is there")
            self.assertFalse((masks.sum(0) > 1).any())
            alone += len(asked) == 1 and len(set(labels)) == 1
            refused += not labels
        self.assertGreater(found, 100)
        self.assertGreater(alone, 30)
        self.assertGreater(refused, 8)
        again = segments.Examples(photos, label, [[10 * l, 10 * l + 1] for l in range(6)], [0, 0, 0], [1, 1, 1], o)[7]
        self.assertTrue(all(torch.equal(x, again[k]) for k, x in examples[7].items()))
        self.assertNotEqual(examples[7]["pixels"].sum(), examples[7 + len(photos)]["pixels"].sum())

    def test_goes_on(self):
        """A run that was interrupted ends where one that was not ends, to the last bit."""
        for name in TINY:
            base = HERE / "tiny" / name
            whole = run(base, self.root / "coco", self.root / f"{name}/whole", "--steps", "4", "--drops", "3")
            run(base, self.root / "coco", self.root / f"{name}/parts", "--steps", "2", "--drops", "3")
            parts = run(base, self.root / "coco", self.root / f"{name}/parts", "--steps", "4", "--drops", "3")
            for key, x in whole["model"].items():
                self.assertTrue(torch.equal(x, parts["model"][key]), key)
            logs = [(self.root / name / p / "log.jsonl").read_text() for p in ("whole", "parts")]
            self.assertEqual(*logs)
            rates = [json.loads(line)["rate"] for line in logs[0].splitlines()]
            np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.04])

    def test_processes(self):
        """Two processes compute what one does of all examples. MaskFormer's and OVSeg's losses have no random points."""
        for name in "maskformer-resnet", "ovseg":
            base, steps, root = HERE / "tiny" / name, ("--steps", "2", "--warmup", "0"), self.root / name
            run(base, self.root / "coco", root / "one", *steps)
            subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(HERE / "bases.py"),
                            *arguments(base, self.root / "coco", root / "two", *steps)], check=True, capture_output=True)
            one, two = ([json.loads(line) for line in (root / p / "log.jsonl").read_text().splitlines()] for p in ("one", "two"))
            for a, b in zip(one, two, strict=True):
                for key in a:
                    self.assertLess(abs(a[key] - b[key]), 1e-4 * abs(a[key]), (name, key))

    def test_export(self):
        """The export is a checkpoint of the transformers library, from which another run starts with the guidance it has."""
        base = HERE / "tiny/maskformer-resnet"
        saved = run(base, self.root / "coco", self.root / "run", "--steps", "1")
        folder = self.root / "run/export"
        _, info = published.MaskFormerForInstanceSegmentation.from_pretrained(folder, output_loading_info=True)
        self.assertFalse(info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"], info)
        _, label, missing = published.load_base(folder, ["sky", "dog"], 256)
        self.assertEqual((label, missing), ([3, 0], []))
        self.assertEqual(published.load_base(folder, ["sky", "zebra"], 256)[1:], ([0, 1], ["zebra"]))
        run(folder, self.root / "coco", self.root / "again", "--steps", "1", "--lr", "0")
        begun = torch.load(self.root / "again/last.pt", weights_only=True)["model"]
        for key, x in saved["model"].items():
            self.assertTrue(torch.equal(x, begun[key]), key)

    def test_opened(self):
        """What is exported is what was trained, of which CLIP stays as it was, and makes of pictures what the oracle of the engine makes of it."""
        for name in OPEN:
            base, folder = HERE / "tiny" / name, self.root / name / "export"
            names = self.root / "names.txt"
            names.write_text("0:invalid_class_id\n1:dog,puppy\n2:cat\n3:tree,trees\n4:sky\n5:potted plant\n6:road\n")
            saved = run(base, self.root / "coco", self.root / name, "--steps", "2", "--names", str(names))["model"]
            start = begin(folder, ["cat", "sky"])
            self.assertEqual((start.label, start.labels[0], start.missing), ([1, 3], "dog,puppy", []))
            model = start.network(*known(start)).eval()
            for key, x in saved.items():
                self.assertTrue(torch.equal(x, model.state_dict()[key]), key)
            torch.manual_seed(0)
            before = begin(base, ["cat"])
            for key, x in start.clip.state_dict().items():
                self.assertTrue(torch.equal(x, before.clip.state_dict()[key]), key)
            pixels = torch.randn(1, 3, 64, 96)
            prompts = ["tree", "zebra"]
            with torch.no_grad():
                classes, masks = model(pixels, start.reader.embed(prompts)[None])[-1]
                if name == "ovseg":
                    found = exported_ovseg(folder, pixels, start.labels)
                else:
                    found = exported(name, folder, pixels, prompts, start.labels, [True] * 6)
            self.assertLess((masks - found["masks"]).abs().max(), 1e-4 * masks.std())
            self.assertLess((classes[0] - found["class logits"]).abs().max(), 1e-3 * classes.std())
            with self.assertRaisesRegex(SystemExit, "has 6 names and the data have 1 classes"):
                begin(folder, ["cat"], "--names", str(names))
            if model.guidance:                                            # as it was published
                file = next(folder.glob("*.pth"))
                torch.save({"model": {k: x for k, x in torch.load(file, weights_only=True)["model"].items() if not k.startswith("decoder.")}}, file)
                start = begin(file, ["cat", "sky"])
                for key, x in start.network(*known(start)).state_dict().items():
                    self.assertTrue(not x.any() if ".out." in key and key.startswith("guidance") else key.startswith("guidance") or torch.equal(x, saved[key]), key)

    def test_mask_prompts(self):
        """They learn, and nothing else of an OVSeg does; a run goes on."""
        photos = self.root / "halves"
        coco(photos, halves=True)                                         # in whole rectangles no patch is untouched
        run(HERE / "tiny/ovseg", photos, self.root / "masks", "--steps", "1")
        base = self.root / "masks/export"
        more = ("--mask-prompts", "3", "--lr", "0.03", "--warmup", "0")
        whole = run(base, photos, self.root / "whole", "--steps", "30", *more)
        run(base, photos, self.root / "parts", "--steps", "4", *more)
        parts = run(base, photos, self.root / "parts", "--steps", "30", *more)
        for key, x in whole["model"].items():
            self.assertTrue(torch.equal(x, parts["model"][key]), key)
        losses = [json.loads(line)["loss"] for line in (self.root / "whole/log.jsonl").read_text().splitlines()]
        self.assertLess(sum(losses[20:]), 0.7 * sum(losses[:10]), losses)
        before, after = (torch.load(p / "ovseg.pth", weights_only=True)["model"] for p in (base, self.root / "whole/export"))
        self.assertEqual([k for k in before if not torch.equal(before[k], after[k])], ["clip_adapter.clip_model.visual.mask_embedding"])
        self.assertEqual(list(before), list(after))
        with self.assertRaisesRegex(SystemExit, "2 mask prompts are asked for"):
            run(base, photos, self.root / "wrong", "--steps", "1", "--mask-prompts", "2")

    def test_stuff(self):
        folder = self.root / "stuff"
        for place in ("stuffthingmaps_detectron2/train2017", "train2017"):
            (folder / place).mkdir(parents=True)
        labels = np.full((20, 30), 255, np.uint8)
        labels[:10, :15], labels[:10, 15:] = 2, 0
        cv2.imwrite(str(folder / "stuffthingmaps_detectron2/train2017/a.png"), labels)
        cv2.imwrite(str(folder / "train2017/a.jpg"), np.zeros((20, 30, 3), np.uint8))
        (folder / "names.txt").write_text("1:dog,puppy\n2:cat\n3:tree-merged\n")
        photos = bases.photos_of(bases.options(["--base", "", "--stuff", str(folder), "--out", "", "--names", str(folder / "names.txt")]))
        photo = photos.read(0)
        self.assertEqual((photos.names, len(photos), photo.classes, photo.known), (["dog", "cat", "tree"], 1, [0, 2], {0, 1, 2}))
        np.testing.assert_array_equal(photo.owner[[0, 0, 15], [0, 20, 0]], [2, 1, 0])

    def test_clip_of_a_file(self):
        for name in OPEN:
            torch.manual_seed(1)
            folder = self.root / name
            folder.mkdir()
            small = json.loads((HERE / "tiny" / name / "config.json").read_text())
            have = begin(HERE / "tiny" / name, ["cat"]).clip.state_dict()
            del small["clip"]
            (folder / "config.json").write_text(json.dumps(small))
            torch.save(have | {"input_resolution": torch.tensor(224)}, folder / "open_clip_pytorch_model.bin")
            (folder / "merges.txt").write_text((HERE / "tiny" / name / "merges.txt").read_text())
            found = begin(folder, ["cat"], "--open-clip", str(folder)).clip
            want = json.loads((HERE / "tiny" / name / "config.json").read_text())["clip"]
            self.assertEqual((found.config["image"], found.config["embedding"]), (want["image"], want["embedding"]))
            for key, x in have.items():
                self.assertTrue(torch.equal(x, found.state_dict()[key]), key)
            for why, wrong in {"lacks ln_final.weight": {k: x for k, x in have.items() if k != "ln_final.weight"},
                               "merges.txt makes": have | {"token_embedding.weight": torch.zeros(1000, *have["token_embedding.weight"].shape[1:])}}.items():
                torch.save(wrong, folder / "open_clip_pytorch_model.bin")
                with self.assertRaisesRegex(SystemExit, why):
                    begin(folder, ["cat"], "--open-clip", str(folder))
            with self.assertRaisesRegex(SystemExit, "give a CLIP with --open-clip"):
                begin(folder, ["cat"])


def exported(name, folder, pixels, prompts, asked, known):
    """What the oracle makes of pictures with an export's tensors, when it reads prompts and is asked for names."""
    oracle.weights.clear()
    oracle.weights.update(torch.load(folder / "fcclip.pth", weights_only=True)["model"])
    base, see, read, _ = oracle.small(name)
    guide = network.GuidedBase(base.float(), oracle.EMBEDDING).eval()
    guide.guidance.load_state_dict({k.removeprefix("decoder."): x for k, x in oracle.weights.items() if k.startswith("decoder.")})
    guide.tokens = guide.guidance.text_tokens(oracle.texts(read, prompts)[0].float()[None], None)
    text, counts = oracle.texts(read, asked)
    text = torch.cat([text, oracle.normal(oracle.weights["void_embedding.weight"])]).float()
    return oracle.answer(base, see, pixels, text, counts, known, name == "fcclip-attention")


def exported_ovseg(folder, pixels, asked):
    """The same of an OVSeg, whose pixels are from 0 to 1 for CLIP, and the threshold of its masks that no pixel is near to."""
    oracle.weights.clear()
    oracle.weights.update({k: x.double() for k, x in torch.load(folder / "ovseg.pth", weights_only=True)["model"].items()})
    base, seer, words, _ = oracle_ovseg.small()
    out, masks, whole = oracle_ovseg.masks_of(base, pixels.double())
    names, counts = oracle_ovseg.split(asked)
    text, other = oracle_ovseg.read(seer, words, names), oracle.weights[oracle_ovseg.OTHER]
    c = oracle_ovseg.class_embedding(out, oracle_ovseg.HIDDEN, text.shape[-1])
    said = oracle_ovseg.class_logits(c, text, counts, other)
    # A fifth of the pixels is inside, and none is so near to the threshold that rounding decides.
    for i in range(100):
        threshold = round((whole.quantile(0.8) + i * whole.std() / 1000).sigmoid().item(), 9)
        if (whole - math.log(threshold / (1 - threshold))).abs().min() > oracle_ovseg.MARGIN * whole.std():
            break
    mean, std = (torch.tensor(x)[:, None, None] for x in (published.MEAN, published.STD))
    seen, there, _, _ = oracle_ovseg.look(whole, (pixels[0] * std + mean).double(), seer, threshold, oracle.weights[oracle_ovseg.CLIP + "visual.mask_embedding"])
    p = oracle_ovseg.both(said.softmax(-1)[:, :-1], oracle_ovseg.best(100 * seen @ text.T, counts).softmax(-1), there[:, None])
    return {"masks": masks[None], "class logits": said, "threshold": threshold, "scores": torch.einsum("qc,qhw->chw", p, masks.sigmoid()).flatten(1)}


def leave(name, folder):
    coco(folder / "coco", halves=True)
    first = folder / "first" if name == "ovseg" else folder
    run(HERE / "tiny" / name, folder / "coco", first, "--steps", "4", "--lr", "1e-3" if name == "ovseg" else "1e-2", "--warmup", "0")
    if name == "ovseg":
        run(first / "export", folder / "coco", folder, "--mask-prompts", "3", "--steps", "4", "--lr", "0.03", "--warmup", "0")
    width, height = 96, 64
    pixels = np.random.default_rng(9).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)

    def seen(mean, std):
        return torch.from_numpy((pixels / 255.0 - mean) / std).float().permute(2, 0, 1)[None]
    if name in OPEN:
        names, settings = ["tree", "potted plant, zebra", "dark horse"], {"short": height, "long": 10 * width}
        with torch.no_grad():
            if name == "ovseg":
                found = exported_ovseg(folder / "export", seen(published.MEAN, published.STD), names)
                settings["mask_threshold"] = found["threshold"]
            else:
                found = exported(name, folder / "export", seen(clip.MEAN, clip.STD), names, names, [True, True, False])
        scores = found["scores"]
        about = next((folder / "export").glob("*.json"))
        about.write_text(json.dumps(json.loads(about.read_text()) | settings))
    else:
        names = ["tree", "potted plant", "dog"]
        reader = published.Reader(HERE.parent / "default")
        base, _, _ = published.load_base(folder / "export", names, 256)
        model = network.GuidedBase(base, 384).eval()
        model.load_state_dict(torch.load(folder / "last.pt", weights_only=True)["model"])
        with torch.no_grad():
            classes, masks = model(seen(published.MEAN, published.STD), reader.embed(names)[None])[-1]
        scores = torch.einsum("qc,qhw->chw", classes[0].softmax(-1)[:, [base.config.label2id[n] for n in names]], masks[0].sigmoid()).flatten(1)
        (folder / "export/preprocessor_config.json").write_text(json.dumps({"size": {"width": width, "height": height}}))
    (folder / "expected.json").write_text(json.dumps({
        "width": width, "height": height, "pixels": np.dstack((pixels, np.full((height, width), 255))).flatten().tolist(),
        "prompts": names, "scores": scores.tolist()}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["export"]:
        leave(sys.argv[2], Path(sys.argv[3]))
    else:
        unittest.main()
