"""Whole pipelines of random weights, in the layouts of the Hub and small enough for a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    IFPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from dreamtime.toybox.models import build_scheduler, build_text_encoder, build_tokenizer

WORDS = "a red blue green cube ball sphere on top of the table front side back overhead view not to be seen".split()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The same random weights every time, and nobody else's chance disturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


def stirred(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """The pipeline with scales and biases of chance: new ones are all 1 or 0, and one would pass for another."""
    with seeded(4), torch.no_grad():
        for part in (pipeline.text_encoder, pipeline.vae, pipeline.unet):
            for parameter in part.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return pipeline


def small_vae(**config: Any) -> AutoencoderKL:
    """16x16 pictures to 8x8 latents."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        **config,
    )


def tiny_unet(**config: Any) -> UNet2DConditionModel:
    """8x8 latents; attention to the text at 4x4."""
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": 64,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            **config,
        }
    )


def tiny_clip_config(tokenizer: Any, width: int, **config: Any) -> CLIPTextConfig:
    """Two heads; three layers, unless told otherwise."""
    return CLIPTextConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": tokenizer.model_max_length,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **config,
        }
    )


def tiny_projecting_clip(tokenizer: Any, width: int, pooled: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(tiny_clip_config(tokenizer, width, projection_dim=pooled))


def tiny_open_clip(tokenizer: Any, width: int) -> CLIPTextModel:
    """All of OpenCLIP's 24 layers but the last, as in version 2: it listens to the last but one."""
    return CLIPTextModel(tiny_clip_config(tokenizer, width, num_hidden_layers=23, hidden_act="gelu"))


def tiny_t5(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_ff=32,
            d_kv=8,
            num_heads=2,
            num_layers=2,
            feed_forward_proj="gated-gelu",
        )
    )


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Whole words and letters, without a file."""
    letters = [(letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz,"]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((f"▁{word}", -1.0) for word in WORDS), *letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0)


def save_sentencepiece(folder: Path) -> None:
    """A T5 tokenizer as IF ships it: a SentencePiece model and its configuration, no tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 3),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}', encoding="utf-8")


def tiny_pipeline(prediction_type: str) -> StableDiffusionPipeline:
    """A text-to-image pipeline for 16x16 pictures and 8x8 latents, whose UNet outputs epsilon, v or the sample."""
    with seeded(0):
        tokenizer = build_tokenizer()
        return StableDiffusionPipeline(
            tokenizer=tokenizer,
            text_encoder=build_text_encoder(tokenizer),
            vae=small_vae(scaling_factor=0.37),
            unet=tiny_unet(),
            scheduler=DDIMScheduler.from_config(build_scheduler().config, prediction_type=prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def tiny_version_2_pipeline(prediction_type: str) -> StableDiffusionPipeline:
    """Version 2 in small: OpenCLIP's text encoder, texts filled up with "!", heads of one width all through the UNet."""
    with seeded(5):
        tokenizer = build_tokenizer()
        tokenizer.pad_token = "!"
        pipeline = StableDiffusionPipeline(
            tokenizer=tokenizer,
            text_encoder=tiny_open_clip(tokenizer, 32),
            vae=small_vae(),
            unet=tiny_unet(
                block_out_channels=(8, 16, 16),
                down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
                layers_per_block=2,
                cross_attention_dim=32,
                attention_head_dim=(2, 4, 4),
                use_linear_projection=True,
            ),
            scheduler=DDIMScheduler.from_config(build_scheduler().config, prediction_type=prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    return stirred(pipeline)


def tiny_xl_pipeline() -> StableDiffusionXLPipeline:
    """Two text encoders of width 64 and 32, a pooled embedding of 48, and six numbers about the picture's size."""
    with seeded(1):
        tokenizer = build_tokenizer()
        return StableDiffusionXLPipeline(
            tokenizer=tokenizer,
            tokenizer_2=build_tokenizer(),
            text_encoder=build_text_encoder(tokenizer),
            text_encoder_2=tiny_projecting_clip(tokenizer, 32, 48),
            vae=small_vae(scaling_factor=0.13, force_upcast=True),
            unet=tiny_unet(
                cross_attention_dim=96,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 48,
                transformer_layers_per_block=(1, 2),
                use_linear_projection=True,
            ),
            scheduler=build_scheduler_of_epsilon(),
            add_watermarker=False,
        )


def build_scheduler_of_epsilon() -> DDIMScheduler:
    return DDIMScheduler.from_config(build_scheduler().config, prediction_type="epsilon")


def tiny_flow_pipeline(with_t5: bool = True) -> StableDiffusion3Pipeline:
    """A rectified flow with two CLIP encoders and T5, or without it."""
    with seeded(2):
        tokenizer, spelling = build_tokenizer(), tiny_t5_tokenizer()
        return StableDiffusion3Pipeline(
            tokenizer=tokenizer,
            tokenizer_2=build_tokenizer(),
            tokenizer_3=spelling if with_t5 else None,
            text_encoder=tiny_projecting_clip(tokenizer, 24, 24),
            text_encoder_2=tiny_projecting_clip(tokenizer, 32, 40),
            text_encoder_3=tiny_t5(spelling, 72) if with_t5 else None,
            vae=small_vae(scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
            transformer=SD3Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=72,
                caption_projection_dim=16,
                pooled_projection_dim=64,
                pos_embed_max_size=8,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )


def tiny_if_pipeline(folder: Path) -> IFPipeline:
    """IF's stage I for 8x8 pictures, saved: six channels out, T5 in, its tokenizer a SentencePiece model."""
    save_sentencepiece(folder / "tokenizer")
    with seeded(3):
        tokenizer = T5Tokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        pipeline = IFPipeline(
            tokenizer=tokenizer,
            text_encoder=tiny_t5(tokenizer, 24),
            unet=tiny_unet(
                in_channels=3,
                out_channels=6,
                act_fn="gelu",
                block_out_channels=(16, 32),
                down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
                mid_block_type="UNetMidBlock2DSimpleCrossAttn",
                up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
                addition_embed_type="text",
                addition_embed_type_num_heads=2,
                attention_head_dim=8,
                cross_attention_dim=32,
                cross_attention_norm="group_norm",
                encoder_hid_dim=24,
                encoder_hid_dim_type="text_proj",
                resnet_time_scale_shift="scale_shift",
            ),
            scheduler=DDPMScheduler(
                beta_schedule="squaredcos_cap_v2",
                variance_type="learned_range",
                thresholding=True,
                dynamic_thresholding_ratio=0.95,
                sample_max_value=1.5,
            ),
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    save_sentencepiece(folder / "tokenizer")
    return pipeline
