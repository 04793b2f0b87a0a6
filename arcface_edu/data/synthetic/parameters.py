"""The numbers that make a drawn face: some ninety of a person, fixed for life, and some thirty of each photograph.

Lengths: 1 is half a crop, 56 pixels, about 10 cm of a real head; the crop is [-1, 1] x [-1, 1], y runs down.
"""

from types import SimpleNamespace

import numpy as np
import torch

# name: (lowest, highest, meaning), or (lowest, highest, chance, meaning) where only so many people have it, others 0
PERSON: dict[str, tuple] = {
    # skull
    "skull_width": (0.63, 0.77, "half width of the head at the temples"),
    "cheek_width": (0.61, 0.76, "half width at the cheekbones"),
    "jaw_width": (0.50, 0.70, "half width at the angle of the jaw"),
    "jaw_level": (0.52, 0.78, "height of that angle, y"),
    "chin_width": (0.32, 0.54, "half width just above the chin"),
    "chin_level": (1.00, 1.18, "lower end of the chin, y"),
    "chin_square": (3.2, 7.5, "exponent of its curve: pointed to square"),
    "chin_boss": (0.00, 0.16, "how far the chin stands out"),
    "chin_cleft": (0.4, 1.0, 0.15, "a dimple in it"),
    "cheekbone": (0.00, 0.13, "how far the cheekbones stand out"),
    "cheek_fill": (-0.10, 0.09, "hollow to plump cheeks"),
    "brow_ridge": (0.00, 0.12, "ridge over the eyes"),
    "lean": (-0.05, 0.05, "sideways drift from brow to chin: nobody is symmetric"),
    "eye_skew": (-0.06, 0.06, "one eye higher than the other, slope"),
    # eyes
    "eye_apart": (0.275, 0.355, "half the distance between the pupils"),
    "eye_level": (-0.12, -0.04, "height of the pupils, y"),
    "eye_width": (0.120, 0.178, "half width of the opening"),
    "eye_open": (0.032, 0.062, "half height of the opening"),
    "eye_tilt": (-0.16, 0.26, "slope: outer corner low to high"),
    "eye_peak": (-0.45, 0.45, "where the upper lid is highest: inner to outer side"),
    "eye_depth": (0.02, 0.14, "depth of the sockets"),
    "lid_fold": (0.0, 1.0, "strength of the crease above the eye: monolid to deep"),
    "lid_height": (0.025, 0.065, "distance of that crease from the lashes"),
    "lashes": (0.35, 1.0, "darkness of the lash line"),
    "eye_bag": (0.0, 1.0, "fold and shade under the eye"),
    "iris_size": (0.056, 0.070, "radius of the iris"),
    "iris_melanin": (0.0, 1.0, "light to black eyes"),
    "iris_green": (0.0, 1.0, "blue to green, grey to hazel"),
    # brows
    "brow_level": (0.135, 0.250, "height of the brows above the pupils"),
    "brow_thick": (0.016, 0.052, "half thickness"),
    "brow_arch": (-0.01, 0.075, "height of the arch"),
    "brow_tilt": (-0.22, 0.22, "slope: outer end low to high"),
    "brow_length": (0.14, 0.21, "half length"),
    "brow_shift": (-0.03, 0.04, "brow centre inward to outward of the pupil"),
    "brow_dense": (0.35, 1.0, "thin to dense hair"),
    "monobrow": (0.3, 0.9, 0.06, "hair between the brows"),
    # nose
    "nose_level": (0.20, 0.345, "height of the tip, y"),
    "nose_width": (0.095, 0.185, "half distance of the wings"),
    "nose_bridge": (0.045, 0.095, "half width of the bridge"),
    "nose_root": (0.01, 0.12, "height of the bridge between the eyes"),
    "nose_height": (0.14, 0.30, "height of the tip"),
    "nose_hump": (-0.03, 0.05, "saddle to hump half way"),
    "nose_tip": (0.060, 0.115, "half width of the tip"),
    "nose_wing": (0.03, 0.12, "roundness of the wings"),
    "nostrils": (0.35, 1.0, "how much of the nostrils shows"),
    # mouth
    "mouth_level": (0.595, 0.705, "height of the line between the lips, y"),
    "mouth_width": (0.195, 0.315, "half width"),
    "lip_upper": (0.026, 0.088, "height of the upper lip"),
    "lip_lower": (0.042, 0.120, "height of the lower lip"),
    "lip_bow": (0.0, 0.035, "depth of the cupid's bow"),
    "lip_curve": (-0.020, 0.030, "corners low to high"),
    "lip_full": (0.03, 0.13, "how far the lips stand out"),
    "lip_red": (0.0, 1.0, "skin-coloured to red"),
    # ears
    "ear_size": (0.16, 0.27, "half height"),
    "ear_out": (0.02, 0.13, "how far they stand off"),
    "ear_level": (-0.02, 0.14, "height of their middle, y"),
    # skin
    "melanin": (0.0, 1.0, "lightest to darkest skin"),
    "undertone": (-1.0, 1.0, "rosy to olive"),
    "ruddy": (0.0, 1.0, "blood in cheeks and nose"),
    "freckles": (0.4, 1.0, 0.18, "freckles"),
    "moles": (1.0, 4.99, 0.4, "number of moles, rounded down"),
    "scar": (0.5, 1.0, 0.07, "a scar"),
    "rough": (0.1, 1.0, "smooth to coarse skin"),
    "oily": (0.1, 0.6, "matt to shining skin"),
    "age": (18.0, 82.0, "years: lines, folds, grey hair"),
    # hair
    "hair_melanin": (0.0, 1.0, "blond to black"),
    "hair_red": (0.0, 1.0, "ash to red"),
    "grey_early": (-18.0, 12.0, "years by which hair greys early"),
    "hairline": (-0.84, -0.56, "height of the hairline, y"),
    "receding": (0.0, 0.16, "bays at the temples"),
    "widows_peak": (0.03, 0.09, 0.2, "point in the middle of the hairline"),
    "parting": (-0.55, 0.55, "where the hair parts, x"),
    "fringe": (0.10, 0.36, 0.35, "hair falling over the forehead"),
    "hair_top": (0.04, 0.30, "volume on top"),
    "hair_side": (0.01, 0.20, "volume at the sides"),
    "hair_length": (-0.25, 1.60, "how far down it hangs, y"),
    "curl": (0.0, 1.0, "straight to coiled"),
    "bald": (0.6, 1.0, 0.10, "baldness on top"),
    # beard
    "moustache": (0.3, 1.0, 0.16, "hair on the upper lip"),
    "goatee": (0.3, 1.0, 0.14, "hair on the chin"),
    "beard": (0.3, 1.0, 0.16, "hair along the jaw, too"),
    "stubble": (0.2, 0.9, 0.25, "a shadow of a beard"),
    # glasses
    "glasses": (0.6, 0.95, 0.22, "share of the photographs with glasses on"),
    "frame_width": (0.19, 0.27, "half width of a lens"),
    "frame_height": (0.12, 0.21, "half height of a lens"),
    "frame_round": (2.0, 7.0, "exponent of its outline: round to square"),
    "frame_thick": (0.009, 0.026, "half thickness of the rim"),
    "frame_light": (0.0, 1.0, "black to metal or horn"),
}

# name: (spread, kind, meaning). "bell" is normal with that standard deviation, "even" uniform in [0, spread], "chance"
# is 1 with that probability, else 0. Difficulty multiplies the spread: 0 leaves a passport photograph, 2 is hard.
PHOTOGRAPH: dict[str, tuple[float, str, str]] = {
    "yaw": (17.0, "bell", "turn of the head, degrees (cut at 36)"),
    "pitch": (9.0, "bell", "nod, degrees"),
    "jitter_x": (0.038, "bell", "error of the detector's crop"),
    "jitter_y": (0.038, "bell", "the same, downward"),
    "jitter_roll": (2.0, "bell", "the same, degrees"),
    "jitter_size": (0.03, "bell", "the same, logarithm of the scale"),
    "nearness": (0.22, "even", "perspective: far away to arm's length"),
    "smile": (0.75, "bell", "corners of the mouth"),
    "mouth_open": (0.12, "even", "gap between the lips (most photographs: much less)"),
    "lids": (0.16, "bell", "logarithm of how wide the eyes are open"),
    "brows": (0.022, "bell", "raised brows"),
    "gaze_x": (0.022, "bell", "iris from the centre"),
    "gaze_y": (0.009, "bell", "the same, downward"),
    "light_x": (1.05, "bell", "key light from the left or the right, tangent"),
    "light_y": (0.45, "bell", "key light from below or above its usual place, tangent"),
    "contrast": (0.55, "bell", "logarithm of key light over fill light"),
    "dapple": (0.7, "even", "uneven key light: the shade of leaves, a window's bars"),
    "warmth": (0.17, "bell", "key light blue or orange, logarithm"),
    "fill_warmth": (0.15, "bell", "fill light, the same"),
    "tint": (0.07, "bell", "white balance green or magenta, logarithm"),
    "exposure": (0.30, "bell", "logarithm of the brightness"),
    "gamma": (0.12, "bell", "logarithm of the tone curve's exponent"),
    "saturation": (0.16, "bell", "logarithm"),
    "blur": (1.5, "even", "width of the blur in pixels"),
    "grain": (0.035, "even", "noise of the sensor"),
    "hair_sway": (0.03, "bell", "how the hair falls today"),
    "occluded": (0.14, "chance", "something in front of the face"),
}


def make_person(seed: int, person: int) -> SimpleNamespace:
    """Return identity number `person` of the population `seed`: a number for each name of PERSON."""
    rng = np.random.default_rng([seed, person])
    p = {}
    for name, (low, high, *chance, _) in PERSON.items():
        value, lucky = rng.uniform(low, high), rng.random()
        p[name] = value if not chance or lucky < chance[0] else 0.0
    p["age"] -= 0.8 * (p["age"] - 18) * rng.random()  # fewer old than young
    p["frame_light"] **= 2
    woman = rng.random() < 0.5
    p["hair_melanin"] = min(1.0, max(p["hair_melanin"], 1.4 * p["melanin"] - 0.1))
    p["iris_melanin"] = min(1.0, max(p["iris_melanin"], 1.5 * p["melanin"]))
    p["hair_red"] *= max(0.0, 1 - 1.3 * p["melanin"])
    p["freckles"] *= p["melanin"] < 0.5
    if woman:
        p.update(beard=0.0, moustache=0.0, goatee=0.0, stubble=0.0, bald=0.0, receding=0.2 * p["receding"])
        p["jaw_width"] -= 0.03
    else:
        p["lip_red"] *= 0.35
        p["brow_thick"] *= 1.1
        if rng.random() < 0.85:
            p["hair_length"] = min(p["hair_length"], rng.uniform(-0.25, 0.1))
    if p["bald"]:
        p.update(fringe=0.0, hair_length=min(p["hair_length"], 0.1))
    return SimpleNamespace(**p)


def make_photographs(
    p: SimpleNamespace, seed: int, person: int, photos: int, difficulty: float = 1.0
) -> SimpleNamespace:
    """Return the circumstances of a person's photographs: a tensor (photos,) for each name of PHOTOGRAPH.

    Every photograph has an `rng` of its own, so number k is the same however many are drawn.
    """
    rngs = [np.random.default_rng([seed, person, 1 + k]) for k in range(photos)]
    rows = []
    for rng in rngs:
        row = {}
        for name, (spread, kind, _) in PHOTOGRAPH.items():
            bell, even = np.clip(rng.standard_normal(), -2.6, 2.6), rng.random()
            size = spread * difficulty
            row[name] = {"bell": size * bell, "even": size * even, "chance": float(even < size)}[kind]
        row["yaw"], row["pitch"] = np.clip(row["yaw"], -36, 36), np.clip(row["pitch"], -24, 24)
        row["mouth_open"] *= rng.random() ** 2
        row["blur"] *= rng.random()
        row["grain"] *= rng.random()
        row["glasses_on"] = float(rng.random() < p.glasses if difficulty else p.glasses > 0)
        rows.append(row)
    return SimpleNamespace(
        rngs=rngs, **{name: torch.tensor([row[name] for row in rows], dtype=torch.float32) for name in rows[0]}
    )
