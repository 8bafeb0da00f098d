"""The embedded model's parts, untrained: a word-level CLIP tokenizer and text encoder, a VAE of factor 4, a small UNet."""

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dreamtime.toybox.world import vocabulary

WIDTH = 64  # of the text embedding
MAX_TOKENS = 77
START, END = "<|startoftext|>", "<|endoftext|>"


def merges_of(word: str) -> list[tuple[str, str]]:
    """The merges that join a word's letters from the left: t o, to r, tor u, toru s</w>."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    return [("".join(pieces[:end]), pieces[end]) for end in range(1, len(pieces))]


def tokenizer_with(words: list[str]) -> CLIPTokenizer:
    """A CLIP tokenizer that merges the words' letters, those of earlier words first; the ids do not depend on the order."""
    symbols = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    symbols += [chr(code) for code in (*range(0xA1, 0xAD), *range(0xAE, 0x100), *range(0x100, 0x144))]
    joined = ["".join(pair) for word in sorted(words) for pair in merges_of(word)]
    vocab = list(dict.fromkeys([START, END, *symbols, *(symbol + "</w>" for symbol in symbols), *joined]))
    merges = list(dict.fromkeys(pair for word in words for pair in merges_of(word)))
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(vocab)}, merges=merges, model_max_length=MAX_TOKENS)


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows each word of the toybox as one token; other words fall apart into letters.

    Byte-pair merges compete: "a n</w>", which makes "an", would tear "cyan". Words that come out torn move to the front of the
    merges until none does.
    """
    words = [word for word in vocabulary() if word.isalpha()]  # CLIP splits off digits before it merges letters
    for _ in words:
        tokenizer = tokenizer_with(words)
        torn = [word for word in words if len(tokenizer.tokenize(word)) > 1]
        if not torn:
            return tokenizer
        words = [*torn, *(word for word in words if word not in torn)]
    raise ValueError(f"No order of merges keeps these words whole: {', '.join(torn)}.")


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Four causal transformer layers of width 64: two did not learn which of two colours belongs to which of two things."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = CLIPTextModel(config)
    # Ten times CLIP's own start: the words of a small vocabulary may well begin apart.
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.2)
    return model


def build_vae() -> AutoencoderKL:
    """64x64 images to 16x16 latents of 4 channels and back."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
    )


def build_tiny_vae() -> AutoencoderTiny:
    """The same by fewer sums: a TAESD of 32 channels, without norms, between images and latents of unit variance."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32,) * 3,
        decoder_block_out_channels=(32,) * 3,
        num_encoder_blocks=(0, 1, 1),
        num_decoder_blocks=(4, 1, 0),  # most of what it knows of the whole picture, where that is smallest
    )


def build_unet() -> UNet2DConditionModel:
    """16x16x4 latents; attention to the text at 8x8 and 4x4 alone, which costs half as much on a CPU as at every level."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with the velocity as the model's target."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
