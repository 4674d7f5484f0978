"""Counts of a network agree with counts by hand, and with torch's count of the whole network."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from xdub.config import PHASES, Recipe, load_recipe
from xdub.plan.flops import sample_flops, step_parts, train_step_flops
from xdub.plan.network import Network, count_network, count_parameters
from xdub.plan.rehearsal import inputs, meta_model

SMALL = (
    "model.hidden_size=12", "model.num_heads=2", "model.num_layers=1", "model.ffn_ratio=2.0", "model.text_tokens=3",
    "codec.channels=5", "audio.dim=7", "video.size=32", "lora.rank=2",
    *(f"phases.{phase}.window=5" for phase in PHASES), *(f"phases.{phase}.motion_frames=1" for phase in PHASES),
)  # fmt: skip
"""A network whose products can be counted by hand.

2 target and 2 reference frames of 4 tokens make 16 tokens of width 12; there are 18 rows of audio, of which each
target frame reads 16.
"""
NETWORKS = ("tiny", "xdub-1b", "wan-5b")
"""Recipes whose networks differ in more than their numbers."""
TOKENS, TARGET, FRAMES, ROWS, WIDTH, INNER = 16, 8, 4, 18, 12, 24


def parts(network: Network) -> dict[str, tuple[int, int]]:
    """FLOPs of each part, forwards and backwards."""
    sums: dict[str, tuple[int, int]] = {}
    for p in network.products:
        forward, backward = sums.get(p.part, (0, 0))
        sums[p.part] = (forward + p.forward, backward + p.backward)
    return sums


def test_the_products_of_an_editor_are_those_counted_by_hand():
    counted = parts(count_network(load_recipe("tiny", SMALL), "editor"))
    linear = {
        "projections": 2
        * TOKENS
        * (3 * WIDTH * WIDTH + WIDTH * WIDTH),  # two attentions, each with qkv and out
        "text cross-attention": 2 * TARGET * WIDTH * WIDTH + 3 * 2 * WIDTH * WIDTH,
        "audio cross-attention": 2 * TARGET * WIDTH * WIDTH + ROWS * 2 * WIDTH * WIDTH,
        "FFN": 2 * TOKENS * WIDTH * INNER,
    }
    scores = {
        "2D attention": FRAMES * 4 * 4 * WIDTH,  # queries x keys in each frame
        "3D attention": TOKENS * TOKENS * WIDTH,
        "text cross-attention": TARGET * 3 * WIDTH,
        "audio cross-attention": TARGET * 16 * WIDTH,
    }
    for part in linear | scores:  # a multiplication and an addition; q k^T and the product with v
        forward = 2 * linear.get(part, 0) + 4 * scores.get(part, 0)
        assert counted[part] == (forward, 2 * forward), part


def test_products_outside_the_blocks_have_no_gradient_towards_their_inputs():
    forward, backward = parts(count_network(load_recipe("tiny", SMALL), "editor"))["embedding and output"]
    patch, frequencies = 5 * 4, 256
    first = TOKENS * patch * WIDTH + FRAMES * frequencies * WIDTH + ROWS * 7 * WIDTH
    later = FRAMES * WIDTH * (WIDTH + 9 * WIDTH) + 2 * ROWS * 5 * WIDTH * WIDTH  # timestep; two convolutions
    later += 2 * WIDTH * 2 * WIDTH + TARGET * WIDTH * patch  # modulation and projection of the target frames
    assert forward == 2 * (first + later)
    assert backward == 2 * (first + 2 * later)


def test_an_expert_has_gradients_of_its_adapters_and_of_what_follows_them():
    counted = parts(count_network(load_recipe("tiny", (*SMALL, "lora.targets=[ffn.2]")), "lip"))
    base, adapter = TOKENS * INNER * WIDTH, TOKENS * 2 * (INNER + WIDTH)
    assert counted["FFN"] == (2 * (2 * base + adapter), 2 * (TOKENS * INNER * 2 + 2 * TOKENS * 2 * WIDTH))
    assert counted["3D attention"] == (4 * TOKENS * TOKENS * WIDTH, 0)
    patch = TARGET * WIDTH * 20
    assert counted["embedding and output"][1] == 2 * patch  # of the output projection, towards its input


@pytest.mark.parametrize(
    ("phase", "targets"), [("generator", "[qkv]"), ("lip", "[qkv, q, kv, out]"), ("texture", "[ffn.2]")]
)
def test_a_deep_network_is_counted_to_the_last_product_although_two_blocks_are_built(phase, targets):
    recipe = load_recipe("tiny", ["model.num_layers=5", f"lora.targets={targets}"])
    model, counter = meta_model(recipe, phase), FlopCounterMode(display=False)
    with counter:
        model(**inputs(recipe, phase, 1, "meta")).sum().backward()
    assert sample_flops(count_network(recipe, phase)) == counter.get_total_flops()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_has_the_flops_of_its_global_batch(name: str, phase: str):
    recipe = load_recipe(name)
    network = count_network(recipe, phase)
    batch = recipe.for_phase(phase).global_batch
    assert train_step_flops(recipe, phase, network) == batch * sample_flops(network) > 0
    rows = step_parts(recipe, phase, network)
    kinds = {"projections", "3D attention", "FFN"} | (
        {"2D attention"} if recipe.model.kind == "xdub" else set()
    )
    assert {"embedding and output", *kinds} < rows.keys()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_those_of_the_whole_network(name: str, phase: str):
    agree(load_recipe(name), phase)


@pytest.mark.parametrize("phase", ["generator", "lip"])
def test_parameters_of_other_sizes_are_counted_too(phase: str):
    settings = ["model.text_dim=40", "model.text_tokens=7", "model.ffn_ratio=2.5", "lora.targets=[q, ffn.2]"]
    agree(load_recipe("tiny", settings), phase)
    agree(load_recipe("tiny", [*settings, "model.num_layers=1"]), phase)


def agree(recipe: Recipe, phase: str) -> None:
    """Compare the counts with the whole network's."""
    model, count = meta_model(recipe, phase), count_parameters(recipe, phase)
    assert count.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count.total == sum(p.numel() for p in model.parameters())
    layers = [sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules()]
    assert count.largest_layer == max(layers)
    if not count.frozen:
        assert count.block == sum(p.numel() for p in model.blocks[0].parameters())
