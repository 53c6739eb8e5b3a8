"""The four phases on networks of several kinds: what each leaves, that it is right, and what is said when it is not."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from compression.export import CORE_INPUT, CORE_OUTPUT
from compression.hqp import Compression, compress
from compression.joint import JointRecipe
from compression.latency import LatencyTable
from compression.loader import LoaderExamples
from compression.policy import Policy
from compression.recipe import Recipe, Targets
from compression.sensitivity_map import SensitivityMap
from compression.subject import Subject
from detector.types import ModelError, NothingToAnalyseError, UsageError
from tests.compression.networks import MobileNetV3Small, ResNet18, settle

SIZE = 32
TINY = Recipe(
    ratios=(0.5,),
    bits=(8, 4),
    sensitivity_images=8,
    calibration_images=8,
    rounds=1,
    runs=30,
    bounds=Targets(share=0.16, max_drop=1.0),
    joint=JointRecipe(steps=6, milestones=2, pruning=0.6, part=8, max_drop=1.0, saliency_batches=1),
)
FILES = {
    "sensitivity.json", "sensitivity.csv", "sensitivity.png", "latency_32.json", "latency_32.csv", "rounds.json",
    "policy.json", "state.pt", "report.json", "model.onnx", "hqp.log", "made_of.json",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Several threads sum in another order, and wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def data(batches=3, size=SIZE, seed=0):
    """Labelled noise of three classes, as a loader gives it."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(8, 3, size, size, generator=generator), torch.randint(0, 3, (8,), generator=generator))
        for _ in range(batches)
    ]


def accuracy(network):
    with torch.no_grad():
        return float(np.mean([(network(x).argmax(1) == y).float().mean() for x, y in data()]))


def resnet():
    return settle(ResNet18(width=8, outputs=3))


def silent(_line):
    pass


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """All phases on a small ResNet-18: what came out, and the folder."""
    folder = tmp_path_factory.mktemp("hqp") / "out"
    delivery = compress(resnet(), LoaderExamples(data()), folder, recipe=TINY, evaluate=accuracy, tell=silent)
    return delivery, folder


@pytest.fixture
def folder(done, tmp_path):
    """A copy of the folder, to do harm to."""
    return shutil.copytree(done[1], tmp_path / "copy")


def again(folder, model=None, recipe=TINY, loader=None):
    """The same call once more; what it told."""
    told = []
    examples = LoaderExamples(data() if loader is None else loader)
    delivery = compress(model or resnet(), examples, folder, recipe=recipe, evaluate=accuracy, tell=told.append)
    return delivery, told


def test_every_phase_leaves_its_data(done):
    _, folder = done
    assert {path.name for path in folder.iterdir()} == FILES
    found = SensitivityMap.load(folder / "sensitivity.json")
    assert found.samples == 8
    assert {o.bits for layer in found.layers for o in layer.options} == {8, 4}
    assert LatencyTable.from_json((folder / "latency_32.json").read_text()).input_size == SIZE
    (lap,) = json.loads((folder / "rounds.json").read_text())["rounds"]
    assert lap["measured_ms"] > 0


def test_the_network_is_what_the_policy_says(done):
    delivery, folder = done
    policy = Policy.from_json((folder / "policy.json").read_text())
    assert {name: delivery.kept[name] for name in policy.kept} == dict(policy.kept)
    assert any(count < policy.channels[name] for name, count in policy.kept.items())
    assert delivery.bits == policy.bits
    assert set(policy.bits.values()) == {8, 4}
    for name, count in policy.kept.items():
        assert count == 0 or delivery.network.get_submodule(name).out_channels == count


def test_the_file_computes_what_torch_computes(done):
    delivery, folder = done
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    x = data(1, seed=7)[0][0]
    got = session.run([CORE_OUTPUT], {CORE_INPUT: x.numpy()})[0]
    with torch.no_grad():
        expected = delivery.network(x).numpy()
    assert np.median(np.abs(got - expected)) < 1e-3 * expected.std()
    assert delivery.proof.float_convolutions == ()


def test_the_bytes_are_kept_and_reported(done):
    delivery, folder = done
    size = (folder / "model.onnx").stat().st_size
    report = json.loads((folder / "report.json").read_text())
    assert report == json.loads(json.dumps(delivery.report))
    assert report["bytes"]["hqp"] == size
    stored = sum(len(t.raw_data) for t in onnx.load(folder / "model.onnx").graph.initializer)
    assert stored < 0.18 * report["bytes"]["dense"]  # 0.16 and a little: shapes and constants of the graph
    assert report["macs"]["hqp"] < report["macs"]["dense"]
    assert report["bounds"]["max_drop"]["met"]


def test_what_was_done_is_not_done_again(done, folder):
    delivery, told = again(folder)
    assert not [line for line in told if line.startswith(("sensitivity", "latency", "round", "policy", "milestone"))]
    before, after = (d.model.SerializeToString(deterministic=True) for d in (done[0], delivery))
    assert before == after


def test_another_recipe_does_again_what_it_changes(folder):
    (folder / "state.pt").unlink()
    _, told = again(folder, recipe=replace(TINY, bounds=Targets(share=0.2, max_drop=1.0)))
    assert not [line for line in told if line.startswith(("sensitivity", "latency"))]
    assert [line for line in told if line.startswith("policy")]


def test_a_run_that_was_stopped_goes_on_to_the_same_end(done, tmp_path):
    def stop(line):
        if line.startswith("milestone 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(resnet(), LoaderExamples(data()), tmp_path, recipe=TINY, evaluate=accuracy, tell=stop)
    assert not (tmp_path / "model.onnx").exists()
    (tmp_path / "policy.json").write_text((done[1] / "policy.json").read_text())  # both by the same measurements
    delivery, told = again(tmp_path)
    assert any(line.startswith("going on from") for line in told)
    for name, value in done[0].network.state_dict().items():
        torch.testing.assert_close(delivery.network.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_phases_work_alone(tmp_path):
    subject = Subject.of(resnet(), {SIZE: LoaderExamples(data())})
    work = Compression(subject, TINY, tmp_path, tell=silent)
    policy = work.policy()
    halved = replace(policy, kept={name: count // 2 // 8 * 8 or 8 for name, count in policy.channels.items()})
    run = work.joint(work.take(halved))
    assert run.milestones[-1].kept == {n: c for n, c in halved.kept.items() if c < halved.channels[n]}
    assert work.export(halved, run).report["score"] is None


def test_depthwise_convolutions_squeeze_and_excite_and_hard_swish(tmp_path):
    model = settle(MobileNetV3Small(outputs=3))
    bounds = Targets(bytes=2_600_000, max_drop=1.0)  # 2.4 MB of them are linear layers, which stay float
    joint = replace(TINY.joint, steps=4)
    recipe = replace(TINY, bounds=bounds, bits=(8,), joint=joint)
    delivery = compress(model, LoaderExamples(data(2)), tmp_path, recipe=recipe, tell=silent)
    assert sum(delivery.kept.values()) < sum(
        delivery.report["groups"][n]["channels"] for n in delivery.report["groups"]
    )
    assert delivery.proof.torch_median <= max(delivery.proof.rounding_median, 1e-3)


def test_the_input_size_is_part_of_the_policy_and_swaps_keep_the_bounds(tmp_path):
    sizes = {size: LoaderExamples(data(1, size)) for size in (64, SIZE)}
    recipe = replace(TINY, bits=(8,), swaps=3, bounds=Targets(share=0.25, max_drop=1.0))
    work = Compression(Subject.of(resnet(), sizes), recipe, tmp_path, tell=silent)
    policy = work.policy()
    assert policy.input_size in sizes
    dense = sum(4 * value.numel() for value in resnet().parameters())
    assert policy.predicted.bytes <= 0.25 * dense
    assert {"latency_64.json", "latency_32.json"} <= {path.name for path in tmp_path.iterdir()}


# ------------------------------------------------------------------------------------------------------- errors


def test_a_bound_that_cannot_be_kept_says_what_can(folder):
    with pytest.raises(UsageError, match=r"no policy meets 1000 bytes: the smallest allowed takes .* bytes"):
        again(folder, recipe=replace(TINY, bounds=Targets(bytes=1000)))
    with pytest.raises(UsageError, match=r"no policy meets 0\.001 ms on this device: the fastest allowed takes"):
        again(folder, recipe=replace(TINY, bounds=Targets(latency_ms=0.001)))


def test_a_frame_cannot_be_measured_without_a_pipeline(folder):
    with pytest.raises(UsageError, match="frame_ms is for the detector"):
        again(folder, recipe=replace(TINY, bounds=Targets(frame_ms=33)))


class Undecided(nn.Module):
    """What it computes depends on its input."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        if x.mean() > 0:
            x = -x
        return self.conv(x).mean((2, 3))


def test_a_model_that_cannot_be_traced_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"Undecided cannot be traced: .*control flow"):
        compress(Undecided(), LoaderExamples(data()), tmp_path, tell=silent)


def test_a_model_without_convolutions_is_named(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 3))
    with pytest.raises(ModelError, match="no convolution"):
        compress(model, LoaderExamples(data()), tmp_path, tell=silent)


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        ([], NothingToAnalyseError, "the loader gives no batch"),
        ([torch.zeros(8, 3, SIZE, SIZE)], UsageError, "pairs of tensors, inputs and targets, got Tensor"),
        ([(torch.zeros(8, 3, SIZE), torch.zeros(8))], UsageError, r"must be float \(n, c, 32, 32\)"),
        ([(torch.zeros(8, 3, SIZE, SIZE, dtype=torch.uint8), torch.zeros(8))], UsageError, "got torch.uint8"),
        ([(torch.zeros(8, 3, SIZE, SIZE), torch.zeros(7))], UsageError, r"targets must be \(8,\).*got \(7,\)"),
        ([(torch.full((8, 3, SIZE, SIZE), torch.nan), torch.zeros(8))], UsageError, "not finite"),
    ],
)
def test_data_that_cannot_be_used_is_named(tmp_path, loader, error, message):
    with pytest.raises(error, match=message):
        compress(resnet(), LoaderExamples(loader), tmp_path, tell=silent)


@pytest.mark.parametrize("harm", [b"", b"nonsense", None])
def test_a_damaged_state_is_named(folder, harm):
    state = folder / "state.pt"
    content = state.read_bytes()
    state.write_bytes(content[: len(content) // 2] if harm is None else harm)
    with pytest.raises(ModelError, match=r"state\.pt: damaged .* remove it to begin again"):
        again(folder)


def test_a_state_of_another_run_is_not_overwritten(folder):
    before = (folder / "state.pt").read_bytes()
    with pytest.raises(UsageError, match="belongs to a run of another policy, recipe or network"):
        again(folder, recipe=replace(TINY, joint=replace(TINY.joint, learning_rate=1e-5)))
    assert (folder / "state.pt").read_bytes() == before


def test_a_policy_of_another_network_is_refused(done, tmp_path):
    policy = Policy.from_json((done[1] / "policy.json").read_text())
    other = Subject.of(settle(ResNet18(width=16, outputs=3)), {SIZE: LoaderExamples(data())})
    with pytest.raises(UsageError, match=r"of another network: layer1\.0\.conv1 \(8 channels\) has 16 channels"):
        Compression(other, TINY, tmp_path).take(policy)
    larger = Subject.of(resnet(), {64: LoaderExamples(data(size=64))})
    with pytest.raises(UsageError, match="the policy is for 32 px, there are examples of 64 px"):
        Compression(larger, TINY, tmp_path).take(policy)


def test_a_damaged_result_is_named(folder):
    (folder / "policy.json").write_text("{}")
    with pytest.raises(ModelError, match="policy: schema None"):
        again(folder)


# ------------------------------------------------------------------------------------------------------- loaders


def test_a_loader_goes_round_and_can_be_entered_anywhere():
    loader = data(3)
    examples = LoaderExamples(loader)
    for first in range(7):
        batches = examples.batches(first)
        for step in range(first, first + 5):
            assert torch.equal(next(batches).inputs, loader[step % 3][0])


def test_a_data_loader_without_a_length_is_read_alike():
    loader = data(3)

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(loader)

    examples = LoaderExamples(torch.utils.data.DataLoader(Stream(), batch_size=None))
    assert torch.equal(next(examples.batches(4)).inputs, loader[1][0])
