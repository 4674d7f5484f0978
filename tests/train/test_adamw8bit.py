"""AdamW with 8-bit moments against torch's own in fp32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xdub.train import adamw8bit
from xdub.train.adamw8bit import BLOCK, AdamW8bit, decode_moment, encode_moment, number_table


@pytest.mark.parametrize("signed", [True, False])
def test_a_code_is_the_nearest_number_of_its_table(signed):
    table, _ = number_table(signed, torch.device("cpu"))
    assert len(table) == 255 and table[-1] == 1 and (table[0] == -1) is not signed or table[0] in (-1, 0)
    x = torch.randn(4 * BLOCK + 77, generator=torch.Generator().manual_seed(0)) * 1e-3
    x = x if signed else x.square()
    x[BLOCK : 2 * BLOCK] = 0
    codes, scale = encode_moment(x, signed=signed)
    assert codes.dtype is torch.uint8 and codes.shape == x.shape and scale.shape == (5,)
    decoded, whole = decode_moment(codes, scale, signed=signed), scale.repeat_interleave(BLOCK)[: len(x)]
    nearest = (x[:, None] - table * whole[:, None]).abs().amin(1)
    # Second moments are never rounded to zero.
    allowed = nearest if signed else torch.maximum(nearest, table[1] * whole)
    assert ((decoded - x).abs() <= allowed + 1e-9 * whole).all()
    assert torch.equal(decoded[BLOCK : 2 * BLOCK], torch.zeros(BLOCK))
    assert signed or ((decoded > 0) == (x > 0)).all()


@pytest.mark.parametrize("signed", [True, False])
def test_decoded_moments_encode_to_the_same_bits(signed):
    x = torch.randn(100 * BLOCK + 3, generator=torch.Generator().manual_seed(1)).exp()
    x = x * torch.randn(len(x), generator=torch.Generator().manual_seed(2)) if signed else x
    first = encode_moment(x, signed=signed)
    second = encode_moment(decode_moment(*first, signed=signed), signed=signed)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def train(kind: type, steps: int) -> tuple[nn.Module, list[float]]:
    """Fit a small network to fixed targets; return it and its losses."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.GELU(), nn.Linear(64, 3))
    x, y = torch.randn(64, 20), torch.randn(64, 3)
    optimizer, losses = kind(model.parameters(), lr=3e-3, weight_decay=0.1), []
    for _ in range(steps):
        loss = (model(x) - y).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


def test_it_follows_adamw_in_fp32(monkeypatch):
    _, ours = train(AdamW8bit, 200)
    _, reference = train(torch.optim.AdamW, 200)
    assert reference[-1] < 0.02 * reference[0]
    assert ours[0] == reference[0] and ours[1] == pytest.approx(reference[1], rel=1e-6)
    assert all(a == pytest.approx(b, rel=0.1, abs=1e-3) for a, b in zip(ours, reference, strict=True))
    monkeypatch.setattr(adamw8bit, "CHUNK", BLOCK)
    _, in_chunks = train(AdamW8bit, 200)
    assert in_chunks == ours


def test_moments_need_an_eighth_of_the_memory_and_a_piece_can_be_read():
    p = nn.Parameter(torch.randn(1000))
    optimizer = AdamW8bit([p], lr=0.1)
    p.grad = torch.randn(1000)
    optimizer.step()
    state = optimizer.state[p]
    stored = sum(value.nbytes for key, value in state.items() if key != "step")
    assert stored == 2 * (1000 + 4 * 4)
    whole = optimizer.read_moment(p, "exp_avg", 0, 1000)
    assert torch.equal(optimizer.read_moment(p, "exp_avg", 300, 500), whole[300:800])
    optimizer.write_moment(p, "exp_avg", whole)
    assert torch.equal(optimizer.read_moment(p, "exp_avg", 0, 1000), whole)
