"""Trains the CLIP of the embedded base on the world's pictures and captions, and measures retrieval on unseen ones."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from pictures import BUILD, TEST, pictures, pixels
from tokenizer import COMMON, LENGTH, rare_words
from torch.nn import functional
from training import Training, add_training, bf16_where_fast
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from inlay.data.tabletop import vocabulary
from inlay.data.tabletop.captions import caption
from inlay.randomness import derive, stream

SEED = 0
WORDINGS = 6
"""Captions of one picture that training draws from; the first is the world's own."""
STRANGE = 0.15
"""Share of captions that get a word which says nothing: so that "a sks toy" means a toy before anybody tunes it."""
SHIFT = 3
"""Pixels by which training moves a picture at most, in each direction."""


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return the untrained pair of towers, weights from `SEED`."""
    torch.manual_seed(SEED)
    shared = {"hidden_act": "gelu", "projection_dim": 192, "num_attention_heads": 3}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shared,
    )
    vision = CLIPVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=6, image_size=64, patch_size=8, **shared
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=192))


def wordings(captions: list[str], scenes: list) -> list[list[str]]:
    """Return `WORDINGS` captions for each scene, some with a word that says nothing put in."""
    strange = [*rare_words(), *COMMON.split()]
    found = []
    for index, (first, scene) in enumerate(zip(captions, scenes, strict=True)):
        draw = random.Random(derive(SEED, "clip/wordings", index))
        texts = [first, *(caption(scene, draw) for _ in range(WORDINGS - 1))]
        for place, text in enumerate(texts):
            if draw.random() < STRANGE:
                words = text.split()
                words.insert(draw.randrange(1, len(words)) if len(words) > 1 else 0, draw.choice(strange))
                texts[place] = " ".join(words)
        found.append(texts)
    return found


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images [B, 3, H, W], each moved by up to `SHIFT` pixels, the border mirrored."""
    count, _, height, width = images.shape
    wide = functional.pad(images, (SHIFT,) * 4, mode="reflect")
    moves = torch.randint(0, 2 * SHIFT + 1, (count, 2), generator=generator).tolist()
    return torch.stack([wide[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(moves)])


def word_weights(tokenizer: CLIPTokenizer, ids: torch.Tensor) -> torch.Tensor:
    """Return a weight for every token [V]: the logarithm of its rarity among captions, 0 if not a word of the world.

    Args:
        tokenizer: the base's.
        ids: caption tokens [N, `LENGTH`].
    """
    counts = torch.zeros(len(tokenizer))
    for token in tokenizer.convert_tokens_to_ids([word + "</w>" for word in vocabulary()]):
        counts[token] = (ids == token).any(-1).sum()
    return torch.where(counts > 0, torch.log(len(ids) / counts.clamp(min=1)), 0.0)


def loss(
    model: CLIPModel, head: torch.nn.Linear, images: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the symmetric contrastive loss (Radford et al. 2021, figure 3) and the word loss.

    The word loss asks a linear layer on the image tower for the caption's words (Huang et al. 2024, "Classification
    Done Right for Vision-Language Pre-Training", equation 2): it teaches the tower long before the contrast can.

    Args:
        model: the two towers.
        head: from the image tower's features to tokens; used in training only.
        images: [B, 3, 64, 64] in [-1, 1].
        ids: caption tokens [B, L]; equal captions share the contrastive target evenly.
        weights: of each token in the word loss, [V].
    """
    with bf16_where_fast(images.device):
        features = model.vision_model(pixel_values=images).pooler_output
        seen = model.visual_projection(features)
        read = model.get_text_features(ids).pooler_output
        guessed = head(features)
    logits = functional.normalize(read.float(), dim=1) @ functional.normalize(seen.float(), dim=1).T
    logits = logits * model.logit_scale.exp().clamp(max=100.0)
    same = (ids[:, None] == ids[None]).all(-1).float()
    target = same / same.sum(1, keepdim=True)
    contrast = 0.5 * (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target))
    spoken = torch.zeros(len(ids), len(weights), device=ids.device).scatter_(1, ids, weights[ids])
    words = functional.cross_entropy(guessed.float(), spoken / spoken.sum(1, keepdim=True))
    return contrast, words


def groups(captions: list[str], size: int = 64) -> list[list[int]]:
    """Return groups of indices whose captions all differ, in the order of the captions."""
    found, group, seen = [], [], set()
    for index, text in enumerate(captions):
        if text in seen:
            continue
        group.append(index)
        seen.add(text)
        if len(group) == size:
            found.append(group)
            group, seen = [], set()
    return found


def retrieval(seen: torch.Tensor, read: torch.Tensor, captions: list[str]) -> dict:
    """Return top-1 retrieval among 64 differing captions, both ways, from features [N, D] of pictures and captions."""
    seen, read = functional.normalize(seen, dim=1), functional.normalize(read, dim=1)
    right_text = right_image = total = 0
    for group in groups(captions):
        similar = seen[group] @ read[group].T
        truth = torch.arange(len(group))
        right_text += (similar.argmax(1) == truth).sum().item()
        right_image += (similar.argmax(0) == truth).sum().item()
        total += len(group)
    return {"image_to_text": right_text / total, "text_to_image": right_image / total, "pairs": total}


@torch.no_grad()
def measure(model: CLIPModel, tokenizer: CLIPTokenizer, images, captions: list[str]) -> dict:
    """Return `retrieval` of a model on pictures and the world's own captions."""
    model.eval()
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    device = next(model.parameters()).device
    seen, read = [], []
    with bf16_where_fast(device):
        for begin in range(0, len(images), 256):
            seen.append(model.get_image_features(pixels(images[begin : begin + 256], device)).pooler_output)
            read.append(model.get_text_features(tokens[begin : begin + 256].to(device)).pooler_output)
    model.train()
    return retrieval(torch.cat(seen).float().cpu(), torch.cat(read).float().cpu(), captions)


@torch.no_grad()
def settle_unseen(model: CLIPModel, tokens: torch.Tensor) -> int:
    """Give embedding rows that no caption used the spread of the used ones; return how many rows those are."""
    table = model.text_model.embeddings.token_embedding.weight
    used = torch.zeros(len(table), dtype=torch.bool)
    used[tokens.unique()] = True
    drawn = torch.randn(table.shape, generator=stream(SEED, "clip/unseen")).to(table.device)
    used = used.to(table.device)
    table[~used] = (table[used].mean(0) + table[used].std(0) * drawn)[~used]
    return int((~used).sum())


def parameter_groups(model: CLIPModel, decay: float) -> list[dict]:
    """Return matrices with weight decay; embeddings, norms and biases without (decay would erase unseen tokens)."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim >= 2 and "embedding" not in name]
    rest = [p for name, p in named if p.ndim < 2 or "embedding" in name]
    return [{"params": decayed, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_training(parser, 2000, batch=128, rate=1e-3)
    parser.add_argument("--tokenizer", type=Path, default=BUILD / "tokenizer")
    parser.add_argument("--out", type=Path, default=BUILD / "clip")
    parser.add_argument("--results", type=Path, default=Path("recipes/tabletop/results/clip.json"))
    parser.add_argument("--refine", type=Path, help="a trained model: only its image side and projections learn on")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizer)
    images, captions, scenes = pictures("train", args.images)
    test_images, test_captions, _ = pictures("test", TEST)
    texts = wordings(captions, scenes)
    flat = [text for group in texts for text in group]
    ids = tokenizer(flat, padding="max_length", truncation=True, return_tensors="pt").input_ids
    ids = ids.view(len(images), WORDINGS, LENGTH)
    model = build(tokenizer) if args.refine is None else CLIPModel.from_pretrained(args.refine)
    if device.type == "cpu":
        # There the fused attention is slow in its backward pass; plain matrix products train twice as fast.
        model.set_attn_implementation("eager")
    if args.refine is not None:
        # The denoiser reads the text tower's states: they must not move once it trains.
        model.text_model.requires_grad_(False)
    head = torch.nn.Linear(192, len(tokenizer)).to(device)
    weights = word_weights(tokenizer, ids[:, 0]).to(device)
    model.to(device)
    optimizer = torch.optim.AdamW(
        [*parameter_groups(model, 0.1), {"params": head.parameters()}], lr=args.rate, betas=(0.9, 0.98)
    )
    training = Training(
        args,
        optimizer,
        purpose="clip/order" if args.refine is None else "clip/refine",
        count=len(images),
        warmup=150,
        trace=args.out / "trace.json",
        every=25,
        clipped=model.parameters(),
    )
    for step, chosen in training:
        generator = stream(SEED, "clip/augment", step)
        real = shifted(pixels(images[chosen.numpy()], device), generator)
        words = ids[chosen, torch.randint(0, WORDINGS, (args.batch,), generator=generator)]
        words = words[:, : int((words != tokenizer.eos_token_id).sum(1).max()) + 1]
        value, guess = loss(model, head, real, words.to(device), weights)
        training.learn(value + guess if args.refine is None else value, loss=value, words=guess)
        if (step + 1) % 250 == 0:
            print(measure(model, tokenizer, test_images[:1024], test_captions[:1024]), flush=True)
    unseen = settle_unseen(model, ids) if args.refine is None else None
    model.save_pretrained(args.out / "model")
    summary = {
        **training.summary(),
        "rate": args.rate,
        "pictures": args.images,
        "threads": args.threads,
        "text_parameters": sum(p.numel() for p in model.text_model.parameters()),
        "image_parameters": sum(p.numel() for p in model.vision_model.parameters()),
        "tokens_never_in_a_caption": unseen,
        "logit_scale": round(model.logit_scale.exp().item(), 2),
        "test": measure(model, tokenizer, test_images, test_captions),
    }
    args.results.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
