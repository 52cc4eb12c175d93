"""The labelled photos behind one space of class numbers: which names are in a photo, and which are known not to be.

Class numbers: 1…133 COCO panoptic names (VOC's twenty names are among them), then the clothing tags; 0 = none of the names
that the photo's set labels, 255 = unknown, ignored. From OWN on the numbers mean names of one picture only: the ImageNet
photos and the stamps have more names than a byte has numbers.
"""
import json
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from names import clean, vocab_file

IGNORE = 255
OWN, MOST_OWN = 200, 8
UNCLEAR = 254          # of a photo completed by a model: none of the names that its set labels, but it may be one of the others
# VOC writes some of COCO's names in another way.
VOC_TO_COCO = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tv monitor": "tv"}
MORE_SYNONYMS = {"airplane": ["plane", "jet"], "motorcycle": ["motorbikes"], "tv": ["television", "monitor", "screen"],
                 "orange": ["oranges"], "cell phone": ["phone", "smartphone"], "person": ["human"], "mouse": ["computer mouse"],
                 "couch": ["settee"], "cow": ["cattle"], "potted plant": ["houseplant"],
                 "car": ["automobile"], "bicycle": ["cycle"], "remote": ["remote"], "sheep": ["lamb"], "skin": ["bare skin"]}
# Synonyms of the vocabulary files that name something else than what is labelled.
NOT_SYNONYMS = {"clothes", "plate", "plates", "diningtable tablecloth", "calf"}
# Things that hardly ever stand in a VOC photo or in a street-style photo: nearly truthful absent names.
RARE_IN_VOC = """elephant, zebra, giraffe, bear, kite, frisbee, snowboard, skis, surfboard, toilet, parking meter, stop sign,
fire hydrant, hair drier, toaster, pizza, donut, broccoli, carrot, hot dog, microwave, tennis racket, baseball bat,
baseball glove, toothbrush""".replace("\n", " ").split(", ")
RARE_IN_STREET = RARE_IN_VOC + """airplane, train, boat, sheep, cow, horse, cat, bird, couch, bed, oven, sink, refrigerator,
tv, cake, dining table""".replace("\n", " ").split(", ")
# Tags of which one garment often could carry several: none of a group is asked for as absent where another is present.
CLOTHING_GROUPS = [g.split() for g in ("boots clogs flats heels loafers pumps sandals shoes sneakers wedges",
                                       "blazer coat jacket cape cardigan vest hoodie suit", "sweater sweatshirt jumper cardigan hoodie",
                                       "blouse shirt t-shirt top bodysuit vest", "bag purse wallet",
                                       "pants jeans leggings tights stockings", "glasses sunglasses", "socks stockings tights",
                                       "panties intimate bra swimwear bodysuit", "dress romper skirt",
                                       "accessories bracelet earrings necklace ring watch")]
# Names whose embeddings have this cosine or more may mean the same thing.
NEAR = 0.6
# Names of stuff that runs with --unseen leave out beside splits.json's things. All are in coco/val, and none looks like a name
# that stays (a river looks like water and sea).
UNSEEN_STUFF = ("snow", "sand", "mountain", "rug", "curtain", "shelf")


def unseen_names(splits):
    """The names that runs with --unseen leave out."""
    return (*splits["unseen_names"], *UNSEEN_STUFF)


CARRIED = ("bag", "purse", "wallet", "accessories")                       # not part of the person


@dataclass
class Classes:
    """names[c] = [preferred names], synonyms[c], and the class numbers each set of photos labels completely."""
    names: dict
    synonyms: dict
    known: dict
    absent: dict          # further class numbers that may be taken as absent, per set
    groups: list          # sets of class numbers that exclude one another as absent names
    coco: dict            # COCO id → class number
    voc: dict             # VOC id → class number
    clothing: dict        # tag id → class number
    person: int

    def numbers(self, names):
        """The classes that have one of these names."""
        return {c for c, group in self.names.items() if set(group) & set(names)}

    def phrases(self):
        """Every phrase training may use, in order."""
        out = []
        for c in self.names:
            out += self.names[c] + self.synonyms[c]
        return list(dict.fromkeys(out))

    def by_phrase(self):
        """The class number of every name and synonym."""
        return {n: c for c in self.names for n in self.names[c] + self.synonyms[c]}


def load_classes(data):
    data = Path(data)
    read = lambda f: {int(k): clean(v) for k, v in json.loads((data / f).read_text()).items()}
    panoptic = vocab_file(data / "vocab/coco_panoptic_with_prompt_eng.txt")
    given = read("coco/classes.json")
    names, synonyms, coco = {}, {}, {}
    voc_name = {}
    for theirs, ours in VOC_TO_COCO.items():
        voc_name[ours] = theirs
    for number, group in panoptic.items():
        c = len(names) + 1
        coco[number] = c
        first = given.get(number, group[0])
        names[c] = list(dict.fromkeys([first, group[0]] + ([voc_name[first]] if first in voc_name else [])))
        synonyms[c] = [n for n in group[1:] + MORE_SYNONYMS.get(first, []) if n not in NOT_SYNONYMS and n not in names[c]]
    by_name = {n: c for c in names for n in names[c]}
    voc = {number: by_name[n] for number, n in read("voc/classes.json").items()}
    clothing = {}
    for number, name in read("clothing/classes.json").items():
        if number == 0:
            continue
        c = len(names) + 1
        clothing[number] = c
        names[c], synonyms[c] = [name], MORE_SYNONYMS.get(name, [])
    tag = {names[c][0]: c for c in clothing.values()}
    things = {c for number, c in coco.items() if number <= 90}
    return Classes(names, synonyms, coco=coco, voc=voc, clothing=clothing, person=by_name["person"],
                   known={"coco": set(coco.values()), "things": things, "voc": set(voc.values()),
                          "animals": set(voc.values()), "clothing": set(clothing.values()) | {by_name["person"]}},
                   absent={"voc": {by_name[n] for n in RARE_IN_VOC},
                           "animals": {by_name[n] for n in RARE_IN_VOC},
                           "clothing": {by_name[n] for n in RARE_IN_STREET}},
                   groups=[{tag[n] for n in g} for g in CLOTHING_GROUPS])


def read_picture(path):
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]             # [H,W,3] RGB


def lookup(mask, table):
    lut = np.full(256, IGNORE, np.uint8)
    for number, c in table.items():
        lut[number] = c
    return lut[mask]


@dataclass
class Photo:
    source: str           # coco, things, voc, animals, clothing
    name: str
    picture: Path
    labels: object        # () → uint8 [H,W] of class numbers
    own: str = ""         # the name that number OWN means in it
    absent: tuple = ()    # class numbers that are surely not in it, besides those of its source
    completed: object = None   # () → uint8 [H,W] of class numbers that its set does not label, see complete.py


def polygons_to_mask(entry, class_of):
    """Semantic labels from polygons; small things are drawn last, so that they lie on top of large ones."""
    mask = np.zeros((entry["height"], entry["width"]), np.uint8)
    drawn = []
    for s in entry["segments"]:
        rings = [np.round(np.array(p).reshape(-1, 2)).astype(np.int32) for p in s["polygons"] if len(p) >= 6]
        if rings:
            drawn.append((sum(cv2.contourArea(r) for r in rings), rings, IGNORE if s.get("iscrowd") else class_of[s["class"]]))
    for _, rings, c in sorted(drawn, key=lambda d: -d[0]):
        cv2.fillPoly(mask, rings, c)
    return mask


def training_photos(data, classes, splits):
    """All photos that may be trained on: none of the validation lists."""
    data, photos = Path(data), []
    gray = lambda path: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    held = {"voc": set(splits["voc_val"]), "animals": set(splits["voc_animals_val"]), "clothing": set(splits["clothing_val"]),
            "coco": {f.stem for f in (data / "coco/val/images").iterdir()}}

    def add(source, folder, masks, table, person=False):
        for f in sorted((data / folder / "images").iterdir()):
            mask = data / folder / masks / f"{f.stem}.png"
            if f.stem not in held[source] and mask.exists():
                photos.append(Photo(source, f.stem, f, lambda mask=mask: lookup(gray(mask), table)))

    add("coco", "coco/train", "masks", classes.coco)
    add("voc", "voc", "masks_full", {0: 0, **classes.voc})
    add("animals", "voc-animals", "masks", {0: 0, **classes.voc})
    add("clothing", "clothing", "masks", {0: 0, **classes.clothing})
    class_of = classes.by_phrase()
    for entry in json.loads((data / "coco/things/polygons.json").read_text()):
        f = data / "coco/things/images" / entry["image"]
        f = f if f.exists() else f.with_name(f.name + ".jpg")
        if f.exists() and f.stem not in held["coco"]:
            photos.append(Photo("things", f.stem, f, lambda entry=entry: polygons_to_mask(entry, class_of)))
    return photos


def named_photos(data, classes, pseudo):
    """The ImageNet photos with the masks that pseudo.py made, each with its own name unless a class has that."""
    photos, class_of = [], classes.by_phrase()
    files = {f.stem: f for f in (Path(data) / "imagenet1000/images").iterdir()}
    for stem, f in json.loads((Path(pseudo) / "facts.json").read_text()).items():
        if not f["good"]:
            continue
        number = class_of.get(f["name"], OWN)
        table = np.full(256, IGNORE, np.uint8)
        table[0], table[255] = 0, number
        mask, file = Path(pseudo) / f"{stem}.png", files[stem]

        def labels(mask=mask, table=table, file=file):
            found = table[cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)]
            height, width = read_picture(file).shape[:2]
            return cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST)
        photos.append(Photo("imagenet", stem, file, labels, "" if number != OWN else f["name"], tuple(f["absent"])))
    return photos


def complete_photos(photos, folder):
    """The photos, with what complete.py found in those that it looked at."""
    absent = {}
    for f in Path(folder).glob("facts.*.json"):
        absent |= json.loads(f.read_text())
    out = []
    for p in photos:
        key = f"{p.source}/{p.name}"
        if key in absent:
            file = Path(folder) / f"{key}.png"
            p = replace(p, absent=(*p.absent, *absent[key]), completed=lambda file=file: cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
        out.append(p)
    return out


def stamp_name(text):
    """The thing in a stamp's description: "A pair of blue jeans." → "blue jeans"; empty if it is no plain name."""
    text = re.split(r"[.!?(:;]", text.replace("’", "'"))[0].lower().strip()
    text = re.sub(r"^(a|an|the|some|eat your)\s+", "", text)
    text = re.sub(r"^(pair|head|cup|glass|bunch|baby|slice|very small|string) of (an? |the )?", "", text)
    return text if re.fullmatch(r"[a-z' -]{3,28}", text) and len(text.split()) <= 3 else ""


# Classes that a stamp may belong to by its folder, though it has another name: they are not absent where it lies.
MAYBE = {"birds": ["bird"], "bovines": ["cow", "sheep"], "equines": ["horse"], "deer": ["horse", "cow"], "camel": ["horse"],
         "cats": ["cat"], "dogs": ["dog"], "bears": ["bear", "teddy bear"], "mammals": ["dog", "cat", "bear", "elephant"],
         "fruit": ["fruit", "food", "apple", "orange", "banana"], "vegetables": ["food", "fruit", "carrot", "broccoli"],
         "nuts": ["food", "fruit"], "food": ["food", "fruit"], "mushrooms": ["food"], "flowers": ["flower", "potted plant"],
         "trees": ["tree", "potted plant"], "plants": ["potted plant", "flower", "tree"], "people": ["person"],
         "vehicles": ["car", "truck", "bus", "motorcycle", "airplane", "boat", "train"], "dishes": ["cup", "bowl"],
         "household": ["cup", "bottle", "vase"], "town": ["stop sign", "traffic light", "house", "building"],
         "sports": ["sports ball"], "marsupials": ["dog"], "military": ["car", "truck", "airplane"]}


def stamps(folder, classes):
    """Tux Paint's photo stamps: [(name, file of the cut-out with alpha, class numbers that it may belong to as well)]."""
    found, number = [], {n: c for c in classes.names for n in classes.names[c]}
    for file in sorted(Path(folder).rglob("*.png")):
        about = file.with_suffix(".txt")
        parts = file.relative_to(folder).parts
        if about.exists() and not {"cartoon", "symbols", "alphabets", "flags", "money"} & set(parts):
            name = stamp_name(about.read_text(errors="replace").splitlines()[0])
            if name:
                found.append((name, file, {number[n] for p in parts for n in MAYBE.get(p, [])}))
    return found


def is_calibration(photo_source, photo_name):
    """One photo in twenty is kept out of the gradient, for thresholds and calibration."""
    return zlib.crc32(f"{photo_source}/{photo_name}".encode()) % 20 == 0


@dataclass
class ValidationSet:
    """names[i] belongs to label i+1 of labels(); 0 = none of them where background is true, otherwise ignored."""
    names: list
    photos: list
    background: bool


def validation_sets(data, splits):
    """The fixed validation lists, each with its own names; voc_unseen is one for runs with --unseen only."""
    data = Path(data)
    gray = lambda path: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)

    def make(folder, masks, stems, classes_file, background):
        given = {int(k): clean(v) for k, v in json.loads((data / classes_file).read_text()).items()}
        given.pop(0, None)
        numbers = sorted(given)
        table = {n: i + 1 for i, n in enumerate(numbers)} | {0: 0 if background else IGNORE}
        photos = []
        for stem in stems:
            mask = data / folder / masks / f"{stem}.png"
            if mask.exists():
                photos.append(Photo(folder, stem, data / folder / f"images/{stem}.jpg", lambda mask=mask: lookup(gray(mask), table)))
        return ValidationSet([given[n] for n in numbers], photos, background)

    return {"voc_val": make("voc", "masks_full", splits["voc_val"], "voc/classes.json", True),
            "voc_unseen": make("voc", "masks_full", splits["voc_unseen"], "voc/classes.json", True),
            "voc_animals_val": make("voc-animals", "masks", splits["voc_animals_val"], "voc-animals/classes.json", True),
            "coco_val": make("coco/val", "masks", sorted(f.stem for f in (data / "coco/val/images").iterdir()), "coco/classes.json", False),
            "clothing_val": make("clothing", "masks", splits["clothing_val"], "clothing/classes.json", True)}
