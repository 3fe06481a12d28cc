"""Attacks search on an encoder's inference graph where it is the same function, and nowhere else."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from rankproof import PGD, Gallery, LocalOracle, QueryRaise, Ranker, Reorder, Threat, attack
from rankproof.ranking.examination import GRAPH

IMAGES = torch.rand(20, 3, 12, 12, generator=torch.Generator().manual_seed(1))
ROWS = torch.arange(6)


def norm(channels=8, **options):
    """A batch norm that has seen images."""
    random = torch.Generator().manual_seed(2)
    layer = nn.BatchNorm2d(channels, **options)
    if layer.running_mean is not None:
        layer.running_mean.uniform_(-1, 1, generator=random)
        layer.running_var.uniform_(0.5, 2, generator=random)
    if layer.weight is not None:
        with torch.no_grad():
            layer.weight.uniform_(0.5, 2, generator=random)
            layer.bias.uniform_(-1, 1, generator=random)
    return layer


class Net(nn.Module):
    """Two convolutions with batch norms; subclasses use them in ways that cannot be folded."""

    def __init__(self, **options):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 8, 3, bias=False)
            self.second = nn.Conv2d(8, 8, 3, stride=2, groups=2)
            self.head = nn.Linear(8, 16)
        self.bn1, self.bn2 = norm(**options), norm(**options)
        self.calls = 0

    def start(self, pixels):
        return functional.relu(self.bn1(self.first(pixels)), inplace=True)

    def forward(self, pixels):
        self.calls += 1
        return self.head(functional.relu(self.bn2(self.second(self.start(pixels)))).mean((2, 3)))


class Skip(Net):
    """The output of the convolution is used beside the batch norm."""

    def start(self, pixels):
        x = self.first(pixels)
        return functional.relu(self.bn1(x)) + x


class Between(Net):
    """Something happens in place between convolution and batch norm."""

    def start(self, pixels):
        return functional.relu(self.bn1(self.first(pixels).add_(0.5)))


class TwoNorms(Net):
    """One convolution before two batch norms."""

    def start(self, pixels):
        x = self.first(pixels)
        return functional.relu(self.bn1(x)) + functional.relu(self.bn2(x))


class NormTwice(Net):
    """One batch norm after two convolutions."""

    def __init__(self):
        super().__init__()
        self.bn2 = self.bn1


class ConvolutionTwice(Net):
    """A convolution that is used once with and once without its batch norm."""

    def start(self, pixels):
        return functional.relu(self.bn1(self.first(pixels))) + self.first(pixels.flip(3))


class Functional(Net):
    """The convolution's weights are used without the module."""

    def start(self, pixels):
        x = functional.conv2d(pixels, self.first.weight)
        return functional.relu(self.bn1(self.first(pixels))) + x


class Biased(nn.Conv2d):
    """A convolution whose forward ignores its bias."""

    def forward(self, pixels):
        return functional.conv2d(pixels, self.weight, None, self.stride)


class IgnoresBias(Net):
    def __init__(self):
        super().__init__()
        self.first = Biased(3, 8, 3)


class Hooked(Net):
    """Something reads the output of a convolution, which folding would change."""

    def __init__(self):
        super().__init__()
        self.kept = []
        for layer in (self.first, self.second):
            layer.register_forward_hook(lambda module, inputs, output: output * 1.5)


class NoCopy(Net):
    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")


class Dropping(Net):
    def forward(self, pixels):
        return functional.dropout(super().forward(pixels), 0.5, training=True)


class Swish(nn.BatchNorm2d):
    """A batch norm that does more."""

    def forward(self, pixels):
        return functional.silu(super().forward(pixels))


class Fused(Net):
    def __init__(self):
        super().__init__()
        self.bn1 = Swish(8)
        self.bn2 = Swish(8)


class Rewritten(Net):
    """The weights of its convolutions are made anew in each pass."""

    def __init__(self):
        super().__init__()
        for layer in (self.first, self.second):
            weight_norm(layer)


class Plain(Net):
    def __init__(self):
        super().__init__()
        self.bn1 = self.bn2 = nn.GroupNorm(2, 8)


def opened(encoder, **options):
    ranker = Ranker(encoder.eval() if isinstance(encoder, nn.Module) else encoder, **options)
    ranker.begin(IMAGES)
    return ranker


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"eps": 0.1}], ids=str)
def test_folded_it_is_the_same_function(options):
    encoder = Net(**options)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    ranker = opened(encoder, mean=[0.5] * 3, std=[0.2] * 3)
    fast = ranker.for_search()
    assert fast is not ranker
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.encoder.modules())
    assert fast.encoder.first.weight.is_contiguous(memory_format=torch.channels_last)
    gradients = []
    for each in (ranker, fast):
        images = IMAGES.clone().requires_grad_(True)
        gradients.append(torch.autograd.grad(each.embed(images).square().sum(), images)[0])
    torch.testing.assert_close(fast.embed(IMAGES), ranker.embed(IMAGES), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    assert ranker.examination.folded == 2
    assert ranker.examination.graph < GRAPH
    assert "without its 2 batch norms" in ranker.examination.line
    for name, value in encoder.state_dict().items():  # the encoder itself is left alone
        assert torch.equal(value, before[name])
    assert not any(module._forward_hooks for module in encoder.modules())
    assert all(value.requires_grad for value in encoder.parameters())


def test_weights_that_nothing_is_folded_into_are_shared():
    ranker = opened(Net())
    assert ranker.for_search().encoder.head.weight is ranker.encoder.head.weight


@pytest.mark.parametrize(
    "make",
    [
        Skip,
        Between,
        Functional,
        IgnoresBias,
        Hooked,
        NoCopy,
        Dropping,
        Fused,
        Rewritten,
        Plain,
        pytest.param(
            lambda: torch.jit.trace(Net().eval(), IMAGES[:2]),
            marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"),
            id="TorchScript",
        ),
        pytest.param(lambda: Net().eval().forward, id="a bound method"),
    ],
)
def test_it_is_not_used_where_it_would_be_another_function(make):
    ranker = opened(make())
    fast = ranker.for_search()
    if fast is not ranker:  # a part of it may be folded, where that part is the same
        torch.testing.assert_close(fast.embed(IMAGES), ranker.embed(IMAGES), rtol=1e-5, atol=1e-5)
        assert ranker.examination.folded == 2
        return
    assert (ranker.examination.graph, ranker.examination.folded) == (None, 0)
    assert "inference graph" not in ranker.examination.line


@pytest.mark.parametrize(("make", "folded"), [(TwoNorms, 0), (NormTwice, 0), (ConvolutionTwice, 1)])
def test_what_is_used_twice_is_left_alone(make, folded):
    ranker = opened(make())
    assert ranker.examination.folded == folded
    torch.testing.assert_close(ranker.for_search().embed(IMAGES), ranker.embed(IMAGES), rtol=1e-5, atol=1e-5)


def test_batch_statistics_are_not_folded():
    ranker = Ranker(Net(track_running_stats=False), chunk=1)
    ranker.begin(IMAGES)
    assert ranker.for_search() is ranker


def step(encoder):
    with torch.no_grad():
        encoder.first.weight.add_(1e-4)


def assign(encoder):
    encoder.head.weight.data.mul_(1.001)  # which torch's counter of versions does not see


def load(encoder):
    encoder.load_state_dict({name: value * 2 for name, value in Net().state_dict().items()})


def statistics(encoder):
    encoder.bn2.running_var.mul_(1.01)


@pytest.mark.parametrize("change", [step, assign, load, statistics])
def test_changed_weights_are_not_searched_by_the_old_ones(change):
    ranker = opened(Net())
    assert ranker.for_search() is not ranker
    change(ranker.encoder)
    assert ranker.for_search() is ranker


def test_an_attack_searches_on_it_and_takes_its_figures_from_the_encoder():
    ranker = opened(Net())
    gallery = Gallery.build(ranker, IMAGES)
    ranker.encoder.calls = 0
    result = attack(
        gallery, IMAGES[ROWS], QueryRaise(m=2), Threat(8 / 255), method=PGD(steps=30), gallery_ids=ROWS
    )
    assert ranker.encoder.calls <= 2 + 4  # clean and attacked images, and the graph is tried on a few of them
    assert result.rank_after.mean() < result.rank_before.mean()
    ranks = gallery.rank_of(ranker.embed_all(result.adversarial), result.targets)
    torch.testing.assert_close(result.rank_after, 100 * ranks / (len(gallery)), check_dtype=False)
    assert result.examination.folded == 2


def test_its_attacks_are_as_strong_as_those_on_the_encoder():
    ranker = opened(Net())
    gallery = Gallery.build(ranker, IMAGES)
    arguments = (gallery, IMAGES[ROWS], QueryRaise(m=2), Threat(8 / 255))
    fast = attack(*arguments, method=PGD(steps=30), gallery_ids=ROWS)
    ranker._graph = None
    given = attack(*arguments, method=PGD(steps=30), gallery_ids=ROWS)
    assert fast.rank_after.mean() == pytest.approx(given.rank_after.mean(), abs=5)
    assert fast.rank_after.mean() < fast.rank_before.mean() - 5


def test_a_local_oracle_answers_by_it_and_its_figures_come_from_the_encoder():
    ranker = opened(Net())
    gallery = Gallery.build(ranker, IMAGES)
    ranker.encoder.calls = 0
    threat = Threat(8 / 255, grid=True)
    oracle = LocalOracle(gallery, visible=10)
    result = attack(oracle, IMAGES[ROWS], Reorder(k=3), threat, budget=40, gallery_ids=ROWS)
    assert result.log.spent.max() > 10
    assert ranker.encoder.calls < 12
    places = gallery.rank_of(ranker.embed_all(result.adversarial), result.targets, ties="order")
    assert torch.equal(result.tau, Reorder(k=3).score(places[:, None], 10)[:, 0].to(result.tau))


def others(eps):
    """The doors by which an encoder changes without its weights."""
    return {
        "its forward": lambda encoder: setattr(encoder, "forward", lambda pixels: pixels.flatten(1)[:, :16]),
        "a layer": lambda encoder: setattr(encoder, "bn1", nn.BatchNorm2d(8).eval()),
        "eps": lambda encoder: setattr(encoder.bn1, "eps", eps),
        "a hook": lambda encoder: encoder.first.register_forward_hook(lambda layer, given, z: z.flip(1)),
        "an order": lambda encoder: encoder.second.weight.data.copy_(encoder.second.weight.data.flip(0)),
    }


@pytest.mark.parametrize("name", others(5.0))
def test_an_attack_finds_out_that_the_encoder_is_another_now(name):
    ranker = opened(Net())
    others(5.0)[name](ranker.encoder)
    result = attack(Gallery.build(ranker, IMAGES), IMAGES[ROWS], QueryRaise(m=2), Threat(8 / 255))
    assert ranker.for_search() is ranker
    assert (result.examination.graph, result.examination.folded) == (None, 0)


class Clipped(Net):
    """Skips its first batch norm for images with a pixel that no examined image has."""

    def start(self, pixels):
        x = self.first(pixels)
        other = (pixels.amax((1, 2, 3)) > 1).float()[:, None, None, None]
        return functional.relu(self.bn1(x) * (1 - other) + x * other)


def test_an_attack_that_reaches_where_the_graph_is_another_function_is_searched_again():
    images = IMAGES * 0.95  # below what the encoder minds; attacked images reach above
    ranker = Ranker(Clipped().eval(), std=[0.96] * 3)
    ranker.begin(images)
    assert ranker.examination.folded == 2
    gallery = Gallery.build(ranker, images)
    arguments = (gallery, images[ROWS], QueryRaise(m=2), Threat(16 / 255))
    again = attack(*arguments, method=PGD(steps=20), gallery_ids=ROWS)
    assert again.examination.folded == 0
    given = attack(*arguments, method=PGD(steps=20), gallery_ids=ROWS)
    assert torch.equal(again.adversarial, given.adversarial)


def test_a_black_box_says_that_the_graph_was_another_function():
    images = IMAGES * 0.95
    ranker = Ranker(Clipped().eval(), std=[0.96] * 3)
    ranker.begin(images)
    oracle = LocalOracle(Gallery.build(ranker, images), visible=10)
    result = attack(oracle, images[ROWS], Reorder(k=3), Threat(32 / 255, grid=True), budget=60)
    assert "inference graph" in result.notes[-1]
    assert ranker.for_search() is ranker


@pytest.mark.parametrize(
    "odd",
    [
        torch.ones(3).to(torch.float8_e4m3fn),
        torch.eye(3).to_sparse(),
        torch.empty(3, device="meta"),
        torch.nn.parameter.UninitializedBuffer(),
    ],
    ids=["8-bit float", "sparse", "meta", "lazy"],
)
def test_buffers_that_cannot_be_compared_leave_the_encoder_as_it_is(odd):
    encoder = Net()
    encoder.register_buffer("odd", odd)
    ranker = opened(encoder)
    assert ranker.for_search() is ranker


@pytest.mark.parametrize("change", [nn.Module.double, lambda encoder: encoder.to("meta")])
def test_another_type_or_device_is_seen(change):
    ranker = opened(Net())
    change(ranker.encoder)
    assert ranker.for_search() is ranker
