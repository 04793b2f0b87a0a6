"""The vision transformers against the published figures and names, and against a plain account of their parts."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from arcface_edu.models import build_model
from arcface_edu.models.vit import Attention, Block, VisionTransformer

SIZES = {"vit_t": (256, 12), "vit_s": (512, 12), "vit_b": (512, 24), "vit_l": (768, 24)}  # features, blocks
# 1e9 multiply-adds as in InsightFace's table of ViTs; bytes of weights of the same shape that others have published in
# fp32 (LVFace, arXiv 2501.13420, as ONNX), where names and the graph take a little more.
PUBLISHED = {
    "vit_t": (1.5, 76_653_813),
    "vit_s": (5.7, 304_196_926),
    "vit_b": (11.4, 455_533_594),
    "vit_l": (25.3, 1_022_938_188),
}


@pytest.mark.parametrize("network", PUBLISHED)
def test_parameters_and_multiply_adds_are_the_published_ones(network):
    with FakeTensorMode():
        model = build_model(network).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 112, 112))
    multiply_adds, file_bytes = PUBLISHED[network]
    assert round(counter.get_total_flops() / 2e9, 1) == multiply_adds
    dim, depth = SIZES[network]
    block = 12 * dim**2 + 10 * dim  # qkv, proj, fc1, fc2; two LayerNorms and the biases of the last three
    ends = (3 * 81 + 1 + 144 + 1 + 2) * dim + (144 * dim + 2) * dim + (dim + 2) * 512
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == depth * block + ends
    assert 0 < file_bytes - 4 * parameters < 0.002 * file_bytes


@pytest.mark.parametrize("network", SIZES)
def test_state_dict_has_the_published_names_and_shapes(network):
    dim, depth = SIZES[network]
    expected = {"pos_embed": (1, 144, dim), "mask_token": (1, 1, dim)}
    expected |= {"patch_embed.proj.weight": (dim, 3, 9, 9), "patch_embed.proj.bias": (dim,)}
    for i in range(depth):
        linear = {"attn.proj": (dim, dim), "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
        block = {"attn.qkv.weight": (3 * dim, dim)}
        for name, shape in linear.items():
            block |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        block |= {f"{name}.{kind}": (dim,) for name in ("norm1", "norm2") for kind in ("weight", "bias")}
        expected |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    expected |= {"norm.weight": (dim,), "norm.bias": (dim,)}
    for at, before, after in ((0, 144 * dim, dim), (2, dim, 512)):
        expected |= {f"feature.{at}.weight": (after, before), f"feature.{at + 1}.num_batches_tracked": ()}
        for kind in ("weight", "bias", "running_mean", "running_var"):
            expected[f"feature.{at + 1}.{kind}"] = (after,)
    with torch.device("meta"):
        model = build_model(network)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected
    model.load_state_dict(
        {name: torch.empty(shape, device="meta") for name, shape in expected.items()}, strict=True, assign=True
    )


@pytest.mark.parametrize(
    ("network", "like", "drop_path", "kept"),
    [
        ("vit_t", "vit_t", 0.1, 129),
        ("vit_t_dp005_mask0", "vit_t", 0.05, 144),
        ("vit_s_dp005_mask_0", "vit_s", 0.05, 144),
        ("vit_b_dp005_mask_005", "vit_b", 0.05, 136),
        ("vit_l_dp005_mask_005", "vit_l", 0.05, 136),
    ],
)
def test_names_of_the_reference_say_what_is_dropped_and_hidden(network, like, drop_path, kept):
    with torch.device("meta"):
        model = build_model(network)
    dim, depth = SIZES[like]
    assert (model.pos_embed.shape[2], len(model.blocks), model.kept) == (dim, depth, kept)
    rates = [block.drop_path.p for block in model.blocks]
    assert rates == pytest.approx([drop_path * k / (depth - 1) for k in range(depth)])


def small(**changes):
    torch.manual_seed(0)
    return VisionTransformer(**{"dim": 32, "depth": 3, "heads": 4, "embedding_size": 16, **changes})


def test_whole_network_is_what_its_published_names_say():
    """The embedding computed again, in float64, from a state dict alone. Variances are so small that eps counts."""
    model = small().eval()
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            value.uniform_(0.5, 1.5).mul_(1e-5 if "var" in name else 1)
    images = torch.randn(2, 3, 112, 112)
    embeddings = model(images)
    images, w = images.double(), model.double().state_dict()

    def linear(name, value):
        return value @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def ln(name, value):
        value = value - value.mean(-1, keepdim=True)
        return value / (value.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def bn(name, value):
        value = (value - w[f"{name}.running_mean"]) / (w[f"{name}.running_var"] + 2e-5).sqrt()
        return value * w[f"{name}.weight"] + w[f"{name}.bias"]

    patches = images[:, :, :108, :108].unflatten(3, (12, 9)).unflatten(2, (12, 9))  # (B, 3, 12, 9, 12, 9)
    patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(2, 144, 3 * 81)
    x = patches @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"] + w["pos_embed"]
    for k in range(3):
        q, key, v = linear(f"blocks.{k}.attn.qkv", ln(f"blocks.{k}.norm1", x)).view(2, 144, 3, 4, 8).unbind(2)
        attention = (torch.einsum("bihd,bjhd->bhij", q, key) / 8**0.5).softmax(-1)
        x = x + linear(f"blocks.{k}.attn.proj", torch.einsum("bhij,bjhd->bihd", attention, v).flatten(2))
        x = x + linear(f"blocks.{k}.mlp.fc2", linear(f"blocks.{k}.mlp.fc1", ln(f"blocks.{k}.norm2", x)).clamp(0, 6))
    x = bn("feature.1", linear("feature.0", ln("norm", x).flatten(1)))
    by_hand = bn("feature.3", linear("feature.2", x))
    torch.testing.assert_close(embeddings.double(), by_hand, rtol=1e-4, atol=1e-4 * by_hand.abs().max().item())


def test_attention_is_the_softmax_of_scaled_products():
    torch.manual_seed(0)
    attention, x = Attention(12, heads=3), torch.randn(2, 5, 12)
    q, k, v = (part.reshape(2, 5, 3, 4) for part in attention.qkv(x).split(12, dim=2))
    weights = (torch.einsum("bihd,bjhd->bhij", q, k) / 4**0.5).softmax(-1)
    expected = attention.proj(torch.einsum("bhij,bjhd->bihd", weights, v).reshape(2, 5, 12))
    torch.testing.assert_close(attention(x), expected)


def test_block_is_what_its_docstring_says():
    torch.manual_seed(0)
    block, x = Block(12, heads=3, drop_path=0.5).eval(), torch.randn(2, 5, 12) * 3

    def ln(value):
        return (value - value.mean(-1, keepdim=True)) / (value.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()

    middle = x + block.attn(ln(x))
    expected = middle + block.mlp.fc2(block.mlp.fc1(ln(middle)).clamp(0, 6))
    torch.testing.assert_close(block(x), expected)


def test_patches_are_nine_pixels_a_side_in_reading_order():
    model = small()
    images = torch.randn(2, 3, 112, 112)
    tokens = model.patch_embed(images)
    weight, bias = model.patch_embed.proj.weight, model.patch_embed.proj.bias
    for token in (0, 11, 12, 143):
        row, column = divmod(token, 12)
        patch = images[:, :, 9 * row : 9 * row + 9, 9 * column : 9 * column + 9]
        torch.testing.assert_close(tokens[:, token], patch.flatten(1) @ weight.flatten(1).T + bias)


def test_hidden_patches_leave_no_trace_but_the_learned_token():
    """With blocks that do nothing, what reaches the end is the token itself where it was kept."""
    model = small(depth=2, mask_ratio=0.25, drop_path=0.0)
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
        torch.nn.init.zeros_(block.mlp.fc2.weight)
    torch.nn.init.normal_(model.mask_token)
    seen = []
    model.feature[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].unflatten(1, (144, 32))))
    images = torch.randn(8, 3, 112, 112)
    model.train()(images)
    model.eval()(images)
    in_training, whole = seen
    hidden = (in_training == model.mask_token).all(-1)  # (8, 144)
    assert (hidden.sum(1) == 144 - 108).all()
    assert not (hidden[0] == hidden[1]).all()  # every image by itself
    torch.testing.assert_close(in_training[~hidden], whole[~hidden])
    assert not (whole == model.mask_token).all(-1).any()


def test_dropped_blocks_pass_their_input_and_the_others_make_up_for_them():
    torch.manual_seed(0)
    block, x = Block(12, heads=3, drop_path=0.4), torch.randn(1, 5, 12).expand(2000, 5, 12)
    torch.nn.init.zeros_(block.mlp.fc2.weight)
    torch.nn.init.zeros_(block.mlp.fc2.bias)
    added = block.train()(x) - x
    full = block.attn(block.norm1(x[:1])) / 0.6
    dropped = (added == 0).flatten(1).all(1)
    assert dropped.float().mean() == pytest.approx(0.4, abs=0.04)
    torch.testing.assert_close(added[~dropped], full.expand_as(added)[~dropped], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask_ratio", [0.0, 0.1])
def test_every_trained_parameter_gets_a_gradient(mask_ratio):
    """DDP would wait for ever for one that does not."""
    model = small(mask_ratio=mask_ratio)
    model(torch.randn(4, 3, 112, 112)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert model.mask_token.requires_grad == (mask_ratio > 0)
