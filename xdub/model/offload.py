"""Offload of frozen blocks: their tensors stay in CPU memory, and the device holds the running block and a next one.

Every block's frozen parameters and buffers are packed into one flat tensor on the CPU, pinned for a GPU. Two slots on
the device have the size of the largest block. A block is copied to a slot before any of its modules runs. Meanwhile the
following block (the preceding one in a backward pass with activation checkpointing) is copied to the other slot, on a
stream of its own. On a CPU the slots are ordinary memory and copies are synchronous, so the same code runs.

Outside its turn a block's tensors are those of the CPU, so `state_dict` has all values at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from xdub.model.backbone import Backbone
from xdub.precision import dtype_of, network_in

BackboneT = TypeVar("BackboneT", bound=Backbone)

ALIGNMENT = 256
"""Bytes to which tensors are aligned in a flat tensor, as torch's allocators align them."""
SLOTS = 2
"""Number of blocks on the device: the running block and the next."""


@dataclass(frozen=True)
class _Entry:
    """A frozen tensor of a block, and its bytes in the block's flat tensor."""

    module: nn.Module
    name: str
    start: int
    dtype: torch.dtype
    shape: torch.Size

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.shape.numel() * self.dtype.itemsize

    def view(self, flat: Tensor) -> Tensor:
        """Return the tensor in a flat tensor uint8 [n]."""
        return flat[self.start : self.start + self.size].view(self.dtype).view(self.shape)

    def bind(self, value: Tensor) -> None:
        """Let the module use ``value``."""
        parameter = self.module._parameters.get(self.name)
        if parameter is not None:
            parameter.data = value
        else:
            self.module._buffers[self.name] = value


def frozen_tensors(block: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yield (module, name, tensor) of the block's parameters without requires_grad and of its buffers."""
    for module in block.modules():
        for name, value in chain(module._parameters.items(), module._buffers.items()):
            if value is not None and not value.requires_grad:
                yield module, name, value


class BlockOffload:
    """Frozen tensors of a network's blocks, in CPU memory. Hooks on all modules of a block fetch it before it runs.

    While it is built, the network must be on the CPU. The network's remaining tensors can be moved to the device, and
    be cast, between the constructor and `rest`, because offloaded tensors are empty until then.
    """

    def __init__(self, blocks: Iterable[nn.Module], device: torch.device, dtype: torch.dtype) -> None:
        """Pack the blocks, with floating-point parameters in ``dtype``, and allocate the slots on ``device``."""
        self._device, self._entries, self._flats = device, list[list[_Entry]](), list[Tensor]()
        for index, block in enumerate(blocks):
            entries, flat = _pack(block, dtype, pinned=device.type == "cuda")
            self._entries.append(entries)
            self._flats.append(flat)
            for module in block.modules():
                module.register_forward_pre_hook(partial(self._before, index))
        size, count = max(flat.numel() for flat in self._flats), min(SLOTS, len(self._flats))
        slots = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(count)]
        self._slots = slots
        self._resting = [[e.view(f) for e in row] for row, f in zip(self._entries, self._flats, strict=True)]
        self._fetched = [[[e.view(slot) for e in entries] for slot in slots] for entries in self._entries]
        self._held: list[int | None] = [None] * count
        self._current: int | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._copied = [torch.cuda.Event() if self._stream is not None else None for _ in slots]

    @property
    def device_bytes(self) -> int:
        """Bytes of all slots."""
        return sum(slot.nbytes for slot in self._slots)

    def rest(self) -> None:
        """Let all modules use the tensors on the CPU, once the network is on its device."""
        for entries, values in zip(self._entries, self._resting, strict=True):
            _bind(entries, values)

    def _before(self, index: int, *_: Any) -> None:
        """Fetch a block before one of its modules runs, and start to copy the block that will run next."""
        if index == self._current:
            return
        backward = self._current is not None and index == self._current - 1
        slot = self._fetch(index)
        if (event := self._copied[slot]) is not None:
            torch.cuda.current_stream(self._device).wait_event(event)
        _bind(self._entries[index], self._fetched[index][slot])
        self._current = index
        following = index - 1 if backward else index + 1
        if following == len(self._entries) and not torch.is_grad_enabled():
            # Another evaluation follows; after a training step's last block, the backward pass begins with that block.
            following = 0
        if 0 <= following < len(self._entries):
            self._fetch(following)

    def _fetch(self, index: int) -> int:
        """Copy a block to the slot that the current block does not use, unless a slot holds it; return the slot."""
        if index in self._held:
            return self._held.index(index)
        slot = next(n for n, held in enumerate(self._held) if held is None or held != self._current)
        if (evicted := self._held[slot]) is not None:
            _bind(self._entries[evicted], self._resting[evicted])
        flat = self._flats[index]
        target = self._slots[slot][: flat.numel()]
        if self._stream is None:
            target.copy_(flat)
        else:
            # All work on the slot's earlier block has been enqueued by now.
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                target.copy_(flat, non_blocking=True)
                event = self._copied[slot]
                assert event is not None
                event.record()
        self._held[slot] = index
        return slot


def _pack(block: nn.Module, dtype: torch.dtype, *, pinned: bool) -> tuple[list[_Entry], Tensor]:
    """Copy a block's frozen tensors to a flat tensor uint8 [n], and leave empty tensors in their place."""
    entries, values, end = [], [], 0
    for module, name, value in frozen_tensors(block):
        cast = value.detach()
        if name in module._parameters and value.is_floating_point():
            cast = cast.to(dtype)
        entry = _Entry(module, name, -(-end // ALIGNMENT) * ALIGNMENT, cast.dtype, cast.shape)
        end = entry.start + entry.size
        entries.append(entry)
        values.append(cast)
    flat = torch.zeros(end, dtype=torch.uint8, pin_memory=pinned)
    for entry, value in zip(entries, values, strict=True):
        entry.view(flat).copy_(value)
        entry.bind(torch.empty(0, dtype=entry.dtype))
    return entries, flat


def _bind(entries: list[_Entry], values: list[Tensor]) -> None:
    for entry, value in zip(entries, values, strict=True):
        entry.bind(value)


def backbone_on(model: BackboneT, precision: str, device: str | torch.device, *, offload: bool) -> BackboneT:
    """Move a frozen backbone to a device in ``precision``; with ``offload`` its blocks stay on the CPU.

    The backbone must be on the CPU.
    """
    if not offload:
        return network_in(model, precision, device)
    blocks = BlockOffload(model.blocks, torch.device(device), dtype_of(precision))
    network_in(model, precision, device)
    blocks.rest()
    return model
