"""What the keys and values of each slot hold, and which slot a request gets. No IO.

The chain keeps the order of what is sent, so a slot holds the tokens that were last sent to its positions, also after
their request is over: another request can begin behind the tokens that it shares with a slot.
"""

_FAR = 4  # so many idle slots between two sequences cost a call of their own, however many more, where not `ragged`


class Slots:
    """`count` slots, cut into lanes of neighbours."""

    def __init__(self, count: int, lanes: int, *, ragged: bool = False) -> None:
        """ragged: it does not matter to a step how far its slots are from each other."""
        self.count, self.lanes, self._ragged = count, lanes, ragged
        self.held: list[list[int]] = [[] for _ in range(count)]  # tokens by position
        self._taken = [False] * count
        self._load = [0] * lanes
        self._freed = [0] * count  # when, in releases; 0: never used
        self._releases = 0

    @property
    def full(self) -> bool:
        """Whether a request that comes must wait."""
        return all(self._taken)

    def lane(self, slot: int) -> int:
        return slot * self.lanes // self.count

    def take(self, tokens: list[int]) -> int | None:
        """A slot for a sequence that begins with `tokens`, or None where all are taken.

        Lanes stay even. A lane's sequences stay close together where idle slots between them are computed too. Then a
        slot is best that loses nothing it holds, the one with most in common first; else the one unused for longest.
        """
        free = [slot for slot in range(self.count) if not self._taken[slot]]
        if not free:
            return None
        least = min(self._load[self.lane(slot)] for slot in free)
        even = [slot for slot in free if self._load[self.lane(slot)] == least]
        slot = min(even, key=lambda slot: self._rank(slot, tokens))
        self._taken[slot] = True
        self._load[self.lane(slot)] += 1
        return slot

    def release(self, slot: int) -> None:
        """Its sequence is over; what it holds stays until another takes it."""
        self._taken[slot] = False
        self._load[self.lane(slot)] -= 1
        self._releases += 1
        self._freed[slot] = self._releases

    def write(self, slot: int, position: int, tokens: list[int]) -> None:
        """`tokens` were sent to `position` and what follows."""
        held = self.held[slot]
        assert position <= len(held), "a position was left out"
        held[position:] = tokens

    def shared(self, slot: int, tokens: list[int]) -> int:
        """How many leading tokens a slot has in common with `tokens`."""
        return common_prefix(self.held[slot], tokens)

    def source(self, tokens: list[int], *, besides: int) -> tuple[int, int]:
        """The slot with most leading tokens in common, and how many; `besides` is not asked."""
        found = ((self.shared(slot, tokens), -slot) for slot in range(self.count) if slot != besides)
        shared, negative = max(found, default=(0, 0))
        return -negative, shared

    def forget(self, slot: int) -> None:
        """What it holds is unknown."""
        self.held[slot].clear()

    def _rank(self, slot: int, tokens: list[int]) -> tuple[int, bool, int, int, int]:
        shared = self.shared(slot, tokens)
        loses = shared < len(self.held[slot])
        return self._distance(slot), loses, 0 if loses else -shared, self._freed[slot], slot

    def _distance(self, slot: int) -> int:
        """To the nearest taken slot of its lane, at most `_FAR`; 0 where the lane is empty, or it does not matter."""
        lane = self.lane(slot)
        if self._ragged or not self._load[lane]:
            return 0
        taken = (other for other in range(self.count) if self._taken[other] and self.lane(other) == lane)
        return min(_FAR, min(abs(slot - other) for other in taken))


def common_prefix(a: list[int], b: list[int]) -> int:
    """The length of the longest common beginning; compares slices, halving, as those compare fast."""
    low, high = 0, min(len(a), len(b))
    if high == 0 or a[0] != b[0]:
        return 0
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
