"""Whole pipelines of random weights, in the layout of the Hub and small enough for a test."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from dreamtime.toybox.models import build_scheduler, build_text_encoder, build_tokenizer


def tiny_pipeline(prediction_type: str) -> StableDiffusionPipeline:
    """A text-to-image pipeline for 16x16 pictures and 8x8 latents, whose UNet outputs epsilon, v or the sample."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        tokenizer = build_tokenizer()
        return StableDiffusionPipeline(
            tokenizer=tokenizer,
            text_encoder=build_text_encoder(tokenizer),
            vae=AutoencoderKL(
                block_out_channels=(8, 8),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=16,
                scaling_factor=0.37,
            ),
            unet=UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(8, 16),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                layers_per_block=1,
                cross_attention_dim=64,
                attention_head_dim=2,
                norm_num_groups=4,
            ),
            scheduler=DDIMScheduler.from_config(build_scheduler().config, prediction_type=prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
