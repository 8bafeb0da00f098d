"""Every error as one sentence for the person who caused it; what was not foreseen goes to the log."""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

log = logging.getLogger(__name__)

FULL = "The server's disk is full: try again later."
UNFORESEEN = "Something unexpected went wrong here; the server's log has the details. A run that had begun can be resumed."


@contextmanager
def one_sentence(spell: Callable[[str], str] = str) -> Iterator[None]:
    """Turn what goes wrong inside into a `gr.Error` without a traceback.

    The page renders the sentence as HTML, so what is meant for it is spelled with `html.escape`; programs get it as it is.
    """
    try:
        yield
    except gr.Error:
        raise
    except ValueError as error:
        raise gr.Error(spell(str(error)), title="That did not work", print_exception=False) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            log.error("the disk is full", exc_info=True)
            raise gr.Error(FULL, title="That did not work", print_exception=False) from error
        log.exception("unforeseen error")
        raise gr.Error(UNFORESEEN, title="Unexpected error", print_exception=False) from error
