"""Where a stream keeps what it will need again, without the heap growing with the clip."""

from collections.abc import Callable

from torch import Tensor

PLACES = 8  # of a block


class Shelf:
    """Copies of tensors of one shape, by number, in blocks of memory whose places are used again.

    A tensor each would come to lie among those that a window needs for a moment only. When it goes, it leaves a gap
    that the next such one may be too large for: what a process took for 200 frames was a quarter more than for 50.
    """

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []
        self.places: dict[int, int] = {}
        self.free: list[int] = []

    def __contains__(self, index: int) -> bool:
        return index in self.places

    def __getitem__(self, index: int) -> Tensor:
        """A view, good until ``index`` is let go."""
        block, row = divmod(self.places[index], PLACES)
        return self.blocks[block][row]

    def __setitem__(self, index: int, value: Tensor) -> None:
        if index not in self.places:
            if not self.free:
                start = PLACES * len(self.blocks)
                self.free = list(range(start, start + PLACES))
                self.blocks.append(value.new_empty(PLACES, *value.shape))
            self.places[index] = self.free.pop()
        self[index].copy_(value)

    def keep(self, condition: Callable[[int], bool]) -> None:
        """Lets go of what is numbered otherwise."""
        for index in [index for index in self.places if not condition(index)]:
            self.free.append(self.places.pop(index))
