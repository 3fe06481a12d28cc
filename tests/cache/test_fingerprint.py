"""A fingerprint is another wherever something that an encoder's embeddings depend on is another."""

import functools
import logging
import re
import subprocess
import sys
import threading
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from rankproof import Preprocess, open_encoder
from rankproof.cache.fingerprint import UnreadableError, fingerprint
from rankproof.models.program import load_program


class Net(nn.Module):
    """Everything that a module can hold: weights, buffers of both kinds, numbers, lists, objects."""

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.linear = nn.Linear(4, 3)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(3, 4, generator=random))
            self.linear.bias.zero_()
        self.register_buffer("running", torch.zeros(3))
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.scale, self.sizes, self.table = 2.0, [1, 2], {"a": (1, "x")}
        self.plain, self.array = torch.zeros(2), np.zeros(2)
        self.activation = torch.relu

    def forward(self, x):
        return self.activation(self.linear(x.flatten(1))) * self.scale


def changed_weight(net):
    with torch.no_grad():
        net.linear.weight[1, 2] = torch.nextafter(net.linear.weight[1, 2], torch.tensor(9.0))


def wrapped(net):
    forward = net.forward
    net.forward = lambda x: forward(x) + 1


CHANGES = {
    "one weight": changed_weight,
    "a buffer": lambda net: net.running.add_(1e-6),
    "a non-persistent buffer": lambda net: net.hidden[0].add_(1e-6),
    "a float": lambda net: setattr(net, "scale", 2.5),
    "an entry of a list": lambda net: net.sizes.append(3),
    "an entry of a dict": lambda net: net.table.update(a=(1, "y")),
    "a plain tensor": lambda net: net.plain.add_(1),
    "an array": lambda net: net.array.__setitem__(0, 1),
    "a function": lambda net: setattr(net, "activation", torch.tanh),
    "precision": lambda net: net.double(),
    "a shape": lambda net: setattr(net, "plain", torch.zeros(1, 2)),
    "a module": lambda net: setattr(net, "linear", nn.Sequential(net.linear)),
    "a hook": lambda net: net.register_forward_hook(lambda module, args, z: z + 1),
    "a hook before": lambda net: net.register_forward_pre_hook(lambda module, args: None),
    "forward of this object": wrapped,
    "its mode": lambda net: net.train(),
    "a parametrization": lambda net: nn.utils.parametrizations.weight_norm(net.linear),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_of_a_module_is_another_fingerprint(name):
    net, same = Net().eval(), Net().eval()
    assert fingerprint(net) == fingerprint(same)
    CHANGES[name](same)
    assert fingerprint(net) != fingerprint(same)


def test_a_function_put_into_a_class_of_a_library_counts(monkeypatch):
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    before = fingerprint(net)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x.abs())
    assert fingerprint(net) != before


SCALE = 1.0


def closure(factor):
    return lambda x: x * factor


def with_default(x, factor=1.0):
    return x * factor


def with_global(x):
    return x * SCALE


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def apply(self, x):
        return x * self.factor


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor


def cached(factor):
    return functools.lru_cache(closure(factor))


class Named(nn.Module):
    """Holds values by any names."""

    def __init__(self, **values):
        super().__init__()
        vars(self).update(values)


class SlottedModule(nn.Module):
    __slots__ = ("factor",)

    def __init__(self, factor):
        super().__init__()
        self.factor = factor


class SlottedList(list):
    __slots__ = ("factor",)

    def __init__(self, factor):
        super().__init__()
        self.factor = factor


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (closure(1), closure(2)),
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x: x.abs(), lambda x: x.exp()),
        (functools.partial(with_default, factor=1), functools.partial(with_default, factor=2)),
        (Scale(1).apply, Scale(2).apply),
        (Slotted(1), Slotted(2)),
        (cached(1), cached(2)),
        (torch.no_grad()(closure(1)), torch.no_grad()(closure(2))),
        (Preprocess(resize=8), Preprocess(resize=9)),
        (Preprocess(resize=8), Preprocess(crop=8)),
        (torch.fx.symbolic_trace(nn.ReLU()), torch.fx.symbolic_trace(nn.GELU())),
        (Named(hook_scale=1), Named(hook_scale=2)), (SlottedModule(1), SlottedModule(2)),
        (defaultdict(closure(1)), defaultdict(closure(2))), (SlottedList(1), SlottedList(2)),
        (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
        (slice(np.arange(3000)), slice(np.arange(3000) // 2 * 2)),
        (re.compile("a"), re.compile("b")), (re.compile("a"), re.compile("a", re.I)),
        (torch.tensor(1.0), torch.tensor(1.0).double()),
        (1, 1.0), (0.0, -0.0), ("1", 1), ((1, 2), [1, 2]), (True, 1), ({1: 2}, {2: 1}), ([[1], 2], [[1, 2]]),
        ({"a", "b"}, {"a", "c"}), (torch.relu, torch.tanh), (np.float32(1), np.float64(1)),
    ],
)  # fmt: skip
def test_unlike_things_have_unlike_fingerprints(one, other):
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(other)


def compiled(net):
    """What torch.compile returns, without the seconds that its compiler takes to be imported."""
    module = type("OptimizedModule", (nn.Module,), {"__module__": "torch._dynamo.eval_frame"})()
    module._orig_mod, module.lock = net, threading.Lock()
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "of", [torch.jit.script, lambda net: torch.jit.freeze(torch.jit.script(net)), compiled]
)
def test_programs_that_differ_in_a_weight_or_an_activation(of):
    def net(activation, value):
        linear = nn.Linear(2, 2)
        nn.init.constant_(linear.weight, value)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(linear, activation).eval()

    found = [of(net(nn.ReLU(), 1)), of(net(nn.ReLU(), 2)), of(net(nn.GELU(), 1))]
    assert len({fingerprint(each) for each in found}) == 3


def test_defaults_and_globals_of_a_function_count(monkeypatch):
    before = fingerprint(with_default), fingerprint(with_global)
    monkeypatch.setattr(with_default, "__defaults__", (2.0,))
    monkeypatch.setitem(with_global.__globals__, "SCALE", 2.0)
    after = fingerprint(with_default), fingerprint(with_global)
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_program_of_a_file_holds_counts(tmp_path):
    def saved(name, module):
        torch.jit.save(torch.jit.script(module), str(tmp_path / name))
        return load_program(name, tmp_path / name, trust=True).encoder

    torch.manual_seed(0)
    one, other = saved("a.pt", nn.Linear(2, 2)), saved("b.pt", nn.Linear(2, 2))
    assert fingerprint(one) != fingerprint(other)
    before = fingerprint(one)
    one.program.weight.data.add_(1)
    assert fingerprint(one) != before


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(),
        (entry for entry in [1]),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
        nn.LazyLinear(3),
        np.array([object()]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_read_has_no_fingerprint(value):
    with pytest.raises(UnreadableError):
        fingerprint({"held": [value]})
    with pytest.raises(UnreadableError):
        fingerprint(lambda: value)


def test_what_raises_when_it_is_looked_at_has_no_fingerprint():
    class Shy:
        def __getattr__(self, name):
            raise RuntimeError(name)

    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (Shy(), deep):
        with pytest.raises(UnreadableError, match="raises R"):
            fingerprint([value])


def test_a_model_of_transformers(tmp_path):
    library = pytest.importorskip("transformers")
    library.utils.logging.set_verbosity(logging.CRITICAL)
    library.utils.logging.disable_progress_bar()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = library.ViTConfig(image_size=16, patch_size=8, **sizes)
    library.ViTModel(config).save_pretrained(tmp_path / "vit")
    library.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    one, other = (open_encoder(f"hf:{tmp_path}/vit").encoder for _ in range(2))
    assert fingerprint(one) == fingerprint(other)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0].add_(1e-3)
    assert fingerprint(one) != fingerprint(other)


def test_an_object_can_say_itself_what_it_depends_on():
    class Session:
        def __init__(self, digest):
            self.digest, self.lock = digest, threading.Lock()

        def __rankproof_state__(self):
            return [self.digest]

    assert fingerprint(Session("a")) == fingerprint(Session("a"))
    assert fingerprint(Session("a")) != fingerprint(Session("b"))


MAIN = """
import helper
from helper import LIMIT
from torch import nn

class Own(nn.Module):
    def forward(self, x):
        return helper.shift(x).flatten(1).clamp(max=LIMIT)

def late(x):
    from below import inner
    return inner.double(x)

def encoder():
    return Own()
"""
HELPER = "import deeper\nLIMIT = 1.0\ndef shift(x):\n    return x + deeper.STEP\n"
FILES = {
    "main.py": MAIN,
    "helper.py": HELPER,
    "deeper.py": "STEP = 1\n",
    "below/__init__.py": "",
    "below/inner.py": "def double(x):\n    return 2 * x\n",
}
PRINT = (
    "from rankproof import open_encoder\n"
    "from rankproof.cache.fingerprint import fingerprint\n"
    "print(*(fingerprint(open_encoder(name).encoder) for name in ('main.py:encoder', 'main.py:late')))\n"
)


@pytest.fixture
def users_files(tmp_path, monkeypatch):
    """Writes a user's files with some changes, and opens both encoders as a new process would."""

    def fingerprints(**changes):
        for name, text in {**FILES, **changes}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        for name in ("helper", "deeper", "below", "below.inner"):
            sys.modules.pop(name, None)
        return [fingerprint(open_encoder(f"main.py:{name}").encoder) for name in ("encoder", "late")]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return fingerprints


def test_the_text_of_a_users_files_counts(users_files):
    first = users_files()
    assert users_files() == first
    deeper = users_files(**{"deeper.py": "STEP = 2\n"})
    assert deeper[0] != first[0]
    inner = users_files(**{"below/inner.py": "def double(x):\n    return 3 * x\n"})
    assert inner[1] != first[1]  # imported inside of the function only, so not loaded yet


def test_code_that_was_loaded_before_its_file_changed_is_not_taken_for_the_new_text(users_files, tmp_path):
    users_files()
    old = open_encoder("main.py:encoder").encoder
    changed = {"helper.py": HELPER.replace("x + deeper", "x - deeper")}
    new = users_files(**changed)[0]
    assert fingerprint(old) != new


def test_another_process_finds_the_same(users_files, tmp_path):
    found = users_files()
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PRINT]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.stdout.split() == found, result.stderr
