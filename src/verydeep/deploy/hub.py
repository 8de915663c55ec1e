"""Nets on the Hugging Face hub, by its own mixin: an extra, ``pip install 'verydeep[hub]'``.

``SharedNet.from_pretrained("owner/name")`` downloads a checkpoint, and ``SharedNet.of("runs/D")`` can be pushed:
``.push_to_hub("owner/name")``. A local directory works as well as a name on the hub.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import load_classifier
from ..checkpoints.hub import download_checkpoint
from ..checkpoints.load import load_model
from ..checkpoints.model_card import PAGE, write_model_card
from ..checkpoints.run_dir import BEST, checkpoint_of
from ..core.errors import VerydeepError
from ..core.settings import MachineSettings
from ..evaluation.predict import Classifier
from ..transfer.model import open_model

try:
    from huggingface_hub import ModelHubMixin
except ImportError:
    raise VerydeepError("the hub needs huggingface_hub: pip install 'verydeep[hub]'.") from None


class SharedNet(ModelHubMixin):
    """A classifier's checkpoint, as the hub's mixin saves, pushes and loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def of(run: str | Path) -> SharedNet:
        """The best net of a run directory, or a checkpoint file; raises VerydeepError where there is none."""
        return SharedNet(load_classifier(checkpoint_of(run, last=False)).path)

    def classifier(self, machine: MachineSettings | None = None) -> Classifier:
        """The net, ready to predict."""
        return open_model(load_model(self.path), machine or MachineSettings(workers=0))

    def _save_pretrained(self, save_directory: Path) -> None:
        """Saves the checkpoint and its model card; called by the mixin."""
        copy, card = save_directory / BEST, self.path.with_name(PAGE)
        shutil.copyfile(self.path, copy)
        if card.is_file():
            shutil.copyfile(card, save_directory / PAGE)
        else:
            write_model_card(copy, load_classifier(copy).metadata)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, revision: str | None = None, **arguments: Any) -> SharedNet:
        """From a local directory or a repository of the hub."""
        names = ("cache_dir", "force_download", "local_files_only", "token")
        options = {name: arguments[name] for name in names if arguments.get(name) is not None}
        return cls(download_checkpoint(model_id, revision=revision, **options))
