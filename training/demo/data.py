"""The demo data set: permissively licensed emoji, rendered once and composed into captioned pictures on the fly.

A picture is one concept drawn in one style, placed on a plain coloured background. Concept, style, background, size and
position are all known, so a prompt has a ground truth. That is what the quality bar, the simulated users and the
simulated feedback of this project are measured against.

The sources are npm packages (see `SOURCES`); `fetch_sources` downloads them with the `npm` client and `build_library`
renders them with resvg. The data set itself is never committed: it is rebuilt by command.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

IMAGE_SIZE = 64
RENDER_SIZE = 128


@dataclass(frozen=True)
class Source:
    """One npm package of drawings. `style` is the plain word a prompt uses for its look."""

    package: str
    version: str
    licence: str
    style: str


SOURCES = (
    Source("@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "3d"),
    Source("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "flat"),
    Source("@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "cartoon"),
    Source("@iconify-json/noto", "1.2.9", "Apache-2.0", "shaded"),
    Source("@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "glossy"),
    Source("@iconify-json/fxemoji", "1.2.2", "Apache-2.0", "retro"),
)
LABELS = Source("emojibase-data", "17.0.0", "MIT", "")
STYLES = tuple(source.style for source in SOURCES)

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "gray": (140, 143, 148),
    "black": (22, 22, 26),
    "red": (205, 45, 50),
    "orange": (243, 146, 40),
    "yellow": (250, 220, 70),
    "green": (60, 150, 75),
    "blue": (50, 105, 215),
    "purple": (125, 70, 185),
    "pink": (245, 160, 195),
}
POSITIONS = {"center": (0.0, 0.0), "left": (-1.0, 0.0), "right": (1.0, 0.0), "top": (0.0, -1.0), "bottom": (0.0, 1.0)}
# Pixels of a drawing's longer side: in a cell of the whole picture, or of half its width.
SIDES = {"large": 56, "small": 30}
POSITION_WORDS = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}

# Emoji label -> the word a person would use. Chosen so that every concept is drawn in at least five of the six styles
# and can be told from the others at 64 pixels.
CONCEPTS: dict[str, str] = {
    "monkey face": "monkey", "dog face": "dog", "cat face": "cat", "fox": "fox", "lion": "lion", "tiger face": "tiger",
    "horse face": "horse", "unicorn": "unicorn", "cow face": "cow", "pig face": "pig", "camel": "camel",
    "elephant": "elephant", "mouse face": "mouse", "rabbit face": "rabbit", "bear": "bear", "koala": "koala",
    "panda": "panda", "rooster": "rooster", "baby chick": "chick", "bird": "bird", "penguin": "penguin", "duck": "duck",
    "eagle": "eagle", "owl": "owl", "frog": "frog", "crocodile": "crocodile", "turtle": "turtle", "snake": "snake",
    "spouting whale": "whale", "dolphin": "dolphin", "tropical fish": "fish", "blowfish": "pufferfish",
    "shark": "shark", "octopus": "octopus", "crab": "crab", "shrimp": "shrimp", "snail": "snail",
    "butterfly": "butterfly", "honeybee": "bee", "lady beetle": "ladybug",
    "cherry blossom": "cherry blossom", "rose": "rose", "hibiscus": "hibiscus", "sunflower": "sunflower",
    "tulip": "tulip", "evergreen tree": "pine tree", "deciduous tree": "tree", "palm tree": "palm tree",
    "cactus": "cactus", "maple leaf": "maple leaf", "mushroom": "mushroom",
    "grapes": "grapes", "watermelon": "watermelon", "tangerine": "orange", "lemon": "lemon", "banana": "banana",
    "pineapple": "pineapple", "red apple": "apple", "pear": "pear", "peach": "peach", "cherries": "cherries",
    "strawberry": "strawberry", "kiwi fruit": "kiwi", "tomato": "tomato", "avocado": "avocado",
    "eggplant": "eggplant", "carrot": "carrot", "hot pepper": "chili pepper", "bread": "bread",
    "croissant": "croissant", "cheese wedge": "cheese", "hamburger": "hamburger", "french fries": "french fries",
    "pizza": "pizza", "hot dog": "hot dog", "cooking": "fried egg", "popcorn": "popcorn", "rice ball": "rice ball",
    "ice cream": "ice cream", "doughnut": "doughnut", "cookie": "cookie", "birthday cake": "birthday cake",
    "shortcake": "cake slice", "lollipop": "lollipop", "beer mug": "beer mug", "wine glass": "wine glass",
    "hot beverage": "coffee cup",
    "house": "house", "castle": "castle", "automobile": "car", "bus": "bus", "sailboat": "sailboat",
    "airplane": "airplane", "rocket": "rocket", "umbrella": "umbrella", "snowman": "snowman", "star": "star",
    "fire": "flame", "Christmas tree": "christmas tree", "balloon": "balloon", "wrapped gift": "gift box",
    "trophy": "trophy", "soccer ball": "soccer ball", "basketball": "basketball", "crown": "crown",
    "top hat": "top hat", "guitar": "guitar", "bell": "bell", "camera": "camera", "light bulb": "light bulb",
    "key": "key", "envelope": "envelope", "alarm clock": "alarm clock",
}  # fmt: skip
PLURALS = frozenset({"grapes", "cherries", "french fries"})
CONCEPT_NAMES = tuple(CONCEPTS.values())


@dataclass(frozen=True)
class Attributes:
    """What a picture shows, in the words its prompt may use. All fields are drawn from the tables above."""

    concept: str
    style: str
    background: str
    size: str = "large"
    position: str = "center"


class DemoDataError(RuntimeError):
    """The data set cannot be fetched or built; the message says what to install or delete."""


def fetch_sources(cache: Path) -> None:
    """Download and unpack every source package into `cache`, once. Needs the `npm` client.

    Raises:
        DemoDataError: npm is missing, or a package could not be fetched.
    """
    npm = shutil.which("npm")
    cache.mkdir(parents=True, exist_ok=True)
    for source in (*SOURCES, LABELS):
        target = _unpacked(cache, source)
        if target.exists():
            continue
        if npm is None:
            raise DemoDataError("Building the demo data needs the npm client (part of Node.js); install it and retry.")
        done = subprocess.run(
            [npm, "pack", "--silent", f"{source.package}@{source.version}"], cwd=cache, capture_output=True, text=True
        )
        if done.returncode:
            raise DemoDataError(f"npm could not fetch {source.package}@{source.version}: {done.stderr.strip()}")
        archive = cache / done.stdout.strip().splitlines()[-1]
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        partial.rename(target)
        archive.unlink()


def _unpacked(cache: Path, source: Source) -> Path:
    return cache / f"{source.package.replace('@', '').replace('/', '-')}-{source.version}"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _code(hexcode: str) -> str:
    return hexcode.lower().replace("-fe0f", "")


class _Pack:
    """One unpacked source: finds the drawing of an emoji and renders it."""

    def __init__(self, cache: Path, source: Source) -> None:
        self.root = _unpacked(cache, source) / "package"
        self.style = source.style
        icons = self.root / "icons.json"
        self.icons = json.loads(icons.read_text("utf-8")) if icons.exists() else None
        chars = self.root / "chars.json"
        self.by_code = {_code(k): v for k, v in json.loads(chars.read_text("utf-8")).items()} if chars.exists() else {}
        if self.icons:
            self.by_letters = {_letters(name): name for name in self.icons["icons"]}
        else:
            self.files = {_code(path.stem): path for path in (self.root / "assets").glob("*.webp")}

    def render(self, code: str, names: list[str]) -> np.ndarray | None:
        """The drawing as uint8 RGBA [RENDER_SIZE, RENDER_SIZE, 4], or None where the pack has none."""
        if self.icons is None:
            path = self.files.get(code)
            return None if path is None else _square(Image.open(path))
        known = [self.by_code.get(code)] + [self.by_letters.get(_letters(name)) for name in names]
        name = next((name for name in known if name in self.icons["icons"]), None)
        return None if name is None else _square(Image.open(io.BytesIO(self._png(name))))

    def _png(self, name: str) -> bytes:
        import resvg_py

        icon = self.icons["icons"][name]
        width = icon.get("width", self.icons.get("width", 16))
        height = icon.get("height", self.icons.get("height", 16))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}" '
            f'width="{RENDER_SIZE}" height="{RENDER_SIZE}">{icon["body"]}</svg>'
        )
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=RENDER_SIZE, height=RENDER_SIZE))


def _square(image: Image.Image) -> np.ndarray:
    """Crop to the drawing, centre it in a square, resize: so that size means the same in every style."""
    image = image.convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 12)).getbbox()
    image = image.crop(box)
    side = max(image.size)
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(canvas.resize((RENDER_SIZE, RENDER_SIZE), Image.Resampling.LANCZOS))


@dataclass(frozen=True)
class Library:
    """Every rendered drawing.

    rgba: uint8 [N, RENDER_SIZE, RENDER_SIZE, 4]; concept, style: int [N], indices into CONCEPT_NAMES and STYLES.
    """

    rgba: np.ndarray
    concept: np.ndarray
    style: np.ndarray

    def pairs(self) -> list[tuple[str, str]]:
        return [(CONCEPT_NAMES[c], STYLES[s]) for c, s in zip(self.concept, self.style, strict=True)]

    def find(self, concept: str, style: str) -> int | None:
        """Index of the drawing, or None if this pair does not exist."""
        hit = (self.concept == CONCEPT_NAMES.index(concept)) & (self.style == STYLES.index(style))
        return int(np.flatnonzero(hit)[0]) if hit.any() else None


def build_library(cache: Path) -> Library:
    """Render all drawings of `CONCEPTS`, or load them from `cache/library.npz`. Takes about 10 s the first time."""
    path = cache / "library.npz"
    wanted = hashlib.sha256(repr((CONCEPTS, SOURCES, RENDER_SIZE)).encode()).hexdigest()
    if path.exists():
        with np.load(path) as saved:
            if str(saved["recipe"]) == wanted:
                return Library(saved["rgba"], saved["concept"], saved["style"])
    fetch_sources(cache)
    labels = json.loads((_unpacked(cache, LABELS) / "package/en/data.json").read_text("utf-8"))
    codes = {entry["label"]: _code(entry["hexcode"]) for entry in labels}
    missing = [label for label in CONCEPTS if label not in codes]
    if missing:
        raise DemoDataError(f"These concepts are not emoji labels of {LABELS.package} {LABELS.version}: {missing}")
    packs = [_Pack(cache, source) for source in SOURCES]
    drawn_in_flat = set(packs[STYLES.index("flat")].by_code)
    rgba, concepts, styles = [], [], []
    for index, label in enumerate(CONCEPTS):
        code = codes[label]
        names = [label] + [pack.by_code[code] for pack in packs if code in pack.by_code]
        for pack in packs:
            # The 3D set also carries drawings that are not its publisher's; those the flat set lacks are left out.
            if pack.style == "3d" and code not in drawn_in_flat:
                continue
            picture = pack.render(code, names)
            if picture is not None:
                rgba.append(picture)
                concepts.append(index)
                styles.append(STYLES.index(pack.style))
    library = Library(np.stack(rgba), np.array(concepts), np.array(styles))
    partial = path.with_name("library.partial.npz")
    np.savez_compressed(partial, recipe=wanted, rgba=library.rgba, concept=library.concept, style=library.style)
    partial.replace(path)
    return library


def in_split(split: str, concept: str, style: str, fraction: float) -> bool:
    """Whether a concept × style pair belongs to the named held-out split; stable across machines and runs."""
    digest = hashlib.sha256(f"{split}/{concept}/{style}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < fraction


def is_held_out(concept: str, style: str) -> bool:
    """Pairs the diffusion model never sees in training: the test of combining a known concept with a known style."""
    return in_split("generalisation", concept, style, 0.06)


def draw_attributes(rng: np.random.Generator, concept: str, style: str) -> Attributes:
    """Random background, size and position; six of seven pictures are large and centred."""
    background = str(rng.choice(list(BACKGROUNDS)))
    if rng.random() < 6 / 7:
        return Attributes(concept, style, background)
    return Attributes(concept, style, background, "small", str(rng.choice(list(POSITIONS))))


def compose(
    library: Library,
    attributes: Attributes,
    rng: np.random.Generator,
    *,
    colour_jitter: float = 4.0,
    placement_jitter: float = 0.0,
    mirror: bool = False,
) -> np.ndarray:
    """Draw the picture: uint8 RGB [IMAGE_SIZE, IMAGE_SIZE, 3].

    A drawing fills `SIDES[size]` pixels in the middle of a cell whose corners lie on the 8-pixel grid of the latents,
    so that moving it by a cell moves its latents and changes nothing else.

    Args:
        colour_jitter: standard deviation of the background's colour, in levels of 255.
        placement_jitter: 0 = exact; 1 = size ± 4 % (standard deviation) and position ± 1.5 pixels.
        mirror: turn the drawing round half of the time.
    """
    index = library.find(attributes.concept, attributes.style)
    if index is None:
        raise DemoDataError(f"There is no drawing of {attributes.concept!r} in the style {attributes.style!r}.")
    picture = Image.fromarray(library.rgba[index])
    if mirror and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = round(SIDES[attributes.size] * (1 + 0.04 * placement_jitter * rng.standard_normal()))
    side = int(np.clip(side, 24, IMAGE_SIZE - 4))
    picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    room = 0 if attributes.size == "large" else IMAGE_SIZE // 4
    direction = POSITIONS[attributes.position]
    shift = placement_jitter * rng.uniform(-1.5, 1.5, 2)
    x, y = (round(IMAGE_SIZE / 2 - side / 2 + d * room + s) for d, s in zip(direction, shift, strict=True))
    colour = np.array(BACKGROUNDS[attributes.background]) + colour_jitter * rng.standard_normal(3)
    canvas = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), tuple(int(c) for c in np.clip(colour, 0, 255)))
    canvas.paste(picture, (x, y), picture)
    return np.asarray(canvas)


def with_article(words: str) -> str:
    """Put "a" or "an" before the words, by sound for the vocabulary of this data set."""
    return f"an {words}" if words[0] in "aeiou" and not words.startswith("uni") else f"a {words}"


def caption(attributes: Attributes, rng: np.random.Generator, *, drop: float = 0.15, held_out: bool = False) -> str:
    """One of several phrasings, each attribute but the concept dropped with probability `drop`.

    `held_out=True` uses the phrasings that training never sees.
    """
    subject = attributes.concept
    if attributes.size == "small" and rng.random() >= drop:
        subject = f"small {subject}"
    parts = [subject if attributes.concept in PLURALS else with_article(subject)]
    style = f"{attributes.style} style" if rng.random() >= drop else ""
    background = f"{attributes.background} background" if rng.random() >= drop else ""
    if attributes.position != "center" and rng.random() >= drop:
        parts[0] += f" {POSITION_WORDS[attributes.position]}"
    if held_out:
        return " ".join(
            filter(
                None,
                [
                    f"picture of {parts[0]}",
                    style and f"drawn in {style}",
                    background and f"against {with_article(background)}",
                ],
            )
        )
    form = rng.integers(4)
    if form == 0:
        return ", ".join(filter(None, [parts[0], style, background]))
    if form == 1:
        return ", ".join(filter(None, [parts[0], style, background and f"on {with_article(background)}"]))
    if form == 2:
        words = f"{parts[0]} on {with_article(background)}" if background else parts[0]
        return f"{words}, {style}" if style else words
    words = f"{parts[0]} in {style}" if style else parts[0]
    return f"{words} on {with_article(background)}" if background else words


def vocabulary() -> list[str]:
    """Texts that together use every word a caption can hold, and a few that people add."""
    frames = ["a an picture of small big large style drawn in on a an background against", "on the left at the top"]
    frames += ["on the right at the bottom", ", ", "photo icon emoji drawing image with and two red blue cute , ."]
    return [*CONCEPT_NAMES, *STYLES, *BACKGROUNDS, *POSITIONS, *frames]
