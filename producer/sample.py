"""The built-in sample: brain-like axial slices with and without lesions, drawn by the program, seeded.

For a first run, a demonstration or a test where no data set can be fetched. The slices are drawings: a head
outline, layers of scalp, bone and fluid, a folded cortex, ventricles, deep nuclei, the coil's bias field and the
noise of a magnitude image. They look like magnetic resonance slices to an encoder and are no substitute for any.
"""

import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..models.errors import DatasetError
from ..models.settings import Settings

Plane = npt.NDArray[np.floating[Any]]
"""One value a pixel: floating point (height, width)."""
Random = np.random.Generator

NAME = "sample-v1"
"""The folder under `settings.home`. A change of a pixel needs a new name: a folder there is used as it is."""


@dataclass(frozen=True)
class _Tissues:
    """The brightness of each tissue, 0 to 1."""

    fat: float
    bone: float
    marrow: float
    fluid: float
    grey: float
    white: float
    core: float
    rim: float
    oedema: float


# One protocol for all, as a reference built of normals wants it: T1 with a contrast agent, which lights up a
# lesion's rim and leaves its core and the oedema around it darker than white matter: brightness alone tells little.
_T1_CONTRAST = _Tissues(
    fat=0.82, bone=0.07, marrow=0.3, fluid=0.14, grey=0.36, white=0.5, core=0.2, rim=0.86, oedema=0.33
)


@dataclass(frozen=True)
class _Head:
    """The outline of a head and its layers, in pixels, and where it lies in the image."""

    width: int
    height: int
    half_width: float
    half_height: float
    centre: tuple[float, float]
    turn: float
    wobble: tuple[float, float, float, float]
    scalp: float
    bone: float
    fluid: float
    level: float
    """Which slice: from 0, at the deep nuclei, over 0.5, at the lateral ventricles, to 1, above them."""

    @property
    def radius(self) -> float:
        return (self.half_width + self.half_height) / 2


@dataclass(frozen=True)
class _Lesion:
    """A lesion's place (head pixels), size and kind."""

    centre: tuple[float, float]
    radius: float
    stretch: float
    turn: float
    lobes: tuple[tuple[float, float], ...]
    """Amplitude and phase of the outline's waves, from the second on."""
    core: float
    """Radius of the dead core as a part of the lesion's; 0 for a solid one."""
    solid: float
    """0: as bright as oedema, 1: as bright as a rim."""
    strength: float
    """How much of its own brightness shows, 0 to 1."""
    oedema: float
    """Width of the surround as a part of the radius."""
    push: float
    """How far the tissue around is pushed away, as a part of the radius."""


def built_in_sample(settings: Settings) -> Path:
    """The sample's folder, drawn at the first call: `no/` and `yes/` of 60 slices each, a few seconds.

    Raises:
        DatasetError: the folder cannot be written.
    """
    folder = settings.home / NAME
    if folder.is_dir():
        return folder
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=settings.home) as draft:
            whole = Path(draft) / NAME
            draw_sample(whole)
            _publish(whole, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetError(
            f"The built-in sample cannot be written to {folder}: {reason}. Set SCANOMALY_HOME to another folder."
        ) from error
    return folder


def _publish(whole: Path, folder: Path) -> None:
    try:
        whole.rename(folder)
    except OSError:
        # Another process was faster; its folder is whole as well, and holds the same bytes.
        if not folder.is_dir():
            raise
        shutil.rmtree(whole, ignore_errors=True)


def draw_sample(folder: Path, normals: int = 60, anomalies: int = 60, seed: int = 0) -> None:
    """Write `folder/no/NNN.png` without and `folder/yes/NNN.png` with a lesion: 8-bit grey, 232 to 256 px a side.

    A slice depends on the seed, its folder and its number alone: a larger sample starts with a smaller one.
    The same NumPy and Pillow draw the same bytes.

    Raises:
        OSError: a file cannot be written.
    """
    for kind, (name, count) in enumerate((("no", normals), ("yes", anomalies))):
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = draw_slice(np.random.SeedSequence([seed, kind, index]), lesion=name == "yes")
            Image.fromarray(pixels).save(target / f"{index + 1:03d}.png", compress_level=4)


def draw_slice(seed: np.random.SeedSequence, lesion: bool) -> npt.NDArray[np.uint8]:
    """One slice: uint8 (height, width), 0 is air."""
    # A stream for each part: that there is a lesion changes no other line of the drawing.
    anatomy, growth, scanner = (np.random.default_rng(part) for part in seed.spawn(3))
    head = _draw_head(anatomy)
    u, v = _head_coordinates(head)
    grown = _draw_lesion(growth, head) if lesion else None
    inner = _pushed_away(u, v, grown) if grown else (u, v)
    image = _paint_anatomy(anatomy, head, u, v, *inner)
    if grown:
        image = _paint_lesion(growth, head, grown, u, v, image)
    return _scan(scanner, image, u, v)


def _draw_head(random: Random) -> _Head:
    width, height = (int(side) for side in random.integers(232, 257, size=2))
    half_height = height * random.uniform(0.44, 0.47)
    half_width = min(half_height * random.uniform(0.79, 0.85), width * 0.47)
    return _Head(
        width=width,
        height=height,
        half_width=half_width,
        half_height=half_height,
        centre=(width / 2 + random.normal(0, 2.5), height / 2 + random.normal(0, 2.0)),
        turn=random.normal(0, 0.055),
        wobble=tuple(random.normal(0, 0.006, size=4).tolist()),
        scalp=random.uniform(4.0, 8.5),
        bone=random.uniform(4.5, 8.0),
        fluid=random.uniform(0.8, 3.0),
        level=random.uniform(0.38, 0.64),  # all near one height: what differs most between slices is the height
    )


def _head_coordinates(head: _Head) -> tuple[Plane, Plane]:
    """How far right of and below the head's centre each pixel lies, in pixels along the head's own axes."""
    x = np.arange(head.width, dtype=np.float32)[None, :] - (head.centre[0])
    y = np.arange(head.height, dtype=np.float32)[:, None] - (head.centre[1])
    cosine, sine = math.cos(head.turn), math.sin(head.turn)
    return x * cosine + y * sine, y * cosine - x * sine


def _depth(head: _Head, u: Plane, v: Plane) -> tuple[Plane, Plane]:
    """How deep below the skin each pixel lies, in pixels, and its angle around the centre in radians."""
    x = u / (head.half_width * (1 + 0.09 * v / head.half_height))  # wider at the back
    y = v / head.half_height
    angle = np.arctan2(y, x)
    second, third, fourth, fifth = head.wobble
    outline = 1 + second * np.cos(2 * angle) + third * np.sin(3 * angle)
    outline += (fourth - 0.012) * np.cos(4 * angle) + fifth * np.cos(5 * angle)
    return (1 - np.hypot(x, y) / outline) * head.radius, angle


def _paint_anatomy(random: Random, head: _Head, u: Plane, v: Plane, inner_u: Plane, inner_v: Plane) -> Plane:
    """Brightness of the healthy head. `inner_u` and `inner_v` are the coordinates after a lesion's push."""
    depth, angle = _depth(head, u, v)
    scalp = head.scalp * (1 + 0.25 * np.sin(angle + random.uniform(-0.8, 0.8)) + 0.10 * np.cos(5 * angle))
    bone = head.bone * (1 + 0.18 * np.cos(2 * angle + random.uniform(0, 6)))
    skull = scalp + bone
    fat = _T1_CONTRAST.fat * (1 + 0.10 * random.normal())
    image = fat * _edge(depth, 0.7) * (0.72 + 0.28 * _edge(depth - 1.8, 0.5))  # skin is darker than the fat below
    image = _over(image, _T1_CONTRAST.bone, _edge(depth - scalp, 0.6))
    marrow = _bump((depth - scalp - bone * 0.45) / (bone * 0.22)) * random.uniform(0.2, 1.0)
    image = _over(image, _T1_CONTRAST.marrow, marrow)
    inside = _edge(depth - skull, 0.6)
    image = _over(image, _T1_CONTRAST.fluid, inside)

    # No two brains follow the same lines: all that is inside the skull is bent a little.
    inner_u = inner_u + random.uniform(0.6, 1.3) * _smooth_noise(random, u.shape, 40)
    inner_v = inner_v + random.uniform(1.0, 2.0) * _smooth_noise(random, u.shape, 40)
    brain_depth, inner_angle = _depth(head, inner_u, inner_v)
    brain_depth = brain_depth - skull - head.fluid
    return _over(image, _paint_brain(random, head, inner_u, inner_v, brain_depth, inner_angle), inside)


def _paint_brain(random: Random, head: _Head, u: Plane, v: Plane, depth: Plane, angle: Plane) -> Plane:
    """White matter, the cortex and the fluid in its folds, deep nuclei and ventricles, painted in this order."""
    to_fluid = np.minimum(depth, _to_fold(random, head, u, v, depth, angle))
    to_fluid = np.minimum(to_fluid, _to_midline(random, head, u, v))
    if head.level < 0.55:
        to_fluid = np.minimum(to_fluid, _to_side_fissure(random, head, u, v))
    ribbon = random.uniform(3.5, 4.5)
    fold = random.uniform(0.3, 0.55)  # older brains have wider folds
    myelin = 1 + 0.035 * _smooth_noise(random, u.shape, 26)
    image = _T1_CONTRAST.white * myelin
    image = _over(image, _T1_CONTRAST.grey, _edge(ribbon - to_fluid, 1.3) * random.uniform(0.75, 1.0))
    for weight in _deep_nuclei(random, head, u, v):
        image = _over(image, _T1_CONTRAST.grey, weight)
    image = _over(image, _T1_CONTRAST.fluid, _edge(fold - to_fluid, 0.55) * random.uniform(0.65, 1.0))
    return _over(image, _T1_CONTRAST.fluid, _edge(-_to_ventricles(random, head, u, v), 0.7))


def _to_fold(random: Random, head: _Head, u: Plane, v: Plane, depth: Plane, angle: Plane) -> Plane:
    """Distance in pixels to the nearest fold of the cortex.

    Folds are the zero lines of a band of noise in polar coordinates, which makes them run inwards and branch.
    """
    rows, columns = 64, 256
    field = _band_noise(random, (rows, columns), (random.uniform(1.8, 2.6), random.uniform(13, 15)))
    mirrored = (field + random.uniform(0.6, 1.2) * field[:, ::-1]) / 1.3  # the halves are alike, not equal
    bend = _smooth_noise(random, u.shape, 28)
    column = (angle + math.pi / 2) / (2 * math.pi) * columns + 3.0 * bend
    row = depth * (rows / 90) + 2.0 * _smooth_noise(random, u.shape, 30)
    # A ring of about 500 pixels holds about 14 waves: a value of 1 is about 5 pixels from its zero line.
    distance = np.abs(_lookup(mirrored, row, column)) * random.uniform(4.6, 5.6)
    reach = random.uniform(17, 23) * (1 + 0.40 * _smooth_noise(random, u.shape, 22))
    return distance + np.maximum(depth - reach, 0) * 0.6


def _to_midline(random: Random, head: _Head, u: Plane, v: Plane) -> Plane:
    """Distance in pixels to the cleft between the hemispheres, which the corpus callosum interrupts."""
    y = v / head.half_height
    wander = random.normal(0, 0.9) * np.sin(v * random.uniform(0.05, 0.11) + random.uniform(0, 6))
    front, back = (-0.36, 0.42) if head.level < 0.62 else (0.0, 0.02)
    bridge = np.minimum(y - (front + random.normal(0, 0.03)), back + random.normal(0, 0.03) - y)
    distance: Plane = np.abs(u - wander) + np.maximum(bridge, 0) * (head.half_height * 0.9)
    return distance


def _to_side_fissure(random: Random, head: _Head, u: Plane, v: Plane) -> Plane:
    """Distance in pixels to the fissures that cut in from both sides of a low slice."""
    a, b = head.half_width, head.half_height
    nearest: Plane = np.full(u.shape, 99, dtype=np.float32)
    for side in (-1, 1):
        y = b * random.uniform(-0.08, 0.04)
        bend = (side * a * random.uniform(0.54, 0.60), y + b * random.uniform(0.0, 0.05))
        outer = _capsule(u, v, (side * a * 0.82, y - b * 0.04), bend, 0.5, 0.7)
        island = _capsule(
            u, v, bend, (bend[0] + side * a * 0.06, bend[1] + b * random.uniform(0.14, 0.2)), 0.5, 0.1
        )
        upper = _capsule(
            u, v, bend, (bend[0] + side * a * 0.03, bend[1] - b * random.uniform(0.10, 0.16)), 0.5, 0.1
        )
        nearest = np.minimum(nearest, _melted([outer, island, upper]))
    return nearest


def _deep_nuclei(random: Random, head: _Head, u: Plane, v: Plane) -> list[Plane]:
    """Weights of the grey nuclei in a low slice: thalamus, lentiform and caudate, left and right."""
    if head.level > 0.55:
        return []
    a, b = head.half_width, head.half_height
    weights = []
    places = ((0.15, 0.12, 0.095, 0.14, 0.1), (0.35, -0.06, 0.075, 0.17, -0.30), (0.165, -0.24, 0.055, 0.085, 0.2))
    for x, y, wide, tall, turn in places:
        size = random.uniform(0.9, 1.1)
        strength = random.uniform(0.55, 0.95)
        for side in (-1, 1):
            du, dv = u - side * x * a * random.normal(1, 0.03), v - b * (y + random.normal(0, 0.008))
            cosine, sine = math.cos(side * turn), math.sin(side * turn)
            inside = 1 - np.hypot(
                (du * cosine - dv * sine) / (wide * a * size), (dv * cosine + du * sine) / (tall * b * size)
            )
            weights.append(_edge(inside * (wide * a), 1.1) * strength)
    return weights


def _to_ventricles(random: Random, head: _Head, u: Plane, v: Plane) -> Plane:
    """Distance in pixels to the ventricles, negative in them."""
    a, b = head.half_width, head.half_height
    wide = random.uniform(0.85, 1.25)  # from narrow to enlarged, all of it normal with age
    low = head.level < 0.40
    whole: Plane = np.full(u.shape, 99, dtype=np.float32)
    if low:
        whole = _capsule(u, v, (0, -0.02 * b), (0, 0.13 * b), 0.5 * wide, 1.1 * wide)
    for side in (-1, 1):
        jitter = random.normal(0, 0.010, size=4).tolist()
        horn = (side * a * (0.185 + jitter[0]), b * (-0.34 + jitter[1]))
        front = (side * a * 0.085, b * -0.15)
        rear = (side * a * (0.15 + jitter[2]), b * 0.20)
        tail = (side * a * (0.36 + jitter[3]), b * (0.46 + jitter[1]))
        strokes = [_capsule(u, v, front, horn, 1.6 * wide, 3.4 * wide)]
        if not low:
            strokes.append(_capsule(u, v, front, rear, 2.4 * wide, 4.2 * wide))
        if head.level < 0.65:
            start = (side * a * 0.27, b * 0.33) if low else rear
            strokes.append(_capsule(u, v, start, tail, 4.2 * wide, 1.4 * wide))
        whole = np.minimum(whole, _melted(strokes))
    return whole


def _draw_lesion(random: Random, head: _Head) -> _Lesion:
    """A lesion of a common kind: a ring with a dead core, a solid mass, or a diffuse one without a clear edge."""
    kind = random.choice(3, p=(0.45, 0.30, 0.25))
    angle = random.uniform(0, 2 * math.pi)
    brain = head.radius - head.scalp - head.bone - head.fluid
    radius = brain * float(np.clip(random.lognormal(math.log(0.28), 0.40), 0.09, 0.46))
    away = (brain - radius * 0.75) * math.sqrt(random.uniform(0.06, 1.0))
    centre = (
        away * math.cos(angle) * head.half_width / head.radius,
        away * math.sin(angle) * head.half_height / head.radius,
    )
    faint = random.uniform() < 0.15
    return _Lesion(
        centre=centre,
        radius=radius,
        stretch=random.uniform(0.72, 1.0),
        turn=random.uniform(0, math.pi),
        lobes=tuple((random.normal(0, 0.09), random.uniform(0, 2 * math.pi)) for _ in range(4)),
        core=random.uniform(0.45, 0.8) if kind == 0 else 0.0,
        solid=(1.0, random.uniform(0.7, 1.1), random.uniform(0.0, 0.3))[kind],
        strength=random.uniform(0.35, 0.55) if faint else random.uniform(0.75, 1.0),
        oedema=random.uniform(0.2, 1.3) * (0.5 if kind == 1 else 1.0),
        push=random.uniform(0.15, 0.55) * (0.5 if kind == 2 else 1.0),
    )


def _pushed_away(u: Plane, v: Plane, lesion: _Lesion) -> tuple[Plane, Plane]:
    """Where the tissue that now lies at each pixel lay before the lesion grew: the mass effect."""
    du, dv = u - (lesion.centre[0]), v - (lesion.centre[1])
    distance = np.hypot(du, dv) + (1e-3)
    moved = lesion.push * lesion.radius * np.exp(-((distance / (1.6 * lesion.radius)) ** 2) * 0.5)
    moved = np.minimum(moved, distance * 0.6)
    return u - du / distance * moved, v - dv / distance * moved


def _paint_lesion(random: Random, head: _Head, lesion: _Lesion, u: Plane, v: Plane, image: Plane) -> Plane:
    du, dv = u - (lesion.centre[0]), v - (lesion.centre[1])
    cosine, sine = math.cos(lesion.turn), math.sin(lesion.turn)
    x, y = du * cosine + dv * sine, (dv * cosine - du * sine) / lesion.stretch
    angle = np.arctan2(y, x)
    outline = np.ones_like(u)
    for number, (amplitude, phase) in enumerate(lesion.lobes, start=2):
        outline += amplitude * np.cos(number * angle + phase)
    ragged = _smooth_noise(random, u.shape, 13)
    depth = (outline - np.hypot(x, y) / lesion.radius) * lesion.radius + 0.9 * ragged  # pixels inside the outline
    depth_below_skin, _ = _depth(head, u, v)
    brain = _edge(depth_below_skin - head.scalp - head.bone - head.fluid - 0.5, 0.7) * lesion.strength

    # Oedema follows the white matter, so its edge is far more ragged than the lesion's own.
    spread = depth + lesion.oedema * lesion.radius * (1 + 0.35 * _smooth_noise(random, u.shape, 30))
    image = _over(image, _T1_CONTRAST.oedema, _edge(spread, 3.0) * brain * random.uniform(0.45, 0.95))
    rim = _T1_CONTRAST.oedema + (_T1_CONTRAST.rim - _T1_CONTRAST.oedema) * lesion.solid
    texture = 1 + 0.07 * _smooth_noise(random, u.shape, 8)
    softness = 0.9 if lesion.solid > 0.5 else 3.0
    image = _over(image, rim * texture, _edge(depth, softness) * brain)
    if lesion.core:
        inner = depth - (1 - lesion.core) * lesion.radius * (1 + 0.25 * ragged)
        image = _over(image, _T1_CONTRAST.core * texture, _edge(inner, 0.9) * brain)
    return image


def _scan(random: Random, image: Plane, u: Plane, v: Plane) -> npt.NDArray[np.uint8]:
    """What the scanner makes of it: bias field, noise of a magnitude image (Rician), window and level."""
    far = 120
    slope_u, slope_v, bowl = random.normal(0, 0.06), random.normal(0, 0.06), random.normal(0.04, 0.06)
    bias = 1 + slope_u * u / far + slope_v * v / far + bowl * ((u / far) ** 2 + (v / far) ** 2)
    image = np.maximum(image, 0) * bias
    level = random.uniform(0.011, 0.016)
    real = image + random.normal(0, level, size=image.shape).astype(np.float32)
    imaginary = random.normal(0, level, size=image.shape).astype(np.float32)
    image = np.hypot(real, imaginary) ** random.uniform(0.84, 0.96) * random.uniform(0.92, 1.08)
    pixels: npt.NDArray[np.uint8] = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels


def _edge(inside: Plane, softness: float) -> Plane:
    """A smooth step: 0 outside, 1 inside; `inside` is a distance in pixels, `softness` the step's width."""
    weight: Plane = np.clip(inside / (2.4 * softness) + 0.5, 0, 1)
    return weight


def _bump(x: Plane) -> Plane:
    height: Plane = np.exp(-(x**2))
    return height


def _over(below: Plane, value: float | Plane, weight: Plane) -> Plane:
    """Paint `value` over `below`, as opaque as `weight` (0 to 1) says."""
    return below + (value - below) * weight


def _capsule(
    u: Plane, v: Plane, start: tuple[float, float], end: tuple[float, float], first: float, last: float
) -> Plane:
    """Distance in pixels to a stroke from `start` to `end` whose radius goes from `first` to `last`."""
    along_u, along_v = end[0] - start[0], end[1] - start[1]
    part = ((u - start[0]) * along_u + (v - start[1]) * along_v) / (along_u**2 + along_v**2)
    part = np.clip(part, 0, 1)
    return np.hypot(u - start[0] - part * along_u, v - start[1] - part * along_v) - (first + (last - first) * part)


def _melted(distances: list[Plane]) -> Plane:
    """The union of strokes with their joints rounded, as a distance in pixels."""
    whole = distances[0]
    for other in distances[1:]:
        near = np.clip(1 - np.abs(whole - other) / 7, 0, 1)
        whole = np.minimum(whole, other) - near**2 * (7 / 4)
    return whole


def _smooth_noise(random: Random, shape: tuple[int, ...], wavelength: float) -> Plane:
    """Noise of mean 0 and deviation about 1 whose features are about `wavelength` pixels wide; float32 `shape`."""
    rows, columns = (math.ceil(side / wavelength * 2) + 3 for side in shape)
    coarse = Image.fromarray(random.normal(0, 1.25, size=(rows, columns)).astype(np.float32))
    grown = coarse.resize(
        (math.ceil(columns * wavelength / 2), math.ceil(rows * wavelength / 2)), Image.Resampling.BICUBIC
    )
    return np.asarray(grown, dtype=np.float32)[: shape[0], : shape[1]]


def _band_noise(random: Random, shape: tuple[int, int], waves: tuple[float, float]) -> Plane:
    """Periodic noise of deviation 1 with about `waves` waves down and across; float32 `shape`."""
    spectrum = np.fft.rfft2(random.normal(size=shape))
    down = np.abs(np.fft.fftfreq(shape[0], 1 / shape[0]))[:, None]
    across = np.fft.rfftfreq(shape[1], 1 / shape[1])[None, :]
    spectrum *= np.exp(-((down / waves[0]) ** 2)) * np.exp(-(((across - waves[1]) / (0.35 * waves[1])) ** 2))
    noise = np.fft.irfft2(spectrum, s=shape)
    even: Plane = (noise / noise.std()).astype(np.float32)
    return even


def _lookup(field: Plane, row: Plane, column: Plane) -> Plane:
    """`field` at fractional places, bilinear; columns go round, rows end at the edges."""
    rows, columns = field.shape
    row = np.clip(row, 0, rows - 1.001)
    top, left = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)
    down, across = row - top, column - left
    left %= columns
    right = (left + 1) % columns
    upper = field[top, left] * (1 - across) + field[top, right] * across
    lower = field[top + 1, left] * (1 - across) + field[top + 1, right] * across
    found: Plane = (upper * (1 - down) + lower * down).astype(np.float32)
    return found
