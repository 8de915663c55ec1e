"""Settings: named runs of the paper, values of the right type, JSON both ways."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.core.config import Scale, from_json, to_json
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import DataSettings, TrainSettings
from verydeep.training.recipes import papers_start, settings_of_run


@pytest.mark.parametrize(
    ("run", "scale", "lr", "initialise", "learn"),
    [
        ("A/256", Scale(256, 256), 1e-2, "gaussian", "all"),  # Sect. 3.1: trained with random initialisation
        ("D/256", Scale(256, 256), 1e-2, "gaussian", "all"),
        ("D/384", Scale(384, 384), 1e-3, "gaussian", "all"),  # "a smaller initial learning rate of 10^-3"
        ("E/256-512", Scale(256, 512), 1e-3, "gaussian", "all"),
        ("D/256-512-fc", Scale(256, 512), 1e-3, "gaussian", "fc"),  # Sect. 4.4
    ],
)
def test_runs_of_the_paper(run: str, scale: Scale, lr: float, initialise: str, learn: str) -> None:
    found = settings_of_run(run, {})
    assert (found.S, found.lr, found.initialise, found.learn) == (scale, lr, initialise, learn)
    assert (found.batch, found.momentum, found.weight_decay, found.drops) == (256, 0.9, 5e-4, 3)
    assert (found.max_epochs, found.max_steps, found.crop) == (74, 370_000, 224)


@pytest.mark.parametrize(
    ("run", "start"),
    [
        *(("A/256", None), ("A-LRN/256", None), ("shallow-B/256", None), ("B/256", "A/256"), ("E/256", "A/256")),
        *(("D/384", "D/256"), ("E/256-512", "E/384"), ("D/256-512-fc", "D/384"), ("D", None), ("D/320", None)),
    ],
)
def test_the_chain_of_the_paper(run: str, start: str | None) -> None:
    """Sect. 3.1 and 4.4: what each run was initialised with."""
    assert papers_start(run) == start


def test_a_nets_name_alone_is_the_recipe_for_own_photos() -> None:
    scratch, tuned = (
        settings_of_run("D", {"start": "none"}),
        settings_of_run("D", {"start": "x.safetensors", "crop": "96"}),
    )
    assert (scratch.lr, scratch.initialise, scratch.head_epochs) == (1e-2, "glorot", 0)
    assert (tuned.lr, tuned.new_fc, tuned.divergence_retries) == (1e-4, "fitted", 3)
    assert tuned.head_epochs > 0
    assert Scale(110, 110) == tuned.S
    usual = settings_of_run("D", {})
    assert (usual.start, usual.lr, usual.head_epochs) == ("released", 1e-4, tuned.head_epochs)
    for without in (settings_of_run("C", {}), settings_of_run("D", {"width": "0.5"}), settings_of_run("D/256", {})):
        assert without.start == "none"


def test_given_settings_override_the_recipe_as_text_or_value() -> None:
    for given_lr, given_s in (("3e-4", "300-400"), (3e-4, Scale(300, 400))):
        found = settings_of_run("D/256", {"lr": given_lr, "S": given_s, "mirror": "no", "drop_at": "3,5"})
        assert (found.lr, found.S, found.mirror, found.drop_at) == (3e-4, Scale(300, 400), False, (3, 5))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"leraning_rate": 1}, "unknown setting 'leraning-rate'"),
        ({"momentun": 1}, "did you mean 'momentum'"),
        ({"lr": "fast"}, "lr must be a number, not 'fast'"),
        ({"lr": "nan"}, "lr must be a number"),
        ({"lr": 0}, "lr must be above 0"),
        ({"batch": "2.5"}, "batch must be an integer"),
        ({"batch": 2.5}, "batch must be an integer"),
        ({"batch": -1}, "batch must be 0 or more"),
        ({"mirror": "maybe"}, "mirror must be yes or no"),
        ({"learn": "fcc"}, "did you mean 'fc'"),
        ({"S": "big"}, "S 'big' is not a scale"),
        ({"S": "1" * 5000}, f"S '{60 * '1'}' is not a scale"),
        ({"S": "512-256"}, "S '512-256' is not a scale"),
        ({"S": 200}, "S 200 is below the crop of 224"),
        ({"crop": 100}, "must be a multiple of 32"),
        ({"momentum": 1.0}, "momentum must be below 1"),
        ({"seed": 10**17}, "seed must be at most"),
        ({"lr": "inf"}, "lr must be a number"),
        ({"drop_at": "5,3"}, "drop-at must list epochs from 1 up"),
        ({"drop_at": "-1"}, "drop-at must list epochs from 1 up"),
        ({"drop_at": ","}, "drop-at is an empty list"),
        ({"S": 10**11}, "above 8192 pixels"),
    ],
)
def test_an_invalid_setting_has_a_message(given: dict[str, Any], says: str) -> None:
    with pytest.raises(VerydeepError, match=says):
        settings_of_run("D/256", given)


@pytest.mark.parametrize("run", ["", "D/", "D/x", "D/256/3", "D/256-fc-fc", "F/256"])
def test_invalid_run_names(run: str) -> None:
    with pytest.raises(VerydeepError):
        settings_of_run(run, {})


def test_fractions_must_leave_training_images() -> None:
    with pytest.raises(VerydeepError, match="together below 1"):
        DataSettings(dev_fraction=0.5, test_fraction=0.5)


@given(
    st.builds(
        TrainSettings,
        net=st.sampled_from(["A", "E"]),
        S=st.integers(224, 600).map(lambda side: Scale(side, side + 7)),
        lr=st.floats(1e-9, 1),
        mirror=st.booleans(),
        drop_at=st.sets(st.integers(1, 90)).map(sorted).map(tuple),
    )
)
def test_json_round_trip(settings: TrainSettings) -> None:
    assert from_json(TrainSettings, to_json(settings)) == settings


def test_the_test_scale_follows_the_paper() -> None:
    assert Scale(384, 384).test_scale == 384
    assert Scale(256, 512).test_scale == 384


@pytest.mark.parametrize(
    ("scale", "crop", "scales"),
    [
        ("256", 224, (224, 256, 288)),
        ("384", 224, (352, 384, 416)),
        ("256-512", 224, (256, 384, 512)),
        ("110", 96, (96, 110, 124)),
        ("73", 64, (64, 73, 82)),
        ("64", 64, (64, 73)),  # none below the crop
    ],
)
def test_several_test_scales_follow_the_paper(scale: str, crop: int, scales: tuple[int, ...]) -> None:
    assert Scale.parse(scale).test_scales(crop) == scales
