"""How many images to draw at a time: found on the work itself, halved when memory runs out."""

from dataclasses import dataclass, field

from isekai.errors import IsekaiError

WORTH = 0.03
"""A doubled batch has to save this share of an image's time, or it isn't worth its memory."""


@dataclass(slots=True)
class Pace:
    """The batch size of one device, from 1 upwards.

    A size is doubled as long as that pays and `limit` allows it. The first batch of each size is
    not timed: that is when kernels are chosen and compiled.
    """

    limit: int
    fixed: int = 0
    """A size that was asked for: nothing is tried out; it still yields to a lack of memory."""
    size: int = field(default=0, init=False)
    _climbing: bool = field(default=True, init=False)
    _warm: set[int] = field(default_factory=set, init=False)
    _best: float = field(default=float("inf"), init=False)
    """Seconds an image at the size before."""

    def __post_init__(self) -> None:
        self.size = self.fixed or 1
        self._climbing = not self.fixed

    def took(self, images: int, seconds: float) -> None:
        """A batch was drawn. Those that are cut short by the end of the work tell nothing."""
        if not self._climbing or images != self.size:
            return
        if images not in self._warm:
            self._warm.add(images)
            return
        each = seconds / images
        if each > self._best * (1 - WORTH):
            self.size //= 2
            self._climbing = False
        elif self.size * 2 > self.limit:
            self._climbing = False
        else:
            self._best = each
            self.size *= 2

    def ran_out(self, images: int) -> str:
        """Memory ran out over so many images: go on with half; the line to tell.

        IsekaiError where there is nothing to halve.
        """
        if images == 1:
            raise IsekaiError(
                "out of memory at a single image: take a profile for a smaller card "
                "(-o memory=8g), a smaller --size, or a smaller model"
            )
        self.size = max(1, images // 2)
        self._climbing = False
        return f"out of memory at {images} images; going on with {self.size}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the processor had no memory left, however the library says it."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):  # also the parent of torch.OutOfMemoryError
        return False
    told = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or any(sign in told for sign in _SIGNS)


_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
"""CUDA and MPS, the CPU's allocator on Linux and on Windows, and two libraries that allocate."""
