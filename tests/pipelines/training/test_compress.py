"""``tellframe compress`` from shards to a carded model, phase by phase, and what it says when something is wrong."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.policy import Policy
from detector.card import Thresholds
from detector.models import find
from detector.scorer import OnnxScorer
from detector.training.backbone import EfficientNetLite
from detector.types import InputError, ModelError, NothingToAnalyseError, UsageError
from pipelines.training.compress import Plan, compress_command
from tests.compression.networks import settle
from tests.detector.training.made import write_store

RECIPE = """
start = "{start}"
teacher_size = 64
sizes = [64]
ratios = [0.5]
bits = [8]
sensitivity_images = 8
calibration_images = 8
rounds = 1
runs = 30
pool_pairs = 4
pairs = 2
[bounds]
share = 0.2
[joint]
steps = 4
milestones = 1
pruning = 0.5
max_drop = 1.0
saliency_batches = 1
[mix.kinds]
self_blend = 1.0
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Several threads sum in another order, and wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan_in(folder, **changes):
    shards = (str(folder / "shards"),)
    plan = Plan(str(folder / "recipe.toml"), shards, shards, str(folder / "out"), "export", None, None, "small", 1, 0)
    return replace(plan, **changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Shards, a checkpoint, and a compression in two goes; the files after the first."""
    folder = tmp_path_factory.mktemp("compress")
    (folder / "shards").mkdir()
    write_store(folder / "shards", reals=4, fakes=2)
    torch.save(settle(EfficientNetLite()).state_dict(), folder / "dense.pt")
    (folder / "recipe.toml").write_text(RECIPE.format(start=folder / "dense.pt"))
    compress_command(plan_in(folder, until="sensitivity"))
    first = {path.name for path in (folder / "out").iterdir()}
    compress_command(plan_in(folder))
    return folder, first


def test_a_phase_can_be_the_last(done):
    _, first = done
    assert first == {"pool", "sensitivity.json", "sensitivity.csv", "sensitivity.png", "hqp.log", "made_of.json"}


def test_the_card_says_what_was_decided(done):
    folder, _ = done
    card = find(folder / "out" / "small.onnx").card  # which checks the file against the card
    policy = Policy.from_json((folder / "out" / "policy.json").read_text())
    assert (card.name, card.kind, card.input_size, card.crop_margin) == ("small", "hqp", 64, 1.2)
    assert card.thresholds == Thresholds(0.5, 0.5)
    assert card.policy["bits"] == policy.bits
    assert {name: card.policy["groups"][name]["kept"] for name in policy.kept} == policy.kept
    assert "dense.pt" in card.origin
    facts = card.measured["compression"]
    assert facts["bytes"]["hqp"] == card.bytes
    assert facts["proof"]["float_convolutions"] == []
    assert {"dense", "hqp"} == set(facts["score"])


def test_the_model_scores_crops(done):
    folder, _ = done
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    scores = OnnxScorer(find(folder / "out" / "small.onnx"), threads=1).score(crops)
    assert scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_finished_state_a_policy_and_the_checkpoint_are_enough(done, tmp_path):
    folder, _ = done
    (tmp_path / "out").mkdir()
    shutil.copy(folder / "out" / "state.pt", tmp_path / "out")
    given, pool = str(folder / "out" / "policy.json"), str(folder / "out" / "pool")
    compress_command(plan_in(folder, out=str(tmp_path / "out"), policy=given, pool=pool))
    before, after = ((where / "out" / "small.onnx").read_bytes() for where in (folder, tmp_path))
    assert before == after
    assert not (tmp_path / "out" / "sensitivity.json").exists()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["policy_reached"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"recipe": "none.toml"}, UsageError, "no recipe at none.toml"),
        ({"policy": "none.json"}, InputError, "none.json: cannot be read as a policy"),
        ({"policy": "{folder}/recipe.toml"}, ModelError, "policy: not JSON"),
        ({"policy": "{folder}/other_size.json"}, UsageError, r"for 96 px, the recipe's sizes are 64; add it there"),
        ({"data": ("nowhere",)}, InputError, "no such directory; make shards"),
        ({"data": ("{folder}/empty",)}, NothingToAnalyseError, "no sample in any shard"),
        ({"name": "Bad Name"}, UsageError, "--name is lower-case letters, digits and _, got 'Bad Name'"),
    ],
)
def test_what_is_wrong_is_named_before_the_work(done, tmp_path, changes, error, message):
    folder, _ = done
    (folder / "empty").mkdir(exist_ok=True)
    policy = Policy.from_json((folder / "out" / "policy.json").read_text())
    (folder / "other_size.json").write_text(replace(policy, input_size=96).to_json())

    def filled(value):
        if isinstance(value, tuple):
            return tuple(map(filled, value))
        return value.format(folder=folder)

    changes = {key: filled(value) for key, value in changes.items()}
    with pytest.raises(error, match=message):
        compress_command(plan_in(folder, out=str(tmp_path), **changes))


def test_a_frame_that_leaves_nothing_to_the_network_is_named(done, tmp_path):
    folder, _ = done
    text = (folder / "recipe.toml").read_text().replace("share = 0.2", "frame_ms = 0.5")
    (tmp_path / "recipe.toml").write_text(text)
    shutil.copytree(folder / "out", tmp_path / "out")
    with pytest.raises(UsageError, match=r"frame_ms of 0.5 cannot be kept: all but the network takes \d"):
        compress_command(plan_in(folder, recipe=str(tmp_path / "recipe.toml"), out=str(tmp_path / "out")))
