"""Checkpoints on the Hugging Face hub: an extra, ``pip install 'verydeep[hub]'``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError, first_line
from .run_dir import BEST, checkpoint_of

PREFIX = "hub:"


def download_checkpoint(name: str, **options: Any) -> Path:
    """The checkpoint of a repository on the hub, which is downloaded once, or of a local directory of that name.

    Args:
        options: as `huggingface_hub.hf_hub_download` takes them.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise VerydeepError("the hub needs huggingface_hub: pip install 'verydeep[hub]'.") from None
    return checkpoint_of(name, last=False) if Path(name).is_dir() else Path(hf_hub_download(name, BEST, **options))


def download_shared(name: str) -> Path:
    """The checkpoint of ``hub:owner/name``.

    Raises:
        VerydeepError: no such repository, no verydeep checkpoint in it, no network.
    """
    try:
        return download_checkpoint(name.removeprefix(PREFIX))
    except VerydeepError:
        raise
    except Exception as fault:  # the hub raises many types
        raise VerydeepError(f"cannot load {name} from the hub ({first_line(fault)}).") from None
