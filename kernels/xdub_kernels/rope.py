"""Positions and rotation of a sequence of target and reference tokens as one value: shifted 3D RoPE (paper B.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ORDERS = ("target_first", "reference_first")
"""Segment orders: the target or the reference comes first in the sequence."""


@dataclass(frozen=True)
class Rope:
    """Shifted 3D RoPE over L = (f + reference_frames) * h * w tokens (paper B.4). Hashable, as a key of caches.

    Target token (k, i, j) is rotated by its own position, reference token (k, i, j) by (k, i + h, j + w). Channels
    pair up as (0, 1), (2, 3), ...; pair i of an axis turns by position * theta^(-2i / axis_dim). Raises ``ValueError``
    naming the field whose value does not fit.
    """

    grid: tuple[int, int, int]
    """(f, h, w) of the target; tokens run frame, row, column. (1, h, w) with ``reference_frames=0`` is 2D attention
    inside frames that were folded into the batch."""
    reference_frames: int
    """Number of reference frames: 0, 1 or f. A single reference frame sits at frame position 0."""
    order: str = "target_first"
    """Segment that comes first in L: ``"target_first"`` or ``"reference_first"``."""
    theta: float = 10000.0
    """Base of the rotation frequencies."""
    axes_dim: tuple[int, int, int] | None = None
    """Channels for (frame, row, column), three even numbers whose sum is the head dim D; None: `split_head_dim`."""
    share: tuple[int, int] = (0, 1)
    """(index, count): every frame's h * w tokens are cut into ``count`` runs of equal length, and L holds run ``index``
    of each frame. A run that reaches beyond the frame is padded; padding has the position of the frame's last token."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", _integers(self.grid))
        if self.axes_dim is not None:
            object.__setattr__(self, "axes_dim", _integers(self.axes_dim))
        object.__setattr__(self, "share", _integers(self.share))
        if len(self.grid) != 3 or min(self.grid) < 1:
            raise ValueError(f"grid must be (frames, rows, columns), each at least 1, got {self.grid}")
        if self.reference_frames not in (0, 1, self.grid[0]):
            raise ValueError(
                f"reference_frames must be 0, 1 or f = {self.grid[0]}, got {self.reference_frames}"
            )
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {self.order!r}")
        if len(self.share) != 2 or not 0 <= self.share[0] < self.share[1]:
            raise ValueError(f"share must be (index, count) with 0 <= index < count, got {self.share}")

    @property
    def per_frame(self) -> int:
        """Tokens of each frame in L: h * w, or the length of a run."""
        _, height, width = self.grid
        return -(-height * width // self.share[1])

    @property
    def offset(self) -> int:
        """Index within its frame of the first token of each frame in L."""
        return self.share[0] * self.per_frame

    @property
    def tokens(self) -> int:
        """Sequence length L of target and reference together."""
        return (self.grid[0] + self.reference_frames) * self.per_frame

    def axes(self, head_dim: int) -> tuple[int, int, int]:
        """Return the channels for (frame, row, column) of heads of ``head_dim`` channels.

        Raises ``ValueError`` if the head dim is odd or ``axes_dim`` does not add up to it.
        """
        if head_dim % 2:
            raise ValueError(f"q must have an even head dim for rotation in pairs, got {head_dim}")
        if self.axes_dim is None:
            return split_head_dim(head_dim)
        axes = self.axes_dim
        if len(axes) != 3 or sum(axes) != head_dim or any(dim < 0 or dim % 2 for dim in axes):
            raise ValueError(
                f"axes_dim must be three even numbers with sum {head_dim} (head dim), got {axes}"
            )
        return axes

    def flat(
        self,
    ) -> tuple[tuple[int, int, int], int, str, float, tuple[int, int, int] | None, tuple[int, int]]:
        """Return the fields in order, for an operator's schema, which knows no classes."""
        return self.grid, self.reference_frames, self.order, self.theta, self.axes_dim, self.share

    @classmethod
    def unflatten(
        cls,
        grid: Sequence[int],
        reference_frames: int,
        order: str,
        theta: float,
        axes_dim: Sequence[int] | None,
        share: Sequence[int],
    ) -> Rope:
        """Return the Rope that `flat` took apart."""
        frames, height, width = grid
        axes = None if axes_dim is None else (axes_dim[0], axes_dim[1], axes_dim[2])
        return cls((frames, height, width), reference_frames, order, theta, axes, (share[0], share[1]))


def split_head_dim(head_dim: int) -> tuple[int, int, int]:
    """Return the default channels for (frame, row, column): D - 4*(D//6), 2*(D//6), 2*(D//6)."""
    # Released checkpoints are trained with this split.
    third = 2 * (head_dim // 6)
    return head_dim - 2 * third, third, third


def _integers(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(n) for n in values)
