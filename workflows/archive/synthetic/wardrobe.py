"""What each set of clothes looks like on its own, and the attributes of who wears it: the WARDROBE table."""

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modeling.instruct_reid.attributes import tone_of
from workflows.archive.synthetic.config import SynthConfig
from workflows.archive.synthetic.figure import draw_upper_garment
from workflows.archive.synthetic.population import make_person, population
from workflows.archive.synthetic.taxonomy import Identity
from workflows.schema import WARDROBE

PICTURE_PX = 96
FIGURE_PX = 210  # stature at which the garment is drawn
PAPER = 246  # grey level of the background
POSTURES = {
    "swing": "walks with swinging arms", "pockets": "keeps the hands in the pockets", "phone": "looks at a phone",
}  # fmt: skip


def wardrobe_table(config: SynthConfig) -> pa.Table:
    """One row for every set of clothes of everybody in the archive."""
    rows = []
    for split, number in population(config.seed, config.split, config.identities):
        person = make_person(config.seed, split, number, config.second_clothes_share)
        for clothes, identity in enumerate(person.wardrobe):
            words = [{"name": name, "word": word} for name, word in attributes_of(identity).items()]
            ok, data = cv2.imencode(".png", garment_picture(identity)[:, :, ::-1])
            assert ok
            rows.append({
                "clothes_id": person.clothes_id(clothes), "identity": person.name, "picture": data.tobytes(),
                "attributes": words,
            })  # fmt: skip
    return pa.Table.from_pylist(rows, WARDROBE)


def garment_picture(identity: Identity) -> NDArray[np.uint8]:
    """The upper garment on light paper, a square RGB picture."""
    figure = draw_upper_garment(identity, height_px=FIGURE_PX)
    height, width = figure.alpha.shape
    scale = 0.9 * PICTURE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    alpha = cv2.resize(figure.alpha, size, interpolation=cv2.INTER_AREA)[..., None]
    cloth = cv2.resize(figure.rgb, size, interpolation=cv2.INTER_AREA)
    picture = np.full((PICTURE_PX, PICTURE_PX, 3), PAPER, np.uint8)
    top, left = (PICTURE_PX - size[1]) // 2, (PICTURE_PX - size[0]) // 2
    window = picture[top : top + size[1], left : left + size[0]]
    window[:] = np.rint(cloth * alpha + window * (1 - alpha)).astype(np.uint8)
    return picture


def attributes_of(identity: Identity) -> dict[str, str]:
    """A person's words in the taxonomy of `modeling/instruct_reid/attributes.py`; what does not apply is left out."""
    a, look = identity.attributes, identity.look
    words = {
        "gender": a.gender, "build": a.build, "hair style": a.hair_style, "hair colour": a.hair_colour,
        "upper garment": a.upper_kind, "upper colour": a.upper_colour, "pattern": a.pattern.kind,
        "lower garment": a.lower_kind, "lower colour": a.lower_colour, "shoe tone": tone_of(a.shoe_colour),
        "posture": POSTURES[look.arms],
    }  # fmt: skip
    if a.gender == "man":
        words["beard"] = "beard" if look.beard > 0 else "clean-shaven"
    if a.pattern.kind != "plain":
        words["pattern tone"] = tone_of(a.pattern.colour)
    if a.upper_kind in ("hoodie", "jacket", "puffer jacket", "coat"):
        words["fastening"] = "open" if look.is_open else "closed"
    for name, item in (("hat", a.hat), ("bag", a.bag)):
        if item.kind != "none":
            words |= {name: item.kind, f"{name} tone": tone_of(item.colour)}
    if a.glasses != "none":
        words["glasses"] = a.glasses
    if a.mask != "none":
        words["mask"] = "face mask"
    return words
