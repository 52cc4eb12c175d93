"""Tests of how the shipped model is trained. They need neither data nor weights."""
import random
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import data
from batches import CELLS, Batches, Prompts
from network import Conv, SecondStage, normalise
from second import Seen
from views import SIZE, make_view

CLASSES = data.Classes(names={1: ["person"], 2: ["dog"], 3: ["sky"], 4: ["grass"]}, synonyms={c: [] for c in range(1, 5)}, known={"voc": {1, 2}},
                       absent={}, groups=[], coco={}, voc={}, clothing={}, person=1)


class Depthwise(unittest.TestCase):
    def test_gradients(self):
        """They are those of PyTorch's own convolution."""
        torch.manual_seed(0)
        for side, stride, height in [(k, s, h) for k in (3, 5) for s in (1, 2) for h in (16, 17)]:
            conv = Conv(8, 8, side, stride, groups=8).double()
            x = torch.randn(2, 8, height, 20, dtype=torch.double, requires_grad=True)
            wanted = [x, conv.weight, conv.bias]
            plain = F.conv2d(F.pad(x, conv.same) if conv.same else x, conv.weight, conv.bias, conv.stride, conv.padding, groups=8)
            weight = torch.randn_like(plain)
            for got, want in zip(*(torch.autograd.grad((y * weight).sum(), wanted) for y in (conv(x), plain))):
                torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)      # sums are in float32


class Second(unittest.TestCase):
    """The second stage is fitted to rows of the ImageNet classifier, here to random ones of 40 names and of 24 others; CLIP has features of
    half of the former and of all the latter."""

    def setUp(self):
        torch.manual_seed(0)
        self.seen = seen = object.__new__(Seen)
        seen.vectors, seen.rows = normalise(torch.randn(64, 32)), normalise(torch.randn(40, 48))
        texts = normalise(torch.randn(64, 16))
        texts[:20] = 0
        pictures = texts + 0.1 * torch.randn(64, 16)
        pictures[:30] = 0
        seen.names, seen.features = list(range(64)), [texts, pictures]

    def stage(self, rank=32, space=24):
        state = self.seen.fit(torch.zeros(2, 48), rank, space) | {"trained": self.seen.vectors[:3]}
        stage = SecondStage(SecondStage.sizes({f"stage2.{k}": v for k, v in state.items()}), 32, 48)
        stage.load_state_dict(state)
        return stage

    def test_fit(self):
        """A name has a row like its own, and other names the rows that CLIP's features tell."""
        own = (self.stage().rows(self.seen.vectors[:40]) @ self.seen.rows.T).argmax(1)
        self.assertGreater((own == torch.arange(40)).float().mean(), 0.9)
        predicted = normalise(self.seen.rows_by_clip(torch.ones(40, dtype=torch.bool))[40:])
        self.assertGreater((self.stage().rows(self.seen.vectors[40:]) * predicted).sum(1).mean(), 0.5)

    def test_without(self):
        """Held out, a name's row does not depend on its own, as the others' do."""
        stage = self.stage()
        before = self.seen.rows_without(stage)
        for name in (3, 35):                                              # CLIP has no features of the first one
            own = self.seen.rows[name].clone()
            self.seen.rows[name] = normalise(torch.randn(48))
            after = self.seen.rows_without(stage)
            torch.testing.assert_close(after[name], before[name])
            self.assertGreater((after - before).abs().amax(1).gt(1e-4).sum(), 20)
            self.seen.rows[name] = own


class Table:
    """The phrases of CLASSES as PhraseTable has them."""
    embeddings, unseen, foreign = np.eye(24, dtype=np.float32), set(), np.arange(5, 24)
    index = {group[0]: c for c, group in CLASSES.names.items()}

    def phrase(self, c, rng, own):
        return c

    def unseen_in(self, meta):
        return set()


class Completed(unittest.TestCase):
    def test_view(self):
        """What the set labels stays; of what it does not, the model's word counts."""
        labels = np.zeros((300, 400), np.uint8)
        labels[:, :100], labels[:, 100:110] = 1, data.IGNORE
        more = np.full((75, 100), 3, np.uint8)                            # of another size, as masks of scaled photos are
        more[40:] = data.UNCLEAR
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "photo.png"
            grey = np.repeat((labels > 0)[..., None] * np.uint8(200), 3, -1)
            Image.fromarray(grey).save(picture)
            of = lambda completed: data.Photo("voc", "photo", picture, labels.copy, completed=completed)
            for seed in range(20):
                rng = lambda: np.random.default_rng([seed])
                cutouts = SimpleNamespace(draw=lambda *_: (2, grey[:40, :40], np.ones((40, 40), np.float32)))
                before, plain, _ = make_view(of(None), CLASSES, cutouts, rng())
                after, mixed, meta = make_view(of(lambda: more), CLASSES, cutouts, rng())
                if (before != after).any():                               # the box was laid round a segment that only one of them has
                    continue
                given = np.isin(plain, (1, 2, data.IGNORE))
                np.testing.assert_array_equal(mixed[given], plain[given])
                self.assertLessEqual(set(np.unique(mixed[~given])), {0, 3, data.UNCLEAR, data.IGNORE})
                self.assertEqual(meta["completed"], [3] * (3 in meta["present"]))
                self.assertLessEqual(set(meta["present"]), {1, 2, 3})

    def test_unclear(self):
        """An unclear pixel is none of what the set labels, and unknown as soon as one of the added names is asked for."""
        labels = np.zeros((SIZE, SIZE), np.uint8)
        labels[:, :200], labels[:, 200:350], labels[:, 350:] = 1, 3, data.UNCLEAR
        meta = {"source": "voc", "present": [1, 3], "tiny": [], "completed": [3], "absent": []}
        unclear = labels[4::4, 4::4][:, 100] == data.UNCLEAR
        self.assertTrue(unclear.all())
        batches = Batches.__new__(Batches)
        batches.cache = SimpleNamespace(labels=lambda _: labels, get=lambda *_: {})
        batches.table, batches.batch, batches.points, batches.levels = Table(), 1, 1024, None
        batches.prompts = Prompts(CLASSES, Table())
        batches.rng, batches.np_rng = random.Random(1), np.random.default_rng(1)
        seen = set()
        for _ in range(200):
            out = batches.make([(0, meta)])
            asked = {int(n.argmax()) for n, valid in zip(out["text"][0], out["valid"][0]) if valid}
            right = out["cells"][0] % CELLS > 350 // 4 + 1
            weights, targets = out["weights"][0][right], out["targets"][0][:, right]
            if 3 in asked:
                self.assertEqual(float(weights.sum()), 0)
            else:
                self.assertGreater(float(weights.sum()), 0)
                self.assertEqual(float(targets.sum()), 0)
            seen.add(3 in asked)
        self.assertEqual(seen, {True, False})


if __name__ == "__main__":
    unittest.main()
