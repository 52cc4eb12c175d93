"""Writes coco.json: masks and what COCO's own code makes of them.

    python fixture.py > coco.json

Needs: pip install pycocotools numpy. A mask is given by hexadecimal digits of its bits, row by row.
"""
import json

import numpy as np
from pycocotools import mask as coco

random = np.random.default_rng(7)
masks = []
for height, width in [(1, 1), (1, 2), (2, 1), (1, 9), (9, 1), (1, 200), (200, 1), (3, 5), (64, 64), (65, 63), (7, 130)]:
    masks += [np.zeros((height, width), bool), np.ones((height, width), bool), random.random((height, width)) < 0.5]
    corners = np.zeros((height, width), bool)
    corners[0, 0] = corners[-1, -1] = True
    masks += [corners, ~corners]
for height, width, share in [(40, 30, 0.02), (33, 70, 0.98), (50, 50, 0.5), (5, 64, 0.5), (6, 128, 0.3)]:
    masks.append(random.random((height, width)) < share)
y, x = np.mgrid[:90, :120]
disc = (x - 60) ** 2 + (y - 40) ** 2 < 35 ** 2
masks += [disc, ~disc, disc & ((x - 50) ** 2 + (y - 45) ** 2 > 12 ** 2), (x // 7 + y // 5) % 2 == 0, x % 2 == 0, y % 2 == 0, (x + y) % 2 == 0]
tall = np.zeros((300, 200), bool)          # long runs need several characters
tall[:, 20:] = True
tall[150, 100] = False
masks.append(tall)

cases = []
for m in masks:
    rle = coco.encode(np.asfortranarray(m.astype(np.uint8)))
    flat = m.T.ravel()
    # The uncompressed run lengths, by their definition.
    change = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(np.int8)))
    counts = np.diff(np.concatenate([[0], change, [flat.size]]))
    assert coco.frPyObjects({"size": list(m.shape), "counts": counts.tolist()}, *m.shape)["counts"] == rle["counts"]
    assert (coco.decode(rle) == m).all()
    cases.append({"width": m.shape[1], "height": m.shape[0], "bits": np.packbits(m).tobytes().hex(), "counts": rle["counts"].decode(),
                  "runs": counts.tolist() if len(counts) < 100 else None,
                  "area": int(coco.area(rle)), "bbox": [int(v) for v in coco.toBbox(rle)]})
print("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]")
