"""What is exported, as every format is handed it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isekai.types import EncodedImage

if TYPE_CHECKING:
    from isekai.runs import Run

Files = Mapping[str, Callable[[], bytes]]
"""Path below the export's folder, `/`-separated -> what makes its bytes when its turn comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run, of which only what is wanted is left, and how it is to be written."""

    run: "Run"
    models: tuple[str, ...]
    image: Callable[[str], EncodedImage]
    """Fetches a picture by its id; the dataset is opened at the first one."""
    images: bool
    """Whether logs hold pictures."""
    hub_dataset: str
    """The id that the dataset has on the Hub; empty if it was not given."""
    finished: str
    """When the run was finished: ISO 8601, UTC."""
