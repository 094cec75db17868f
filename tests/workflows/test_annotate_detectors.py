"""Detectors that look at pixels, and the stage that gives frames their persons."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from modeling.errors import ConfigError, WeightsError
from workflows.annotate.detector import Detections, DetectorConfig, HogConfig, SceneFrame, load_detector
from workflows.annotate.hog import HogDetector
from workflows.annotate.stage import DetectPersons
from workflows.ingest.images import encode_jpeg
from workflows.ledger import Shard
from workflows.schema import FRAMES
from workflows.stages import ShardBatch


def draw_walker(*, at_x: int, height_px: int = 160, size: tuple[int, int] = (360, 480)) -> np.ndarray:
    """A dark standing figure on a light ground, head at the top, legs apart."""
    image = np.full((*size, 3), 190, np.uint8)
    unit = height_px / 8
    top = (size[0] - height_px) // 2
    dark = (40, 40, 45)
    cv2.circle(image, (at_x, int(top + unit * 0.6)), int(unit * 0.55), dark, -1)
    cv2.ellipse(image, (at_x, int(top + unit * 2.9)), (int(unit), int(unit * 1.75)), 0, 0, 360, dark, -1)
    for side in (-1, 1):
        hip, foot = (
            (int(at_x + side * unit * 0.4), int(top + unit * 4)),
            (int(at_x + side * unit * 0.7), top + height_px),
        )
        cv2.line(image, hip, foot, dark, int(unit * 0.7))
    return cv2.GaussianBlur(image, (5, 5), 0)


def frames_table(*images: bytes | None) -> pa.Table:
    rows = [
        {
            "frame_id": f"cam/clip#{number}",
            "camera_id": "cam",
            "video_uri": "clip.mp4",
            "frame_index": number,
            "timestamp_s": number / 25,
            "width": 480,
            "height": 360,
            "modality": "rgb",
            "image": image,
            "persons": [],
        }
        for number, image in enumerate(images)
    ]
    return pa.Table.from_pylist(rows, FRAMES)


def annotate(table: pa.Table, config: DetectorConfig, **filters) -> ShardBatch:
    return DetectPersons(config, **filters)(ShardBatch(Shard("shard", {}), table))


def test_hog_finds_a_figure_and_its_box_fits_the_body():
    scene = SceneFrame("cam", "clip", 0, draw_walker(at_x=200))
    (found,) = HogDetector(HogConfig()).detect([scene])
    assert found.scores.max() > HogDetector.min_score
    left, top, right, bottom = found.boxes_xyxy_px[found.scores.argmax()]
    assert (left + right) / 2 == pytest.approx(200, abs=12)
    assert (top + bottom) / 2 == pytest.approx(180, abs=25)
    assert bottom - top == pytest.approx(160, rel=0.3)
    assert 0.25 < (right - left) / (bottom - top) < 0.5


def test_hog_reaches_smaller_persons_by_enlarging():
    scene = SceneFrame("cam", "clip", 0, draw_walker(at_x=200, height_px=64))
    small, large = (HogDetector(HogConfig(upscale=factor)).detect([scene])[0] for factor in (1.0, 2.0))
    assert len(small) == 0
    assert len(large) > 0


def test_hog_gives_nothing_for_an_empty_or_tiny_frame():
    detector = HogDetector(HogConfig())
    for shape in ((300, 300, 3), (20, 20, 3)):
        (found,) = detector.detect([SceneFrame("cam", "clip", 0, np.full(shape, 128, np.uint8))])
        assert len(found) == 0
        assert found.boxes_xyxy_px.shape == (0, 4)


def test_the_stage_numbers_persons_and_keeps_the_rest_of_the_row():
    walker = encode_jpeg(draw_walker(at_x=200), 95)
    table = frames_table(walker, encode_jpeg(np.full((360, 480, 3), 128, np.uint8), 95))
    result = annotate(table, DetectorConfig())
    assert result.table.schema.equals(FRAMES)
    assert result.table.drop_columns("persons").equals(table.drop_columns("persons"))
    persons = result.table["persons"].to_pylist()
    assert [person["person_id"] for person in persons[0]] == [f"cam/clip#0/{k}" for k in range(len(persons[0]))]
    scores = [person["score"] for person in persons[0]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= HogDetector.min_score
    assert persons[1] == []
    assert result.drops["person_overlaps_a_surer_one"] > 0


def test_a_higher_min_score_drops_what_the_detectors_default_keeps():
    table = frames_table(encode_jpeg(draw_walker(at_x=200), 95))
    result = annotate(table, DetectorConfig(), min_score=50.0)
    assert result.table["persons"].to_pylist() == [[]]
    assert set(result.drops) == {"person_score_too_low"}


def test_a_row_without_a_usable_image_is_set_aside_and_the_rest_goes_on():
    walker = encode_jpeg(draw_walker(at_x=200), 95)
    result = annotate(frames_table(None, walker, b"no jpeg", walker), DetectorConfig(batch_frames=2))
    assert result.table["frame_id"].to_pylist() == ["cam/clip#1", "cam/clip#3"]
    first, second = result.table["persons"].to_pylist()
    assert [person["score"] for person in first] == [person["score"] for person in second]
    assert [(row.row_id, row.reason) for row in result.quarantine] == [
        ("cam/clip#0", "null_image"),
        ("cam/clip#2", "bad_image"),
    ]


def test_no_rows_keep_their_columns():
    assert annotate(frames_table(), DetectorConfig()).table.schema.equals(FRAMES)


def test_detections_of_a_file_need_no_pixels(tmp_path):
    path = tmp_path / "clip.txt"
    path.write_text("1,-1,10,20,40,100,0.9\n2,5,10,20,40,100,0.9\n")
    result = annotate(frames_table(None, None, None), DetectorConfig(detections=str(path)))
    persons = result.table["persons"].to_pylist()
    assert [[person["track_id"] for person in some] for some in persons] == [[None], ["5"], []]
    assert persons[0][0]["box_xyxy_px"] == [10, 20, 50, 120]


@pytest.fixture(scope="module")
def yolos(tmp_path_factory) -> Path:
    """A tiny detector with random weights, saved as transformers saves any."""
    torch = pytest.importorskip("torch")
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("yolos")
    config = YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=37,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=30,
        id2label={0: "person", 1: "bicycle"},
        label2id={"person": 0, "bicycle": 1},
    )
    model = YolosForObjectDetection(config)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(folder)
    YolosImageProcessor(size={"height": 64, "width": 96}).save_pretrained(folder)
    return folder


def reference_detections(folder: Path, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and probabilities of class 0, from the raw logits by hand."""
    import torch
    from transformers import AutoImageProcessor, YolosForObjectDetection

    model = YolosForObjectDetection.from_pretrained(folder).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(images=image, return_tensors="pt")
    with torch.inference_mode():
        output = model(pixel_values=pixels["pixel_values"])
    probability = output.logits[0].softmax(-1)[:, :-1]
    is_person = (probability.argmax(-1) == 0) & (probability[:, 0] > 0.05)
    center_x, center_y, width, height = output.pred_boxes[0].unbind(-1)
    boxes = torch.stack([center_x - width / 2, center_y - height / 2, center_x + width / 2, center_y + height / 2], -1)
    scale = torch.tensor([image.shape[1], image.shape[0]] * 2)
    return (boxes * scale)[is_person].numpy(), probability[is_person, 0].numpy()


def test_a_transformers_checkpoint_gives_its_persons_in_frame_pixels(yolos):
    detector = load_detector(DetectorConfig(name=str(yolos)))
    images = [draw_walker(at_x=x, size=size) for x, size in ((100, (360, 480)), (60, (240, 200)))]
    found = detector.detect([SceneFrame("cam", "clip", k, image) for k, image in enumerate(images)])
    assert any(len(one) for one in found)
    for image, detections in zip(images, found, strict=True):
        boxes, scores = reference_detections(yolos, image)
        np.testing.assert_allclose(detections.boxes_xyxy_px, boxes, atol=0.1)
        np.testing.assert_allclose(detections.scores, scores, atol=1e-4)
    assert detector.min_score == 0.5


def test_a_checkpoint_without_persons_is_refused(yolos, tmp_path):
    from transformers import AutoImageProcessor, YolosForObjectDetection

    model = YolosForObjectDetection.from_pretrained(yolos)
    model.config.id2label, model.config.label2id = {0: "cat", 1: "dog"}, {"cat": 0, "dog": 1}
    model.save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(yolos).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"has no class called .*person.*; its first are cat, dog"):
        load_detector(DetectorConfig(name=str(tmp_path)))


def test_a_folder_that_is_no_checkpoint_is_refused_without_the_network(tmp_path):
    with pytest.raises(WeightsError, match="the folder cannot be loaded as an object-detection checkpoint"):
        load_detector(DetectorConfig(name=str(tmp_path)))


def test_a_device_that_is_not_there_is_refused(yolos):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="no CUDA GPU"):
        load_detector(DetectorConfig(name=str(yolos), device="cuda"))


def test_no_detector_finds_nobody():
    (found,) = load_detector(DetectorConfig(name="none")).detect([SceneFrame("cam", "clip", 0, None)])
    assert isinstance(found, Detections)
    assert len(found) == 0
