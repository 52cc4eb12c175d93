"""Writes metrics.json: random label maps, proposals and scores, and their figures by another implementation.

    python fixture.py > metrics.json

Needs: pip install numpy. Sums of floating point numbers go in plain order, so that they can be compared exactly.
Labels: 65535 is none of the names, 65534 is to be ignored.
"""
import json

import numpy as np

NONE, IGNORE = 65535, 65534
random = np.random.default_rng(7)


def mean(values):
    return sum(float(v) for v in values) / len(values) if len(values) else None


def blobs(height, width, values, n):
    """A label map of rectangles."""
    out = np.full((height, width), values[0])
    for _ in range(n):
        y, x = random.integers(height), random.integers(width)
        out[y:y + random.integers(1, height), x:x + random.integers(1, width)] = random.choice(values)
    return out


def ious(truths, predictions, classes):
    """For each class: IoU over all pictures, pixels in the truth, pixels in the predictions."""
    t, p = np.concatenate([x.ravel() for x in truths]), np.concatenate([x.ravel() for x in predictions])
    known = t < classes
    t, p = t[known], p[known]
    out = []
    for c in range(classes):
        both, union = np.sum((t == c) & (p == c)), np.sum((t == c) | (p == c))
        out.append((int(both) / int(union) if union else None, int(np.sum(t == c)), int(np.sum(p == c))))
    return out


def oracle(truth, classes, background, proposals):
    """Paints each pixel with the best proposal that covers it."""
    known = truth != IGNORE
    names, scores = [], []
    for m in proposals:
        candidates = list(range(classes)) + ([NONE] if background else [])
        iou = [np.sum(m & (truth == c)) / max(1, np.sum((m & known) | (truth == c))) for c in candidates]
        best = int(np.argmax(iou))
        names.append(candidates[best])
        scores.append(iou[best])
    out = np.full(truth.shape, NONE)
    for y in range(truth.shape[0]):
        for x in range(truth.shape[1]):
            covering = [i for i, m in enumerate(proposals) if m[y, x] and scores[i] > 0]
            if covering:
                out[y, x] = names[max(covering, key=lambda i: (scores[i], -i))]
    return out


cases = []
for classes, pictures, height, width, background in [(1, 1, 4, 4, False), (3, 2, 9, 7, False), (5, 3, 16, 21, True), (12, 4, 20, 18, False), (30, 2, 25, 25, True)]:
    values = list(range(classes)) + [IGNORE] + ([NONE] if background else [])
    truths = [blobs(height, width, values, 10) for _ in range(pictures)]
    # Predictions are damaged truths, so that something is right.
    predictions = []
    for t in truths:
        p = np.where(random.random(t.shape) < 0.6, t, blobs(height, width, list(range(classes)) + [NONE], 8))
        p[p == IGNORE] = NONE
        predictions.append(p)
    proposals = []
    for t in truths:
        masks = [(t == c) ^ (random.random(t.shape) < share) for c, share in zip(random.integers(0, classes, 6), (0, .02, .1, .2, .3, .5))]
        masks += [blobs(height, width, [0, 1], 3) > 0, np.zeros(t.shape, bool), np.ones(t.shape, bool)]
        proposals.append(masks)

    table = ious(truths, predictions, classes)
    found = {0.5: 0, 0.75: 0}
    segments, pairs, pooled = 0, [], {}
    for t, masks in zip(truths, proposals):
        known = t != IGNORE
        for c in range(classes):
            if not (t == c).any():
                continue
            segments += 1
            best = max(np.sum(m & (t == c)) / np.sum((m & known) | (t == c)) for m in masks)
            for threshold in found:
                found[threshold] += int(best >= threshold)
            m = masks[c % len(masks)]          # stands for the answer to this class as a single prompt
            both, union = int(np.sum(m & (t == c))), int(np.sum((m & known) | (t == c)))
            pairs.append(both / union)
            old = pooled.get(c, (0, 0))
            pooled[c] = old[0] + both, old[1] + union
    painted = [oracle(t, classes, background, masks) for t, masks in zip(truths, proposals)]

    scores = np.round(random.random(40), 1)    # rounded, so that some are equal
    present = random.random(40) < 0.3
    present[:2] = True, False
    above = [1 if a > b else 0.5 if a == b else 0 for a in scores[present] for b in scores[~present]]
    cases.append({
        "classes": classes, "background": background,
        "truths": [t.ravel().tolist() for t in truths], "predictions": [p.ravel().tolist() for p in predictions],
        "proposals": [["".join(map(str, m.ravel().astype(int))) for m in masks] for masks in proposals],
        "scores": scores.tolist(), "present": present.tolist(),
        "table": table,
        "miou": mean([i for i, t, p in table if t]),
        "miou_d2": mean([i if t else 0.0 for i, t, p in table if t or p]),
        "segments": segments, "at50": found[0.5], "at75": found[0.75],
        "single": mean(pairs), "single_miou": mean([both / union for _, (both, union) in sorted(pooled.items())]),
        "oracle": [p.ravel().tolist() for p in painted],
        "auc": sum(above) / len(above),
    })
print("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]")
