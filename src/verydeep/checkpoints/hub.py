"""Nets shared through the Hugging Face hub, by its own mixin: an extra, ``pip install 'verydeep[hub]'``.

``SharedNet.from_pretrained("owner/name")`` downloads a checkpoint of ours, and ``SharedNet.of("runs/D")`` can be
pushed: ``.push_to_hub("owner/name")``. A folder on this machine serves as well as a name on the hub.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.settings import MachineSettings
from ..evaluation.predict import Classifier, load_net
from .checkpoint import load_classifier
from .model_card import PAGE, write_model_card
from .run_dir import BEST, checkpoint_of

try:
    from huggingface_hub import ModelHubMixin, hf_hub_download
except ImportError:
    raise VerydeepError("the hub needs huggingface_hub: pip install 'verydeep[hub]'.") from None

PREFIX = "hub:"


class SharedNet(ModelHubMixin):
    """A checkpoint that tells classes, as the hub's mixin saves, pushes and loads it; ``classifier`` is asked."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def of(run: str | Path) -> SharedNet:
        """The best net of a run's folder, or a checkpoint file; raises VerydeepError where there is none."""
        return SharedNet(load_classifier(checkpoint_of(run, last=False)).path)

    def classifier(self, machine: MachineSettings | None = None) -> Classifier:
        """The net, ready to be asked."""
        return load_net(self.path, False, machine or MachineSettings(workers=0))

    def _save_pretrained(self, save_directory: Path) -> None:
        """The checkpoint and its page, as the mixin asks for them."""
        place = save_directory / BEST
        shutil.copyfile(self.path, place)
        page = self.path.with_name(PAGE)
        if page.is_file():
            shutil.copyfile(page, save_directory / PAGE)
        else:
            write_model_card(place, load_classifier(place).card)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, revision: str | None = None, **told: Any) -> SharedNet:
        """A folder here, or a repository of the hub."""
        if Path(model_id).is_dir():
            return cls(checkpoint_of(model_id, last=False))
        names = ("cache_dir", "force_download", "local_files_only", "token")
        wishes = {name: told[name] for name in names if told.get(name) is not None}
        return cls(Path(hf_hub_download(model_id, BEST, revision=revision, **wishes)))


def load_shared(name: str, machine: MachineSettings) -> Classifier:
    """The net of ``hub:owner/name``, downloaded once.

    Raises:
        VerydeepError: no such repository, none of ours, no network.
    """
    try:
        shared: SharedNet = SharedNet.from_pretrained(name.removeprefix(PREFIX))
    except VerydeepError:
        raise
    except Exception as fault:  # the hub's own, of many names
        reason = (str(fault).splitlines() or ["no reason given"])[0][:120]
        raise VerydeepError(f"cannot take {name} from the hub ({reason}).") from None
    return shared.classifier(machine)
