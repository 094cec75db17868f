"""The six tasks and what is asked in each (§IV-A).

Trad, CC and VI ask with a sentence from a pool that says nothing about the person; CTCC asks with a picture of clothes;
T2I and LI with a description of the person to be found.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from modeling.errors import ConfigError, DataError
from modeling.types import ImageHWC, QueryInput

T = TypeVar("T")
Task = Literal["Trad", "CC", "CTCC", "VI", "T2I", "LI"]
TASKS: tuple[Task, ...] = ("Trad", "CC", "CTCC", "VI", "T2I", "LI")
DESCRIPTIVE_TASKS: frozenset[Task] = frozenset({"CTCC", "T2I", "LI"})
"""Tasks whose instruction differs from person to person, so that two instructions can be more or less alike."""

SENTENCES: dict[Task, tuple[str, ...]] = {
    "Trad": (
        "Do not change clothes.",
        "Find the same person in the same clothes.",
        "The clothes stay as they are.",
        "Look for this person, dressed exactly like this.",
        "Keep the outfit and find the person.",
        "Same person, same clothing.",
        "Search for the person wearing what is shown here.",
        "The outfit has not changed.",
        "Retrieve pictures of this person in this outfit.",
        "Clothes and person must both agree.",
        "Find every sighting of this person on the same day.",
        "The person still wears these clothes.",
        "Use the clothing as well as the body.",
        "Nothing about the outfit differs.",
        "Show me the same person, unchanged.",
        "Match the person together with the clothes.",
        "The person has not changed clothes in between.",
        "Look for identical clothing on the same person.",
        "Find who this is, in unchanged clothes.",
        "Another camera saw the person dressed alike.",
    ),
    "CC": (
        "With clothes changed.",
        "Ignore the clothes.",
        "Find the same person in other clothes.",
        "The outfit is different now.",
        "Do not rely on what the person wears.",
        "Same person, another outfit.",
        "The person has changed clothes since.",
        "Look at the body and the face, not at the clothing.",
        "Search for this person whatever the clothes.",
        "Clothing does not count here.",
        "Retrieve this person wearing something else.",
        "Find the person on another day.",
        "Pay no attention to the outfit.",
        "The clothes will not match, the person will.",
        "Recognise the person by build, hair and gait.",
        "Somebody in different clothes, but the same person.",
        "Disregard colours and patterns of the clothing.",
        "Find who this is, dressed differently.",
        "The wardrobe has changed, the identity has not.",
        "Match the person across a change of clothes.",
    ),
    "VI": (
        "Find the person across modalities.",
        "Search between visible and infrared pictures.",
        "The picture looked for was taken by another kind of sensor.",
        "Match a colour picture with an infrared one.",
        "Same person, another spectrum.",
        "Retrieve the person from the other modality.",
        "Colours are not comparable here.",
        "Find this person in night vision, or back in daylight.",
        "Look for the same person seen by an infrared camera or a normal one.",
        "The sensor differs, the person does not.",
        "Compare shape rather than colour.",
        "One picture is in colour, the other is not.",
        "Cross from infrared to visible light, or the other way.",
        "Identify the person under the other kind of light.",
        "Ignore the difference between the two sensors.",
        "The person appears in the other spectrum.",
        "Find the counterpart of this picture in the other modality.",
        "Retrieve what a thermal or a daylight camera saw of this person.",
        "Recognise the person although the colours are lost.",
        "Match across the visible and the infrared band.",
    ),
}


@dataclass(frozen=True)
class Instruction:
    """A sentence or a picture, never both.

    Raises DataError when there is neither, or both.
    """

    text: str | None = None
    image: ImageHWC | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            raise DataError("an instruction is either a text or a picture; give exactly one of them")


def asked_of(query: QueryInput) -> tuple[ImageHWC | None, Instruction]:
    """The picture and the instruction that a query puts to an instruct-ReID model (§IV-A).

    Without a task a text alone asks as T2I, both together as LI, a picture alone as Trad. Raises DataError when the
    query lacks what its task needs, and ConfigError when there is no such task.
    """
    image, words = query.image, (query.instruction or query.text or "").strip()
    if query.task is None:
        if query.clothes is not None:
            return image, Instruction(image=query.clothes)
        return image, described(words)
    task = named_task(query.task)
    if task == "T2I":
        return None, Instruction(text=_given(words, query, task, "a text that describes the person"))
    _given(image is not None, query, task, "a picture of the person")
    if task == "LI":
        return image, Instruction(text=_given(words, query, task, "a text that says how the person is dressed"))
    if task == "CTCC":
        _given(query.clothes is not None, query, task, "a picture of the clothes (instruction_image, or --clothes)")
        return image, Instruction(image=query.clothes)
    return image, Instruction(text=query.instruction) if query.instruction else fixed_sentence(task)


def described(text: str | None) -> Instruction:
    """What a query without a task asks: its description, or the person as the picture shows it."""
    return Instruction(text=text) if text else fixed_sentence("Trad")


def _given(value: T, query: QueryInput, task: Task, what: str) -> T:
    if not value:
        raise DataError(f"query {query.query_id!r} asks as {task} and lacks {what}")
    return value


def named_task(name: str) -> Task:
    """The task of this name, whatever its case. Raises ConfigError naming the six."""
    for task in TASKS:
        if task.lower() == name.lower():
            return task
    raise ConfigError(f"there is no task {name!r}; the tasks are {', '.join(TASKS)}")


def draw_sentence(task: Task, rng: np.random.Generator) -> Instruction:
    """One of the task's sentences, as training does it."""
    return Instruction(text=_pool(task)[int(rng.integers(len(_pool(task))))])


def fixed_sentence(task: Task) -> Instruction:
    """The same sentence of the task every time, as evaluation and search do it."""
    return Instruction(text=_pool(task)[0])


def _pool(task: Task) -> tuple[str, ...]:
    if task not in SENTENCES:
        raise DataError(f"{task} has no sentences of its own: it asks with a description or a picture of clothes")
    return SENTENCES[task]
