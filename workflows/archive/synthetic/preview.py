"""A contact sheet of an archive: what its cameras see, and who walks there, with the words for them."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from workflows.archive.synthetic.config import SynthConfig
from workflows.archive.synthetic.description import describe
from workflows.archive.synthetic.figure import Light, Pose, draw_person
from workflows.archive.synthetic.population import make_person, population, stream
from workflows.archive.synthetic.scene import PersonTruth
from workflows.archive.synthetic.stretch import film_frame, frames_of_camera, open_camera

SHEET_WIDTH, MARGIN, GAP = 1600, 40, 16
PAPER, INK, SOFT = (246, 244, 240), (40, 40, 44), (120, 118, 114)
HEADINGS_DEG = (20.0, 90.0, 180.0)
MOST_CAMERAS, MOST_PEOPLE = 8, 24


def paint_preview(config: SynthConfig) -> bytes:
    """A PNG: cameras on top with the persons outlined, portraits of the people below."""
    views = [_camera_view(config, number) for number in range(min(config.cameras, MOST_CAMERAS))]
    people = population(config.seed, config.split, config.identities)[:MOST_PEOPLE]
    cards = [_card(config, split, number) for split, number in people]
    columns = 2 if len(views) <= 4 else 4
    width = (SHEET_WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    height = width * config.height // config.width
    rows = -(-len(views) // columns)
    card_columns = (SHEET_WIDTH - 2 * MARGIN + GAP) // (cards[0].width + GAP)
    card_rows = -(-len(cards) // card_columns)
    top = 150
    people_top = top + rows * (height + 44) + 60
    sheet = Image.new("RGB", (SHEET_WIDTH, people_top + card_rows * (cards[0].height + GAP) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 40), "Synthetic archive", INK, font=ImageFont.load_default(44))
    facts = f"seed {config.seed} · {config.cameras} cameras · {config.frames} frames · {config.identities} identities"
    draw.text((MARGIN, 98), facts, SOFT, font=ImageFont.load_default(22))
    for place, (title, picture) in enumerate(views):
        x, y = MARGIN + place % columns * (width + GAP), top + place // columns * (height + 44)
        sheet.paste(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS), (x, y))
        draw.text((x + 2, y + height + 6), title, SOFT, font=ImageFont.load_default(18))
    draw.text((MARGIN, people_top - 44), "Who walks here", INK, font=ImageFont.load_default(28))
    for place, card in enumerate(cards):
        sheet.paste(
            card,
            (
                MARGIN + place % card_columns * (card.width + GAP),
                people_top + place // card_columns * (card.height + GAP),
            ),
        )
    return _png(sheet)


def _camera_view(config: SynthConfig, number: int) -> tuple[str, NDArray[np.uint8]]:
    """The camera's busiest moment out of a few, persons outlined in their own colour."""
    total = frames_of_camera(config, number)
    moments = np.unique(np.linspace(0, total - 1, 7).astype(int))
    filmed = max((film_frame(config, number, int(index)) for index in moments), key=lambda f: len(f.seen))
    picture = filmed.image.copy()
    for track, truth in filmed.seen:
        _outline(picture, truth, _colour_of(track.person[1]))
    camera = open_camera(config, number)[0].camera
    return f"{camera.camera_id} · {camera.setting}" + (" · infrared" if camera.sensor.is_infrared else ""), picture


def _outline(picture: NDArray[np.uint8], truth: PersonTruth, colour: tuple[int, int, int]) -> None:
    contours, _ = cv2.findContours(truth.mask_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, colour, 1, cv2.LINE_AA)


def _colour_of(number: int) -> tuple[int, int, int]:
    hue = np.array([[[int(number * 0.618034 * 180) % 180, 170, 255]]], np.uint8)
    red, green, blue = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0]
    return int(red), int(green), int(blue)


def _card(config: SynthConfig, split: str, number: int) -> Image.Image:
    """Three views of a person, name and description."""
    person = make_person(config.seed, split, number, config.second_clothes_share)
    card = Image.new("RGB", (368, 318), (255, 255, 255))
    draw = ImageDraw.Draw(card)
    for place, heading in enumerate(HEADINGS_DEG):
        pose = Pose(phase=0.08 + 0.21 * place, heading_deg=heading, elevation_deg=10)
        figure = draw_person(person.wardrobe[0], pose, height_px=205, light=Light(sun=0.45, sky=0.6))
        tint = _colour_of(number) if place == 0 else None
        x, y = 62 + 122 * place, 226
        draw.ellipse((x - 40, y - 10, x + 40, y + 10), fill=(232, 230, 226))
        alpha = Image.fromarray((figure.alpha * 255).astype(np.uint8))
        card.paste(
            Image.fromarray(figure.rgb), (round(x - figure.foot_xy_px[0]), round(y - figure.foot_xy_px[1])), alpha
        )
        if tint:
            draw.rectangle((0, 0, 5, card.height), fill=tint)
    draw.text((16, 242), person.name, INK, font=ImageFont.load_default(17))
    words = describe(person.wardrobe[0], stream("words", config.seed, split, number))
    for line_number, line in enumerate(_wrapped(words, 56)[:3]):
        draw.text((16, 264 + 16 * line_number), line, SOFT, font=ImageFont.load_default(13))
    return card


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _png(sheet: Image.Image) -> bytes:
    ok, data = cv2.imencode(".png", np.asarray(sheet)[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 7])
    assert ok
    return data.tobytes()
