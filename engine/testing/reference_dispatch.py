"""The address map again, in plain Python and as slow as can be: what the dispatcher is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from engine._dispatch import (
    HIT_OK,
    HIT_REFUSED,
    HIT_STRADDLE,
    HIT_UNCLAIMED,
    NON_SMM_ONLY,
    SMM_ONLY,
)


@dataclass(frozen=True, slots=True)
class Mapped:
    """One range of the map; `region` None makes it a hole."""

    handle: int
    space: int
    base: int
    last: int
    region: int | None
    priority: int = 0
    flags: int = 0
    owner: int = 0
    accepts: int = 15
    delta: int = 0

    @property
    def rank(self) -> tuple[int, bool, int, int, int]:
        """What decides between two ranges that hold one address; the greater is seen."""
        return (self.priority, self.region is None, self.region or 0, self.delta % 2**64, self.base)


class ReferenceDispatch:
    """A list of ranges, searched from end to end for each byte."""

    def __init__(self) -> None:
        self.ranges: list[Mapped] = []

    def map(
        self,
        handle: int,
        space: int,
        base: int,
        size: int,
        region: int,
        priority: int = 0,
        flags: int = 0,
        owner: int = 0,
        accepts: int = 15,
    ) -> None:
        """A region's range."""
        self.ranges.append(Mapped(handle, space, base, base + size - 1, region, priority, flags, owner, accepts))

    def alias(
        self, handle: int, base: int, size: int, region: int, offset: int, priority: int = 0, flags: int = 0
    ) -> None:
        """A second place where part of a region is seen."""
        of = next(r for r in self.ranges if r.region == region)
        delta = of.base + offset - base
        self.ranges.append(
            Mapped(handle, of.space, base, base + size - 1, region, priority, flags, of.owner, of.accepts, delta)
        )

    def hole(self, handle: int, space: int, base: int, size: int, priority: int = 0, flags: int = 0) -> None:
        """A range where what lies below is hidden."""
        self.ranges.append(Mapped(handle, space, base, base + size - 1, None, priority, flags))

    def remove(self, handle: int) -> None:
        """Take one range back."""
        self.ranges = [r for r in self.ranges if r.handle != handle]

    def unmap(self, region: int) -> None:
        """Take a region and its aliases back."""
        self.ranges = [r for r in self.ranges if r.region != region]

    def find(self, space: int, addr: int, smm: bool = False) -> Mapped | None:
        """The range seen at one address; None where there is none, or a hole."""
        hidden = NON_SMM_ONLY if smm else SMM_ONLY
        there = [r for r in self.ranges if r.space == space and r.base <= addr <= r.last and not r.flags & hidden]
        best = max(there, key=lambda r: r.rank, default=None)
        return None if best is None or best.region is None else best

    def resolve(self, space: int, addr: int, size: int, smm: bool = False) -> tuple[int, Mapped | None]:
        """(status, the range of the first byte) of an access."""
        first = self.find(space, addr, smm)
        if size not in (1, 2, 4, 8):
            return HIT_REFUSED, first
        bytes_at = [self.find(space, addr + i, smm) for i in range(size)]
        seen = {None if r is None else (r.region, r.delta) for r in bytes_at}
        if len(seen) > 1:
            return HIT_STRADDLE, first
        if first is None:
            return HIT_UNCLAIMED, None
        return (HIT_OK if first.accepts & size else HIT_REFUSED), first
