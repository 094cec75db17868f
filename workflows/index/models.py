"""Models by name, loaded where they are used. The only place in index and search that imports them.

torch, transformers and peft take seconds to import; the driver, which may only have to say that a step is complete,
never needs them. Each function is picklable and runs in a worker.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from workflows.tracking.registry import local_model

if TYPE_CHECKING:
    from modeling.instruct_reid.judge import CosineJudge
    from modeling.ps_reid.judge import Judge
    from modeling.ps_reid.person_encoder import PersonEncoder
    from modeling.ps_reid.segmenter import Segmenter


@lru_cache(maxsize=8)
def identity_of_model(model: str) -> str:
    """Changes with the model's weights and config. Read once a process: large weights take seconds to hash."""
    from modeling.ps_reid.folder import model_identity

    return model_identity(local_model(model))


def is_instruct_reid(model: str) -> bool:
    """Whether a model is instruct-ReID (IRM or IRM++), which judges no pairs."""
    from modeling.ps_reid.folder import model_family, model_folder

    return model_family(model_folder(local_model(model))) == "instruct_reid"


def knows_tasks(model: str) -> bool:
    """Whether queries to a model's person encoder carry instructions: it is instruct-ReID, or measures by such one."""
    from modeling.ps_reid.folder import metric_model

    return is_instruct_reid(model) or metric_model(local_model(model)) is not None


def load_person_encoder(model: str, *, device: str) -> "PersonEncoder":
    """PS-ReID's own encoder, or an IRM++ whose gallery features know no task."""
    from modeling.ps_reid import person_encoder

    model = local_model(model)
    if is_instruct_reid(model):
        from modeling.instruct_reid.encoder import load_irm_encoder

        return load_irm_encoder(model, device=device)
    return person_encoder.load_person_encoder(model, device=device)


def load_judge(model: str, *, attention: str | None, threshold: float, device: str, dtype: str) -> "Judge":
    from modeling.ps_reid.judge import Judge

    folder = local_model(model)
    return Judge.load(folder, attention=attention, threshold=threshold, device=device, dtype=dtype)  # type: ignore[arg-type]


def load_cosine_judge(model: str, *, threshold: float, device: str) -> "CosineJudge":
    """The encoder of an index as the judge of its shortlist."""
    from modeling.instruct_reid.judge import CosineJudge

    return CosineJudge(load_person_encoder(model, device=device), threshold=threshold)


def load_segmenter(model: str, *, device: str) -> "Segmenter":
    from modeling.ps_reid.segmenter import Segmenter

    return Segmenter.load(local_model(model), device=device)
