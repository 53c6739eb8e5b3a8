"""Training: it learns, stops and goes on as if it had not stopped, and says what is wrong with its data."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.metrics import roc_auc_score
from torch.optim.swa_utils import AveragedModel

from detector.training.backbone import EfficientNetLite, PixelsToProbability, imagenet_backbone, load_checkpoint
from detector.training.pairs import Mix
from detector.training.recipe import Recipe
from detector.training.samples import SampleStore
from detector.training.scorer import TorchScorer
from detector.training.step import Step, learning_rate
from detector.training.train import Places, train
from detector.training.validation import ValidationSet, run_time_crop
from detector.types import ModelError, NothingToAnalyseError, OutputError, UsageError
from tests.detector.training.made import write_store

TINY = Recipe(
    start="imagenet",
    steps=4,
    pairs=2,
    learning_rate=1e-3,
    sam_rho=0.0,
    average=0.5,
    warm_up=1,
    frozen_stages=3,
    validate_every=2,
    mix=Mix(size=64, kinds={"self_blend": 0.5, "swap": 0.5}),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Several threads wait for one another on a busy machine, and sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("shards"))


def run(data, out, recipe=TINY, *, validation=True, workers=0):
    said = []
    train(recipe, Places((data,), (data,) if validation else (), out, workers), said.append)
    return said


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run from end to end, and what it said."""
    out = tmp_path_factory.mktemp("run")
    return out, run(data, out)


def test_a_run_leaves_checkpoints_a_log_and_a_plot(whole):
    out, said = whole
    for name in ("best.pt", "final.pt"):
        load_checkpoint(out / name)
    rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["4"]
    assert float(rows[0]["loss"]) > 0
    looks = list(csv.DictReader((out / "validation.csv").read_text().splitlines()))
    assert [look["step"] for look in looks] == ["2", "4"]
    assert all(0 <= float(look["auc"]) <= 1 for look in looks)
    assert (out / "log.png").read_bytes().startswith(b"\x89PNG")
    assert said[-1].startswith(f"done: {out / 'final.pt'}")
    assert not list(out.glob("*.part"))


def weights(out, name="final.pt"):
    return torch.load(out / name, weights_only=True)


class StopError(Exception):
    pass


def test_a_run_that_was_stopped_ends_with_the_same_weights(data, whole, tmp_path):
    """Stopped in step 4, after the checkpoint of step 2: the second run does steps 3 and 4 as the first would have."""

    def stop(line):
        if line.startswith("step 4:"):
            raise StopError

    with pytest.raises(StopError):
        train(TINY, Places((data,), (data,), tmp_path, 0), stop)
    assert not (tmp_path / "final.pt").exists()
    assert run(data, tmp_path)[0].endswith("from 2")
    for name, value in weights(whole[0]).items():
        torch.testing.assert_close(weights(tmp_path)[name], value, rtol=0, atol=0)


def test_going_on_from_the_last_checkpoint_changes_nothing(data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    steady = replace(TINY, warm_up=100)  # so that the rate does not depend on where the end is
    run(data, one, steady, validation=False)
    run(data, two, replace(steady, steps=2), validation=False)
    said = run(data, two, steady, validation=False)
    assert said[0].endswith("from 2")
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(two)[name], value, rtol=0, atol=0)


def test_workers_change_nothing(data, whole, tmp_path):
    run(data, tmp_path, workers=2)
    for name, value in weights(whole[0]).items():
        torch.testing.assert_close(weights(tmp_path)[name], value, rtol=0, atol=0)


def test_frozen_stages_keep_their_weights(data, whole):
    ours = weights(whole[0])
    start = imagenet_backbone().state_dict()
    for name, value in ours.items():
        frozen = name.startswith(("conv_stem", "bn1", "blocks.0.", "blocks.1.", "blocks.2."))
        if value.is_floating_point() and "classifier" not in name:
            assert torch.equal(value, start[name].half()) == frozen, name


def test_another_recipe_is_not_mixed_into_a_run(data, whole):
    with pytest.raises(UsageError, match="belongs to a run with another learning_rate"):
        run(data, whole[0], replace(TINY, learning_rate=1.0))


def test_a_run_does_not_go_on_with_other_data_or_fewer_steps(data, whole, tmp_path):
    other = write_store(tmp_path / "other", reals=5)
    with pytest.raises(UsageError, match="on other data"):
        run(other, whole[0])
    with pytest.raises(UsageError, match="has done 4 steps already"):
        run(data, whole[0], replace(TINY, steps=3))


def test_the_log_goes_on_from_the_checkpoint(data, tmp_path):
    """Rows of steps that are done again are not there twice."""
    recipe = replace(TINY, steps=12, validate_every=4, pairs=1)

    def stop(line):
        if line.startswith("step 12:"):
            raise StopError

    with pytest.raises(StopError):
        train(recipe, Places((data,), (data,), tmp_path, 0), stop)
    run(data, tmp_path, recipe)
    for name, steps in (("log.csv", ["10", "12"]), ("validation.csv", ["4", "8", "12"])):
        assert [row["step"] for row in csv.DictReader((tmp_path / name).read_text().splitlines())] == steps


def test_a_run_that_diverges_says_so(data, tmp_path):
    with pytest.raises(ModelError, match="start again with a lower learning_rate"):
        run(data, tmp_path, replace(TINY, learning_rate=1e30, optimiser="sgd", warm_up=0), validation=False)


def test_a_folder_that_cannot_be_made_is_named(data, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file/run: cannot be made"):
        run(data, tmp_path / "file/run")


def test_a_damaged_checkpoint_is_named(data, tmp_path):
    (tmp_path / "last.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match=r"last\.pt is damaged"):
        run(data, tmp_path)


def test_validation_needs_both_classes(tmp_path):
    reals = write_store(tmp_path / "shards", fakes=0)
    with pytest.raises(NothingToAnalyseError, match="holds no fake face"):
        ValidationSet(reals, 64, 1.2)


def test_validation_is_the_auc_of_media(data):
    """Against scikit-learn, over the mean log-odds of each medium."""
    torch.manual_seed(3)
    backbone = EfficientNetLite().eval()
    score = ValidationSet(data, 64, 1.2).score(backbone, torch.device("cpu"), 2)
    logits, labels = [], []
    for sample in SampleStore(data):
        crop = torch.from_numpy(run_time_crop(sample, 64, 1.2))
        with torch.inference_mode():
            logits.append(float(PixelsToProbability(backbone).logit(crop)))
        labels.append(sample.origin.fake)
    assert score.auc == pytest.approx(roc_auc_score(labels, logits))


def test_a_checkpoint_scores_as_its_network(whole):
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    scorer = TorchScorer(whole[0] / "final.pt", 64)
    with torch.inference_mode():
        expected = PixelsToProbability(load_checkpoint(whole[0] / "final.pt"))(torch.from_numpy(crops)).numpy()
    np.testing.assert_allclose(scorer.score(crops), expected, atol=1e-6)
    assert scorer.card.input_size == 64
    with pytest.raises(ValueError, match="crops must be uint8"):
        scorer.score(crops[:, :32])


def test_two_processes_learn_together(data, tmp_path):
    """Each makes pairs of its own; one writes. (On two processor cores; several GPUs take the same way.)"""
    code = (
        "import torch, sys; from pathlib import Path; from dataclasses import replace\n"
        "from tests.detector.training.test_train import TINY, Places, train\n"
        "torch.set_num_threads(1)\n"
        "here = lambda *p: tuple(map(Path, p))\n"
        "train(TINY, Places(here(sys.argv[1]), here(sys.argv[1]), Path(sys.argv[2]), 0))\n"
    )
    script = tmp_path / "two.py"
    script.write_text(code)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [*launch, str(script), str(data), str(tmp_path / "run")],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("done: ") == 1
    steps = [row["step"] for row in csv.DictReader((tmp_path / "run/log.csv").read_text().splitlines())]
    assert steps == ["4"]
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert state["processes"] == 2


def test_damaged_shards_are_named(tmp_path):
    folder = write_store(tmp_path / "shards")
    shard = folder / "shard-00001.tar"
    shard.write_bytes(shard.read_bytes()[:-60_000])
    said = run(folder, tmp_path / "run", replace(TINY, steps=1), validation=False)
    assert any(line.startswith(f"damaged: {shard}: cut short") for line in said)


def make_step(recipe, backbone):
    average = AveragedModel(backbone)
    optimiser = torch.optim.SGD(backbone.parameters(), lr=1.0)
    return Step(recipe, backbone, average, optimiser, Accelerator(cpu=True))


def batch(seed=0):
    crops = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (4, 2, 64, 64, 3), np.uint8))
    return crops, torch.zeros(4, dtype=torch.long)


def test_steps_on_one_batch_learn_it():
    torch.manual_seed(0)
    step = make_step(replace(TINY, learning_rate=0.05, frozen_stages=0, steps=1000), EfficientNetLite())
    losses = [step(i, *batch())["loss"] for i in range(12)]
    assert losses[-1] < 0.5 * losses[0]


def test_sharpness_aware_steps_take_the_gradient_of_the_climbed_place():
    """Against the definition: w - lr * grad(w + rho * grad(w) / |grad(w)|), with plain autograd."""
    torch.manual_seed(0)
    recipe = replace(TINY, sam_rho=0.1, frozen_stages=0, warm_up=0, learning_rate=0.01, label_smoothing=0.0)
    backbone = EfficientNetLite()
    oracle = EfficientNetLite()
    oracle.load_state_dict(backbone.state_dict())
    crops, kinds = batch()
    x = (crops.flatten(0, 1).permute(0, 3, 1, 2).float() - 127) / 128
    fake = torch.tensor([0.0, 1.0]).repeat(4)

    def gradients():
        oracle.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(oracle(x)[:, 0], fake).backward()
        return [p.grad.clone() for p in oracle.parameters()]

    oracle.train()
    first = gradients()
    norm = torch.sqrt(sum((g**2).sum() for g in first))
    start = [p.detach().clone() for p in oracle.parameters()]
    with torch.no_grad():
        for p, g in zip(oracle.parameters(), first, strict=True):
            p += 0.1 * g / norm
    second = gradients()
    total = torch.sqrt(sum((g**2).sum() for g in second))
    clip = min(1.0, 5.0 / float(total))
    make_step(recipe, backbone)(0, crops, kinds)
    statistics = EfficientNetLite().train()
    torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(start), statistics.parameters())
    with torch.no_grad():
        statistics(x)
    # Those of one pass at the weights as they were: the climbed weights leave none.
    torch.testing.assert_close(backbone.bn1.running_mean, statistics.bn1.running_mean)
    torch.testing.assert_close(backbone.bn2.running_var, statistics.bn2.running_var, rtol=1e-3, atol=1e-5)
    for p, w, g in zip(backbone.parameters(), start, second, strict=True):
        torch.testing.assert_close(p.detach(), w - 0.01 * clip * g, rtol=2e-3, atol=2e-5)


def test_the_rate_rises_then_falls_to_nothing():
    recipe = replace(TINY, steps=100, warm_up=10, learning_rate=1.0)
    rates = [learning_rate(recipe, i) for i in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5, abs=0.01)
    assert learning_rate(recipe, 100) == pytest.approx(0)
