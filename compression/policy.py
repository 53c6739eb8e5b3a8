"""What a policy decides about, and the policy: channels to keep in each group, bits for each layer.

Plain data that goes to JSON and back. :mod:`compression.problem` says what a policy costs, :mod:`compression.solver`
chooses one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Self

from compression.latency import block_of
from compression.records import build, checked, read_object
from detector.types import ModelError, UsageError

SCHEMA = "tellframe.policy/1"
NETWORK_SCHEMA = "tellframe.network/1"
BITS = (32, 8, 6, 4)
Kept = Mapping[str, int]
"""The kept count of every group, by name."""

_OVERHEAD_BITS = 32
"""Of a bias, and of the scale of an output channel whose weights are integers."""


# --------------------------------------------------------------------------------------------------- the network


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution.

    Attributes:
        name: module path, such as ``blocks.1.0.conv_pw``.
        inputs, outputs: channels, unpruned. ``inputs`` are those that one filter sees, but for depthwise layers.
        taps: kernel height x width.
        depthwise: one filter for each channel.
        in_group, out_group: the channel group that its inputs and its outputs are of; None where they stay.
        feeds: the layers that use its output, through additions and activations. What a residual block gives is
            best seen as its last convolution's, which uses what the block gets, too: the two are added there.
        output_elements: of its output at batch 1, unpruned, at the network's input size.
    """

    name: str
    inputs: int
    outputs: int
    taps: int = 1
    depthwise: bool = False
    in_group: str | None = None
    out_group: str | None = None
    feeds: tuple[str, ...] = ()
    output_elements: int = 0

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that its cost depends on, that of the inputs first, each once."""
        return tuple(dict.fromkeys(g for g in (self.in_group, self.out_group) if g is not None))

    def channels(self, kept: Kept) -> tuple[int, int]:
        """Inputs and outputs with ``kept`` channels in its groups."""
        inputs = self.inputs if self.in_group is None else kept[self.in_group]
        return inputs, self.outputs if self.out_group is None else kept[self.out_group]

    def bytes(self, kept: Kept, bits: int) -> float:
        """Size of packed weights, 32-bit biases and, unless the weights are float, a float scale for each output."""
        inputs, outputs = self.channels(kept)
        weights = self.taps * outputs * (1 if self.depthwise else inputs)
        overheads = outputs if bits == 32 else 2 * outputs
        return (weights * bits + overheads * _OVERHEAD_BITS) / 8


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that are kept or removed together.

    Attributes:
        name: of the first layer that makes them.
        channels: how many, unpruned.
        options: the counts that may be kept, ``channels`` among them. 0: the residual block that the group lies in
            may be dropped, with all of ``layers``.
        layers: all layers whose cost depends on the count.
    """

    name: str
    channels: int
    options: tuple[int, ...]
    layers: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.channels not in self.options or not all(0 <= n <= self.channels for n in self.options):
            raise ValueError(
                f"options of {self.name} are counts in 0..{self.channels}, the full one among them, got {self.options}"
            )

    @property
    def removable(self) -> bool:
        """Whether its block may be dropped."""
        return 0 in self.options


@dataclass(frozen=True, slots=True)
class Network:
    """A network as a policy sees it.

    Attributes:
        layers: every convolution, in the order in which they run.
        groups: the channel groups that may be pruned.
        input_size: that ``output_elements`` of the layers are for, in px.
        other_bytes: size of all that is no convolution.
    """

    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    input_size: int
    other_bytes: int = 0

    def __post_init__(self) -> None:
        layers = {layer.name: layer for layer in self.layers}
        groups = {group.name for group in self.groups}
        if len(layers) < len(self.layers) or len(groups) < len(self.groups):
            raise ValueError("a layer or group stands in the network twice")
        for layer in self.layers:
            if unknown := [*(set(layer.groups) - groups), *(set(layer.feeds) - layers.keys())]:
                raise ValueError(f"{layer.name} names {unknown[0]}, which is not in the network")
            strangers = [user for user in layer.feeds if layer.out_group not in (None, *layers[user].groups)]
            if strangers:
                raise ValueError(f"{strangers[0]} uses {layer.name}, but is not of its group {layer.out_group}")
        for group in self.groups:
            touching = {layer.name for layer in self.layers if group.name in layer.groups}
            if touching != set(group.layers):
                raise ValueError(f"group {group.name} lists {group.layers}, but its layers are {sorted(touching)}")

    @property
    def full(self) -> dict[str, int]:
        """Every group unpruned."""
        return {group.name: group.channels for group in self.groups}

    @property
    def layer_groups(self) -> dict[str, tuple[str, ...]]:
        """The groups that each layer's cost depends on: what a latency table is measured by."""
        return {layer.name: layer.groups for layer in self.layers}

    def there(self, kept: Kept) -> list[Layer]:
        """The layers that are left: those that touch no group that is down to 0."""
        return [layer for layer in self.layers if all(kept[g] > 0 for g in layer.groups)]

    def at_ratio(self, ratio: float) -> dict[str, int]:
        """Every group at the option nearest to ``ratio`` of its channels; none is dropped."""
        return {group.name: nearest(group.options, ratio * group.channels) for group in self.groups}

    def to_json(self) -> str:
        """The network as JSON; :meth:`from_json` reads it."""
        return json.dumps({"schema": NETWORK_SCHEMA, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The network in ``text``.

        Raises:
            ModelError: not JSON, of another schema, keys missing or unknown, or values that make no sense.
        """
        data = read_object(text, "network", NETWORK_SCHEMA, tuple(f.name for f in fields(cls)))
        try:
            layers = tuple(build(Layer, row, "a layer", ("feeds",)) for row in data["layers"])
            groups = tuple(build(Group, row, "a group", ("options", "layers")) for row in data["groups"])
            return cls(layers, groups, data["input_size"], data["other_bytes"])
        except (TypeError, ValueError) as error:
            raise ModelError(f"network: {error}") from None


def nearest(options: Collection[int], wanted: float) -> int:
    """The option above 0 that is nearest to ``wanted``; of two, the larger."""
    return min((n for n in options if n), key=lambda n: (abs(n - wanted), -n))


# --------------------------------------------------------------------------------------------------- the policy


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a policy should cost.

    Attributes:
        latency_ms: of the scorer, one face.
        bytes: of the stored weights.
        loss: summed sensitivity.
    """

    latency_ms: float
    bytes: float
    loss: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a policy may cost, as in :class:`Prediction`; None where anything goes. ``loss`` bounds the accuracy."""

    latency_ms: float | None = None
    bytes: float | None = None
    loss: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"the bound on {name} must be a number of at least 0, got {value}")

    def kept_by(self, prediction: Prediction) -> bool:
        """Whether ``prediction`` is within all bounds, but for rounding errors."""
        values, bounds = asdict(prediction), asdict(self)
        return all(bound is None or values[name] <= bound * (1 + 1e-9) + 1e-12 for name, bound in bounds.items())


@dataclass(frozen=True, slots=True)
class Policy:
    """A count for each group and a bit-width for each layer.

    Attributes:
        input_size: side of the crops in px.
        channels: of each group, unpruned.
        kept: of each group; 0: its block is dropped.
        bits: of each layer that is still there.
        predicted, bounds: what it should cost, and may.
        status: how it was found.
        gap: relative distance to the best that the solver could not rule out; 0 when there is none.
    """

    input_size: int
    channels: Mapping[str, int]
    kept: Mapping[str, int]
    bits: Mapping[str, int]
    predicted: Prediction
    bounds: Bounds = field(default_factory=Bounds)
    status: str = "optimal"
    gap: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.input_size, int) or self.input_size < 1:
            raise ValueError(f"input_size is a number of px above 0, got {self.input_size!r}")
        if not all(0 <= value < math.inf for value in (*asdict(self.predicted).values(), self.gap)):
            raise ValueError(f"what is predicted is finite and at least 0, got {self.predicted}, gap {self.gap}")
        if self.channels.keys() != self.kept.keys():
            raise ValueError(f"a policy has a count for each of {sorted(self.channels)}, got {sorted(self.kept)}")
        for group, count in self.kept.items():
            if not 0 <= count <= self.channels[group]:
                raise ValueError(f"{group} has {self.channels[group]} channels, cannot keep {count}")
        for layer, bits in self.bits.items():
            if bits not in BITS:
                raise ValueError(f"bits are one of {BITS}, got {bits} for {layer}")

    @property
    def ratios(self) -> dict[str, float]:
        """The kept share of each group, 0..1."""
        return {group: count / self.channels[group] for group, count in self.kept.items()}

    @property
    def removed_blocks(self) -> tuple[str, ...]:
        """The blocks that are dropped, by name: ``blocks.3.1``."""
        return tuple(block_of(group) for group, count in self.kept.items() if count == 0)

    def to_json(self) -> str:
        """The policy as JSON; :meth:`from_json` reads it."""
        data = {
            "schema": SCHEMA,
            "input_size": self.input_size,
            "groups": {
                name: {"channels": self.channels[name], "kept": self.kept[name], "ratio": round(ratio, 4)}
                for name, ratio in self.ratios.items()
            },
            "removed_blocks": list(self.removed_blocks),
            "bits": dict(self.bits),
            "predicted": asdict(self.predicted),
            "bounds": asdict(self.bounds),
            "status": self.status,
            "gap": self.gap,
        }
        return json.dumps(data, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The policy in ``text``. Ratios and removed blocks follow from the counts, and must agree with them.

        Raises:
            ModelError: not JSON, of another schema, with keys missing or unknown, or with values that make no sense.
        """
        keys = ("input_size", "groups", "removed_blocks", "bits", "predicted", "bounds", "status", "gap")
        data = read_object(text, "policy", SCHEMA, keys)
        try:
            columns = ("channels", "kept", "ratio")
            rows = {name: checked(row, f"group {name}", columns) for name, row in data["groups"].items()}
            policy = cls(
                input_size=data["input_size"],
                channels={name: row["channels"] for name, row in rows.items()},
                kept={name: row["kept"] for name, row in rows.items()},
                bits=data["bits"],
                predicted=build(Prediction, data["predicted"], "predicted"),
                bounds=build(Bounds, data["bounds"], "bounds"),
                status=data["status"],
                gap=data["gap"],
            )
            policy._check_derived({name: row["ratio"] for name, row in rows.items()}, data["removed_blocks"])
        except (TypeError, ValueError, AttributeError, ZeroDivisionError, UsageError) as error:
            raise ModelError(f"policy: {error}") from None
        return policy

    def _check_derived(self, ratios: Mapping[str, float], removed: Sequence[str]) -> None:
        for group, ratio in self.ratios.items():
            if abs(ratio - ratios[group]) > 1e-4:
                raise ValueError(f"{group} keeps {self.kept[group]} of {self.channels[group]}, not {ratios[group]}")
        if list(removed) != list(self.removed_blocks):
            raise ValueError(f"removed_blocks are {list(self.removed_blocks)} by the counts, got {removed}")
