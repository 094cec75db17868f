"""Every format by the name that `psreid import` knows it by."""

from workflows.archive.readers.cocas_plus import CocasPlus
from workflows.archive.readers.coco import Coco
from workflows.archive.readers.cuhk03 import Cuhk03
from workflows.archive.readers.cuhk_pedes import CuhkPedes
from workflows.archive.readers.cuhk_sysu import CuhkSysu
from workflows.archive.readers.dataset import Reader
from workflows.archive.readers.llcm import Llcm
from workflows.archive.readers.ltcc import Ltcc
from workflows.archive.readers.market1501 import Market1501
from workflows.archive.readers.mot import Mot
from workflows.archive.readers.msmt17 import Msmt17
from workflows.archive.readers.omnireid import OmniReid
from workflows.archive.readers.prcc import Prcc
from workflows.archive.readers.prw import Prw
from workflows.archive.readers.vc_clothes import VcClothes

READERS: dict[str, Reader] = {
    "market1501": Market1501(),
    "msmt17": Msmt17(),
    "cuhk03": Cuhk03(),
    "cuhk-sysu": CuhkSysu(),
    "prw": Prw(),
    "ltcc": Ltcc(),
    "prcc": Prcc(),
    "vc-clothes": VcClothes(),
    "llcm": Llcm(),
    "cuhk-pedes": CuhkPedes(),
    "cocas-plus": CocasPlus(),
    "omnireid": OmniReid(),
    "coco": Coco(),
    "mot": Mot(),
}
