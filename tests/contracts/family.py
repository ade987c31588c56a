"""The variants of the methods that wrap layers, LoRA's relatives: linear layers, convolutions, the text encoder."""

from __future__ import annotations

from inlay.methods import (
    BOFT,
    C3A,
    HRA,
    IA3,
    OFT,
    DeLoRA,
    FourierFT,
    GraLoRA,
    HiRA,
    LoHa,
    LoKr,
    Method,
    MiSS,
    PVeRA,
    RandLoRA,
    RoAd,
    VBLoRA,
    VeRA,
    WaveFT,
)

FAMILY: dict[str, list[Method]] = {
    "boft": [
        BOFT(),
        BOFT(targets="transformer", boft_block_size=4, boft_n_butterfly_factor=3),
        BOFT(targets="cross-attention", text_encoder=True, boft_n_butterfly_factor=1, boft_block_size=16),
    ],
    "c3a": [C3A(block_size=16), C3A(targets="transformer", text_encoder=True)],
    "delora": [DeLoRA(rank=2), DeLoRA(rank=3, delora_lambda=2, targets="everything", text_encoder=True, dropout=0.2)],
    "fourierft": [
        FourierFT(n_frequency=20),
        FourierFT(n_frequency=50, scaling=40, random_loc_seed=3, targets="transformer", text_encoder=True),
    ],
    "gralora": [GraLoRA(rank=4), GraLoRA(rank=4, gralora_k=4, hybrid_r=2, targets="transformer", text_encoder=True)],
    "hira": [HiRA(rank=2), HiRA(rank=3, targets="everything"), HiRA(rank=2, text_encoder=True, dropout=0.3)],
    "hra": [HRA(rank=2), HRA(rank=4, targets="transformer", text_encoder=True)],
    "ia3": [IA3(), IA3(targets="everything"), IA3(targets=("to_v", "to_out.0"), feedforward=(), text_encoder=True)],
    "loha": [
        LoHa(rank=2),
        LoHa(rank=3, alpha=1.5, targets="everything", effective_conv2d=True),
        LoHa(rank=2, targets=("conv1", "to_q"), rank_dropout=0.2, module_dropout=0.1, text_encoder=True),
    ],
    "lokr": [
        LoKr(rank=2),
        LoKr(rank=1, alpha=3, targets="everything", decompose_both=True, effective_conv2d=True),
        LoKr(rank=2, targets=("conv1", "to_q"), decompose_factor=4, rank_dropout=0.2, text_encoder=True),
    ],
    "miss": [MiSS(rank=4), MiSS(rank=7, targets="everything", text_encoder=True, dropout=0.2)],
    "oft": [
        OFT(oft_block_size=8),
        OFT(oft_block_size=16, targets="transformer"),
        OFT(oft_block_size=4, text_encoder=True),
    ],
    "pvera": [PVeRA(rank=16), PVeRA(rank=8, targets="everything", text_encoder=True, projection_prng_key=5)],
    "randlora": [RandLoRA(rank=8, alpha=8), RandLoRA(rank=5, alpha=2, targets="everything", text_encoder=True)],
    "road": [
        RoAd(group_size=8),
        RoAd(variant="road_2", group_size=16, targets="transformer"),
        RoAd(variant="road_4", group_size=4, text_encoder=True),
    ],
    "vblora": [
        VBLoRA(vector_length=16, num_vectors=20),
        VBLoRA(rank=2, vector_length=8, num_vectors=9, topk=3, targets="transformer", text_encoder=True),
    ],
    "vera": [VeRA(rank=16), VeRA(rank=8, d_initial=0.3, targets="everything", text_encoder=True, dropout=0.2)],
    "waveft": [
        WaveFT(n_frequency=20),
        WaveFT(n_frequency=30, wavelet_family="db2", targets="transformer", text_encoder=True),
    ],
}
