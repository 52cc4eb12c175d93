"""The names, synonyms and phrases in the data folder: what to prompt with, and what to distil the text encoder on."""
import csv
import json
import re
from pathlib import Path

COLOURS = "red orange yellow green blue purple pink brown black white grey silver golden beige dark bright".split()
ADJECTIVES = COLOURS + """small big large tiny old new young wooden metal plastic glass stone leather wet dry dirty clean
round square long short striped spotted broken empty full open closed wild domestic electric rusty shiny colourful
blurred distant nearby left right upper lower front rear standing sitting lying running flying parked""".split()
TEMPLATES = ["a photo of a {}", "a picture of the {}", "a {}", "the {}", "an image of {}", "{} in the background",
             "a close-up of a {}", "all of the {}", "one {}", "two {}", "many {}"]
JOINS = ["{} {}", "{} and {}", "{} on a {}", "{} in a {}", "{} with a {}", "{} next to the {}", "{} of a {}", "{}, {}"]


def clean(name):
    """A name as people type it: lower case, without underscores, brackets and the suffixes of COCO's merged stuff names."""
    name = re.sub(r"\(.*?\)", " ", name.replace("_", " ").lower())
    name = re.sub(r"-(other|merged|stuff)\b", "", name)
    return re.sub(r"\s+", " ", name).strip()


def vocab_file(path):
    """A vocabulary of the benchmarks, "id:name,synonym,…" a line → {id: [names]}."""
    out = {}
    for line in Path(path).read_text().splitlines():
        number, _, names = line.partition(":")
        names = [clean(n) for n in names.split(",") if n.strip()]
        if names and names[0] != "invalid class id":
            out[int(number)] = list(dict.fromkeys(names))
    return out


def imagenet_names(data):
    """One name for each ImageNet class, in the classifier's order (sorted wnid), from the photos' file names."""
    files = sorted((Path(data) / "imagenet1000/images").iterdir())
    return [clean(f.stem.split("_", 1)[1]) for f in files]


def imagenet_labels(data):
    """All the names of each ImageNet class, in the classifier's order, behind the background's."""
    lines = (Path(data) / "backbones/imagenet_labels.txt").read_text().splitlines()
    return [[clean(n) for n in re.sub(r"^\d+\s+", "", line).split(",")] for line in lines]


def lvis_names(data):
    """The name and the synonyms of each LVIS class, in the order of its numbers."""
    entries = json.loads((Path(data) / "clip-names/lvis_v1_train_cat_info.json").read_text())
    return [[clean(n) for n in [entry["name"], *entry["synonyms"]]] for entry in sorted(entries, key=lambda entry: entry["id"])]


def objects365_names(data):
    """The names of each Objects365 class."""
    with open(Path(data) / "clip-names/Objects365_names_fix.csv") as f:
        return [[clean(cell) for cell in row[1:]] for row in csv.reader(f)]


def all_names(data):
    """Every distinct name and synonym in the data folder, sorted."""
    data = Path(data)
    names = set(imagenet_names(data))
    for path in (data / "vocab").glob("*.txt"):
        names.update(n for group in vocab_file(path).values() for n in group)
    for group in lvis_names(data) + objects365_names(data) + imagenet_labels(data):
        names.update(group)
    for folder in ("coco", "clothing", "voc"):
        names.update(clean(n) for n in json.loads((data / folder / "classes.json").read_text()).values())
    return sorted(n for n in names if 1 < len(n) < 60)


def descriptions(data):
    """Sentences that describe the LVIS names."""
    data = Path(data)
    out = {s for group in json.loads((data / "clip-names/lvis_gpt3_descriptions.json").read_text()).values() for s in group}
    out |= {e["def"] for e in json.loads((data / "clip-names/lvis_v1_train_cat_info.json").read_text())}
    return sorted(out)


def whole_words(tokenizer):
    """The English words that the WordPiece vocabulary holds whole."""
    return sorted(w for w in tokenizer.get_vocab() if re.fullmatch(r"[a-z]{3,}", w))


def random_phrase(names, words, sentences, random):
    """A phrase of the kind people ask for: mostly names, alone, with an adjective, in twos or in a template."""
    u = random.random()
    if u < 0.35:
        return random.choice(names)
    if u < 0.50:
        return f"{random.choice(ADJECTIVES)} {random.choice(names)}"
    if u < 0.65:
        return random.choice(words)
    if u < 0.80:
        return random.choice(JOINS).format(random.choice(names), random.choice(names + words))
    if u < 0.92:
        return random.choice(TEMPLATES).format(random.choice(names))
    return random.choice(sentences)
