"""How the page looks: night and dawn colours, local fonts only, one style sheet."""

from pathlib import Path

import gradio as gr
from gradio.themes import Color
from gradio.themes.utils.fonts import LocalFont

ASSETS = Path(__file__).parent / "assets"
STYLE = ASSETS / "style.css"
LOGO = ASSETS / "logo.svg"
FOOTER = ASSETS / "footer.html"

DREAM = Color(
    name="dream",
    c50="#f5f3ff",
    c100="#ebe8ff",
    c200="#d9d3ff",
    c300="#bfb4fe",
    c400="#a08ff9",
    c500="#7d66ee",
    c600="#6648dd",
    c700="#5639bf",
    c800="#47319b",
    c900="#3a2a7c",
    c950="#231850",
)
NIGHT = Color(
    name="night",
    c50="#f9f9fc",
    c100="#f2f2f7",
    c200="#e5e5ee",
    c300="#d0d0de",
    c400="#a0a0b6",
    c500="#70708a",
    c600="#54546d",
    c700="#3a3a51",
    c800="#262638",
    c900="#1a1a28",
    c950="#11111b",
)


def theme() -> gr.themes.Base:
    """The theme of every tab; fetches nothing."""
    return gr.themes.Base(
        primary_hue=DREAM,
        secondary_hue=DREAM,
        neutral_hue=NIGHT,
        radius_size=gr.themes.sizes.radius_lg,
        font=[LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=[LocalFont("IBM Plex Mono", weights=(400,)), "ui-monospace", "monospace"],
    ).set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_900",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_weight="600",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        body_text_color="*neutral_800",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_800",
        input_border_color_focus="*primary_400",
        input_border_color_focus_dark="*primary_500",
        button_primary_background_fill="linear-gradient(100deg, *primary_600, *primary_500)",
        button_primary_background_fill_hover="linear-gradient(100deg, *primary_700, *primary_600)",
        button_primary_background_fill_dark="linear-gradient(100deg, *primary_600, *primary_500)",
        button_primary_background_fill_hover_dark="linear-gradient(100deg, *primary_500, *primary_400)",
        button_primary_text_color="white",
        button_border_width="1px",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_text_color="*neutral_700",
        button_secondary_text_color_dark="*neutral_200",
        checkbox_background_color_selected="*primary_600",
        checkbox_border_color_selected="*primary_600",
        slider_color="*primary_500",
        slider_color_dark="*primary_400",
        color_accent="*primary_600",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )
