"""Which settings of which methods are held to the contract. A new method adds one line to each table."""

from __future__ import annotations

from inlay.methods import (
    Adapter,
    BitFit,
    DiffFit,
    Full,
    Gated,
    Hypernetwork,
    Lora,
    Method,
    Prefix,
    TextualInversion,
    TLora,
)
from tests.contracts.family import FAMILY

VARIANTS: dict[str, list[Method]] = {
    **FAMILY,
    "adapter": [
        Adapter(width=4),
        Adapter(input="Res_in", output="Res_out", width=2, activation="silu"),
        Adapter(input="CA_c", output="CA_c", budget=1500),
        Adapter(input="SA_in", output="Trans_out", width=4, init="default"),
        Adapter(input="FFN_in", output="FFN_in", scale=2, activation="sigmoid", blocks="^up_blocks"),
    ],
    "bitfit": [
        BitFit(),
        BitFit(scope="all", norms=True),
        BitFit(scope="transformers"),
        BitFit(scope="attention"),
    ],
    "difffit": [
        DiffFit(),
        DiffFit(scope="attention"),
    ],
    "full": [
        Full(parameters=r"attn2\.to_[kv]"),
        Full(),
        Full(components=("unet", "text_encoder"), parameters="norm"),
        Full(components=("text_encoder",)),
    ],
    "gated": [
        Gated(adapter_width=3, lora_rank=2, prefix_length=2),
        Gated(adapter_width=4, lora_rank=2, prefix_length=None),
        Gated(adapter_width=None, lora_rank=2, prefix_length=None),
        Gated(adapter_width=None, lora_rank=None, prefix_length=3),
    ],
    "hypernetwork": [
        Hypernetwork(),
        Hypernetwork(widths="all", activation="tanh", layer_norm=True, dropout_structure=(0, 0.3, 0)),
        Hypernetwork(widths=(32,), layer_structure=(1, 1.5, 2, 1), activation="swish", init="xavier_normal"),
        Hypernetwork(activation="leakyrelu", activate_output=True, strength=0.5),
    ],
    "lora": [
        Lora(rank=2),
        Lora(rank=3, alpha=1.5, targets="everything", dora=True),
        Lora(rank=2, alpha=8, rslora=True, targets="cross-attention"),
        Lora(rank=2, targets="transformer", dropout=0.5),
        Lora(rank=1, targets=("to_q", "to_k", "conv1")),
        Lora(rank=2, targets=r"(down|mid)_block.*attn2\.to_k"),
        Lora(rank=2, targets="cross-attention-qk", text_encoder=True, dora=True),
        Lora(rank=2, alpha=3, init="pissa", targets="everything"),
        Lora(rank=3, init="olora", rslora=True, dropout=0.2, text_encoder=True),
        Lora(rank=2, init="gaussian"),
    ],
    "prefix": [
        Prefix(),
        Prefix(length=3, attention="both", init="normal", std=0.5),
        Prefix(length=2, reparametrise=4),
        Prefix(length=1, attention="self"),
    ],
    "textual_inversion": [
        TextualInversion(vectors=2, std=0.1),
        TextualInversion(token="<pip>", std=0.1),
        TextualInversion(token="<grown>", vectors=3, grow_at=(10,), init="dog"),
    ],
    "tlora": [
        TLora(rank=4, min_rank=1),
        TLora(rank=3, attention="cross", seed=5),
        TLora(rank=2, min_rank=0, timesteps=950),
    ],
}
"""The first of each method, and the second where it is an adapter, also stand in stacks."""

REFUSED: list[tuple[Method, str]] = [
    (Adapter(budget=100), r"method.budget=100: adapters in 4 blocks have \d+ parameters at least"),
    (Adapter(blocks="middle"), "'middle' is found in no name of a transformer block; names look like down_blocks"),
    (Hypernetwork(widths=(32, 48)), "no attention layer's context has width 48; widths: 32, 64"),
    (Full(parameters="attn9"), r"method.parameters='attn9' is found in no name .* of unet; names look like conv_in"),
    (Full(components=("unet", "text_encoder"), parameters="attn2"), "no name of a frozen parameter of text_encoder"),
    (TextualInversion(vectors=76), r"method.vectors=76: a prompt has room for 75 tokens"),
    (TLora(rank=33), r"method.rank=33: .*attn1.to_q has 32 inputs and 32 outputs, so at most 32 orthogonal ranks"),
    (Lora(targets=("to_q", "to_z")), r"ends in 'to_z'; layers end in: .*conv_in.*to_out.0, to_q"),
    (Lora(targets="to_q"), r"neither a preset \(attention, .*\) nor an expression .* such as conv_in"),
]
"""Settings that a tiny base cannot satisfy, and what the message must say."""

EVERY = [method for methods in VARIANTS.values() for method in methods]
ADAPTERS = [method for method in EVERY if method.result == "adapter"]
STACKED = [
    method
    for methods in VARIANTS.values()
    for method in [methods[0], *(second for second in methods[1:2] if second.result == "adapter")]
]
QUICK = {methods[0] for methods in VARIANTS.values()}
"""Of each method the first; the others take minutes together and are slow."""


def described(method: Method) -> str:
    """Return what a test of the method is called."""
    given = method.model_dump(exclude_defaults=True)
    return " ".join([method.name, *(f"{key}={value}" for key, value in given.items())])  # pyright: ignore[reportAttributeAccessIssue]
