"""Retrieval scores against recorded values of other evaluation code.

The recordings are not part of this repository: the tests exist only where PSREID_SHARED names a folder that has them.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from modeling.metrics.reid import MatchRule, ReidLabels, places_in_gallery
from modeling.metrics.retrieval import Labels, score_gallery, score_rankings
from tests.modeling import oracles

ORACLES = Path(os.environ["PSREID_SHARED"]) / "oracles" if os.environ.get("PSREID_SHARED") else None

if ORACLES is not None:

    @pytest.mark.parametrize("path", sorted(ORACLES.glob("rand_*.npz")), ids=lambda path: path.stem)
    def test_recorded_random_matrices(path: Path) -> None:
        case = np.load(path)
        scores = score_gallery(
            case["distmat"],
            Labels(case["q_pids"], case["q_camids"]),
            Labels(case["g_pids"], case["g_camids"]),
            max_rank=len(case["exp_cmc"]),
        )
        is_scored = ~np.isnan(scores.average_precisions)
        assert scores.num_scored == case["n_valid_queries"]
        np.testing.assert_allclose(scores.cmc, case["exp_cmc"], atol=1e-6)
        np.testing.assert_allclose(scores.average_precisions[is_scored], case["exp_AP"], atol=1e-6)
        np.testing.assert_allclose(scores.inverse_negative_penalties[is_scored], case["exp_INP"], atol=1e-6)
        assert scores.mean_ap == pytest.approx(float(case["exp_mAP"]), abs=1e-6)
        assert scores.mean_inp == pytest.approx(float(case["exp_mINP"]), abs=1e-6)

    @pytest.mark.parametrize("num_gallery", [1, 2, 7])
    @pytest.mark.parametrize("path", sorted(ORACLES.glob("rand_*.npz")), ids=lambda path: path.stem)
    def test_recorded_matrices_cut_to_a_few_images(path: Path, num_gallery: int) -> None:
        """Galleries far smaller than max_rank, ties by rounding, most queries without a match."""
        case = np.load(path)
        distances = case["distmat"][:, :num_gallery].round(1)
        queries = list(zip(case["q_pids"].tolist(), case["q_camids"].tolist(), strict=True))
        gallery = list(zip(case["g_pids"].tolist(), case["g_camids"].tolist(), strict=True))[:num_gallery]
        scores = score_gallery(
            distances,
            Labels(case["q_pids"], case["q_camids"]),
            Labels(case["g_pids"][:num_gallery], case["g_camids"][:num_gallery]),
            max_rank=50,
        )
        rankings = [oracles.ranked_matches(row, query, gallery) for row, query in zip(distances, queries, strict=True)]
        scored = [ranking for ranking in rankings if any(ranking)]
        assert scores.num_scored == len(scored)
        if scored:
            np.testing.assert_allclose(scores.cmc, oracles.cmc(scored, 50), atol=1e-12)
            expected = sum(oracles.average_precision(ranking) for ranking in scored) / len(scored)
            assert scores.mean_ap == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan(scores.cmc).all()

    @pytest.mark.parametrize("path", sorted(ORACLES.glob("rand_*.npz")), ids=lambda path: path.stem)
    def test_recorded_random_matrices_by_places(path: Path) -> None:
        case = np.load(path)
        queries, gallery = (
            ReidLabels(case[f"{side}_pids"].astype(str), case[f"{side}_camids"].astype(str), *[np.full(count, "")] * 2)
            for side, count in (("q", len(case["q_pids"])), ("g", len(case["g_pids"])))
        )
        places = places_in_gallery(case["distmat"], queries, gallery, [MatchRule()] * len(queries))
        scores = score_rankings((one.ranking() for one in places), max_rank=len(case["exp_cmc"]))
        assert scores.num_scored == case["n_valid_queries"]
        np.testing.assert_allclose(scores.cmc, case["exp_cmc"], atol=1e-6)
        assert scores.mean_ap == pytest.approx(float(case["exp_mAP"]), abs=1e-6)
        assert scores.mean_inp == pytest.approx(float(case["exp_mINP"]), abs=1e-6)

    @pytest.mark.parametrize(
        "case", json.loads((ORACLES / "openvino_cmc.json").read_text())["cases"], ids=lambda case: case["name"]
    )
    def test_recorded_hand_made_matrices(case: dict) -> None:
        scores = score_gallery(
            case["distmat"],
            Labels(np.array(case["q_pids"]), np.array(case["q_camids"])),
            Labels(np.array(case["g_pids"]), np.array(case["g_camids"])),
            max_rank=len(case["cmc"]),
        )
        np.testing.assert_allclose(scores.cmc, case["cmc"], atol=1e-6)
        assert scores.mean_ap == pytest.approx(case["mAP_torchreid"], abs=1e-6)
