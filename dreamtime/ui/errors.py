"""Every error as one sentence for the person who caused it; what was not foreseen goes to the log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr

log = logging.getLogger(__name__)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what goes wrong inside into a `gr.Error` without a traceback. Gradio renders the text as HTML: it is escaped."""
    try:
        yield
    except gr.Error:
        raise
    except ValueError as error:
        raise gr.Error(escape(str(error), quote=False), title="That did not work", print_exception=False) from error
    except Exception as error:
        log.exception("unforeseen error")
        text = "Something unexpected went wrong here; the server's log has the details. A run that had begun can be resumed."
        raise gr.Error(text, title="Unexpected error", print_exception=False) from error
