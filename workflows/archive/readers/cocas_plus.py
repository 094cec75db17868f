"""COCAS+ by the lists of its benchmark: `picture clothes-template identity clothes [camera]`, as OmniReID writes them.

The template is the picture of clothes that the person asked for wears: the instruction of CTCC-ReID.
"""

from dataclasses import replace

from workflows.archive.readers.dataset import Dataset
from workflows.archive.readers.omnireid import read_lists
from workflows.archive.readers.source import Source

PUBLISHED = {"train pictures": 34_469, "train identities": 2_800}  # Real1, as the OmniReID++ paper's table I counts it


class CocasPlus:
    title = "COCAS+"
    needs = ()
    variants = ("ctcc", "attr")

    def read(self, source: Source, variant: str | None) -> Dataset:
        return replace(read_lists(source, variant or self.variants[0]), published=PUBLISHED)
