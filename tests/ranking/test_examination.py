"""Encoders that are not what they seem are found before a figure is told."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from rankproof import (
    CandidateLower,
    Gallery,
    LocalOracle,
    MaxShift,
    QueryRaise,
    Rand,
    Ranker,
    RankproofError,
    Reorder,
    Threat,
    attack,
    audit,
)
from rankproof.ranking import Cosine
from rankproof.ranking.encoder_function import EncoderFunction
from rankproof.ranking.examination import DRAWS, IMAGES, RARE, Examination, examination_from_json

ALL = torch.arange(20)


class Net(nn.Module):
    """A small network; subclasses do something to pixels or embeddings that an encoder should not."""

    def __init__(self, dimensions=16):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(8, 1, 3, 3, generator=random) / 3)
        self.matrix = nn.Parameter(torch.randn(dimensions, 8 * 36, generator=random) / 17)

    def plain(self, pixels):
        return functional.linear(
            functional.relu(functional.conv2d(pixels, self.weight)).flatten(1), self.matrix
        )

    def forward(self, pixels):
        return self.plain(pixels)


class Dropping(Net):
    """Dropout left on."""

    share = 0.1

    def forward(self, pixels):
        return functional.dropout(self.plain(pixels), self.share, training=True)


class HardlyDropping(Dropping):
    share = 0.02


class Masking(Net):
    """A masked autoencoder: a random half of the patches is seen."""

    def forward(self, pixels):
        seen = (torch.rand(len(pixels), 1, 4, 4, device=pixels.device) < 0.5).to(pixels)
        return self.plain(pixels * functional.interpolate(seen, scale_factor=2))


class NumpyNoise(Net):
    def forward(self, pixels):
        return self.plain(pixels + torch.from_numpy(np.random.rand(*pixels.shape)).to(pixels) / 8)


class Counting(Net):
    """A counter that is no buffer changes what it returns."""

    calls = 0

    def forward(self, pixels):
        self.calls += 1
        return self.plain(pixels) * self.calls


class BatchStatistics(Net):
    def forward(self, pixels):
        return self.plain(functional.batch_norm(pixels, None, None, training=True))


class OfFeatures(Net):
    """Statistics over embeddings, which one image alone does not have."""

    def forward(self, pixels):
        return functional.batch_norm(self.plain(pixels), None, None, training=True)


class Whitened(Net):
    """The mean of the batch is taken off: nothing that is called normalisation."""

    def forward(self, pixels):
        z = self.plain(pixels)
        return z - z.mean(0)


class Neighbour(Net):
    """A bug: each embedding has a little of the one before it in the batch."""

    def forward(self, pixels):
        z = self.plain(pixels)
        return z + 0.1 * z.roll(1, 0)


class DroppingBatchStatistics(BatchStatistics):
    """Exported in training mode: both at once."""

    def forward(self, pixels):
        return functional.dropout(super().forward(pixels), 0.1, training=True)


class RunningStatistics(Net):
    """Batch statistics that also move running ones, in eval mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("variance", torch.ones(1))

    def forward(self, pixels):
        return self.plain(functional.batch_norm(pixels, self.mean, self.variance, training=True))


class BufferCounting(Net):
    """A counter that is a buffer, and replaced, changes what it returns."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, pixels):
        self.calls = self.calls + 1
        return self.plain(pixels) + self.calls


class InPlace(Net):
    def forward(self, pixels):
        return self.plain(pixels.sub_(0.5).div_(0.25))


class SharedOutput(Net):
    """One piece of memory for the embeddings of every pass."""

    memory = None

    def forward(self, pixels):
        self.memory = torch.empty(500, 16) if self.memory is None else self.memory
        return torch.Tensor.copy_(self.memory[: len(pixels)], self.plain(pixels).detach())


class IntegerFirst(Net):
    """A table of whole numbers comes before the weights, as quantised encoders have."""

    def __init__(self):
        super().__init__()
        weight = self.weight
        del self.weight
        del self._parameters["matrix"]
        self.table = nn.Parameter(torch.arange(4), requires_grad=False)
        self.weight = weight
        self.matrix = nn.Parameter(Net().matrix.detach())


class NoFloating(nn.Module):
    """Whole numbers only; scaled as they are used."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("table", torch.randint(-127, 128, (16, 64), generator=generator).to(torch.int8))

    def forward(self, pixels):
        return functional.linear(pixels.flatten(1), self.table.float() / 127)


def embedded(encoder, images, distance="euclidean", **options):
    return Gallery.build(Ranker(encoder, distance, name="mine", **options), images)


def examined(encoder, images, **options):
    return embedded(encoder, images, **options).ranker.examination


def refused(encoder, images, message, **options):
    with pytest.raises(RankproofError, match=message) as caught:
        embedded(encoder, images, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def images(make):
    return torch.rand(20, 1, 8, 8, generator=make.random(1))


# -- what is found


def test_a_function_of_its_image_passes_and_says_so(images):
    found = examined(Net(), images)
    assert (found.kind, found.images, found.draws, found.dimensions) == ("function", IMAGES, 1, 16)
    assert max(found.repeat, found.order, found.alone) < 1e-5
    assert (found.gradient, found.dtype) == ("reaches", "float32")
    assert found.line.startswith("examined on 8 images: a function of its image (")
    assert not any((found.changes_input, found.shares_output, found.changes_state, found.draws_numbers))


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "sphere"])
@pytest.mark.parametrize("encoder", [Dropping, HardlyDropping, Masking])
def test_random_encoders_are_found(images, encoder, distance):
    ranker = embedded(encoder(), images, distance).ranker
    assert (ranker.examination.kind, ranker.draws) == ("random", DRAWS)
    assert ranker.examination.reproducible
    assert ranker.examination.repeat > 0.05
    assert "random, an image's embeddings differ by up to" in ranker.examination.line
    assert "mean of 8 draws" in ranker.examination.line


def test_what_is_random_only_now_and_then_is_found(images):
    class Skipping(Net):
        """Stochastic depth: a part is left out in one of seven passes."""

        def forward(self, pixels):
            return self.plain(pixels) * (1 if torch.rand(()) < 6 / 7 else pixels.mean((1, 2, 3))[:, None])

    found = examined(Skipping(), images)
    assert (found.kind, found.reproducible) == ("random", True)
    net = Net()
    idle = examined(lambda pixels: (torch.rand(2), net(pixels))[1], images)
    assert (idle.kind, idle.draws_numbers) == ("function", True)
    assert "draws random numbers, of which no effect was found" in idle.line


@pytest.mark.parametrize("chance", [0.3, 0.1])
def test_what_numpy_draws_now_and_then_is_not_taken_for_the_batch(images, chance):
    for seed in range(4):
        random, net = np.random.default_rng(seed), Net()
        found = examined(
            lambda pixels, net=net, random=random: net(pixels).roll(int(random.random() < chance), 1), images
        )
        assert (found.kind, found.reproducible) == ("random", False)


def test_what_another_pass_brings_now_and_then_is_found(images):
    class Tenth(Counting):
        def forward(self, pixels):
            self.calls += 1
            return self.plain(pixels).roll(int(self.calls % 10 == 0), 1)

    found = examined(Tenth(), images)
    assert (found.kind, found.reproducible) == ("random", False)


@pytest.mark.parametrize("rate", [0.01, 0.002])
def test_a_little_dropout_is_not_taken_for_the_batch(images, rate):
    for turns in range(4):
        net = Net()
        found = examined(
            lambda pixels, net=net, turns=turns: functional.dropout(net(pixels.roll(turns, 3)), rate), images
        )
        assert (found.kind, found.reproducible) == ("random", True)


@pytest.mark.parametrize("chunk", [500, 1])
@pytest.mark.parametrize(
    "noisy", [lambda x: torch.poisson(20 * x) / 20, lambda x: functional.rrelu(x - 0.5, training=True)]
)
def test_numbers_that_follow_the_image_are_not_taken_for_the_batch(images, noisy, chunk):
    net = Net()
    found = examined(lambda pixels: net(noisy(pixels)), images, chunk=chunk)
    assert (found.kind, found.reproducible) == ("random", True)


@pytest.mark.parametrize("encoder", [NumpyNoise, Counting])
def test_random_numbers_from_elsewhere_are_said_to_be_out_of_reach(images, encoder):
    found = examined(encoder(), images)
    assert (found.kind, found.reproducible) == ("random", False)
    assert "no seed gives the same again" in found.line


@pytest.mark.parametrize(
    "encoder",
    [BatchStatistics, OfFeatures, Whitened, Neighbour, DroppingBatchStatistics, RunningStatistics],
)
def test_dependence_on_the_batch_is_an_error_that_names_the_way_out(images, encoder):
    said = refused(encoder(), images, "^mine: .* depends on the others of its batch")
    assert "batch statistics" in said
    assert "--embed-batch 1 (in Python Ranker(chunk=1))" in said


@pytest.mark.parametrize("encoder", [BatchStatistics, RunningStatistics])
def test_one_image_at_a_time_makes_them_functions(images, encoder):
    gallery = embedded(encoder(), images, chunk=1)
    found = gallery.ranker.examination
    assert (found.kind, found.alone, found.gradient) == ("function", None, "reaches")
    assert "images embedded one at a time" in found.line
    single = torch.cat([encoder()(image[None]) for image in images])
    assert torch.equal(gallery.embeddings, single)
    with gallery.ranker.frozen():
        assert torch.equal(gallery.ranker.embed(images), single)


def test_attacks_too_pass_one_image_at_a_time(images):
    gallery = embedded(BatchStatistics(), images, chunk=1)
    together = attack(gallery, images[:6], QueryRaise(), Threat(8 / 255), gallery_ids=ALL[:6])
    alone = attack(gallery, images[3:4], QueryRaise(), Threat(8 / 255), gallery_ids=ALL[3:4])
    assert torch.equal(together.adversarial[3:4], alone.adversarial)
    assert bool((together.rank_after <= together.rank_before).all())
    oracle = LocalOracle(gallery, 10)
    black = attack(oracle, images[:6], Reorder(k=3), Threat(8 / 255), method=Rand(), budget=9)
    one = attack(oracle, images[:1], Reorder(k=3), Threat(8 / 255), method=Rand(), budget=9)
    assert torch.equal(black[[0]].after["rank"], one.after["rank"])


def test_no_image_alone_where_the_encoder_needs_company(images):
    refused(OfFeatures(), images, "Expected more than 1 value per channel", chunk=1)
    said = refused(OfFeatures(), images, "was an image alone; 8 at once pass")
    assert "is no way out where an image alone fails" in said


def test_the_callers_images_and_the_reported_originals_stay_as_they_are(images):
    given, encoder = images.clone(), InPlace()
    gallery = embedded(encoder, given)
    assert gallery.ranker.examination.changes_input
    assert "it gets copies" in gallery.ranker.examination.line
    result = attack(gallery, given[:4], QueryRaise(), Threat(8 / 255), gallery_ids=ALL[:4])
    assert torch.equal(given, images)
    assert torch.equal(result.original, images[:4])
    normalised = Gallery.build(Ranker(Net(), "euclidean", mean=[0.5], std=[0.25]), images)
    torch.testing.assert_close(gallery.embeddings, normalised.embeddings)
    expected = attack(normalised, images[:4], QueryRaise(), Threat(8 / 255), gallery_ids=ALL[:4])
    torch.testing.assert_close(result.rank_after, expected.rank_after)


def test_a_gallery_made_without_images_is_examined_when_it_is_attacked(images):
    given = images.clone()
    gallery = Gallery(Ranker(InPlace(), "euclidean"), Net()(images).detach())
    result = attack(gallery, given[:4], MaxShift(), Threat(8 / 255))
    assert result.examination.changes_input
    assert torch.equal(given, images)
    following = Gallery(Ranker(BatchStatistics(), "euclidean"), Net()(images).detach())
    with pytest.raises(RankproofError, match="depends on the others of its batch"):
        attack(following, images[:1], MaxShift(), Threat(8 / 255))  # a single image gets company


def test_preprocessing_is_examined_with_the_encoder(images):
    given = images.clone()
    gallery = embedded(Net(), given, preprocess=lambda pixels: pixels.mul_(0.5))
    assert gallery.ranker.examination.changes_input
    assert torch.equal(given, images)
    cropping = embedded(Net(), images, preprocess=lambda pixels: pixels + torch.rand_like(pixels) / 4)
    assert cropping.ranker.examination.kind == "random"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dynamic_quantisation_follows_the_batch(images):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16))
    quantised = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)
    refused(quantised, images, "dynamic quantisation")
    assert examined(quantised, images, chunk=1).gradient == "none"


def test_weights_that_the_first_pass_makes(images):
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten())
    assert examined(lazy, images).kind == "function"


@pytest.mark.parametrize("failure", [OSError, ImportError, StopIteration, Exception])
def test_whatever_an_encoder_raises_is_one_line(images, failure):
    def encode(pixels):
        raise failure("no such\ntable")

    refused(encode, images, "the encoder fails on images .* It says: no such table")


def test_weights_without_values_are_one_line(images):
    refused(nn.Sequential(nn.Flatten(), nn.Linear(64, 4, device="meta")), images, "on the meta device")


def test_embeddings_in_shared_memory_are_copied(images):
    gallery = embedded(SharedOutput(), images, chunk=6)
    assert gallery.ranker.examination.shares_output
    torch.testing.assert_close(gallery.embeddings, Net()(images).detach())
    with gallery.ranker.frozen(), torch.no_grad():
        first = gallery.ranker.embed(images[:3])
        kept = first.clone()
        gallery.ranker.embed(images[3:6])
        assert torch.equal(first, kept)


@pytest.mark.parametrize("encoder", [BufferCounting, RunningStatistics])
def test_buffers_are_put_back_after_every_pass(images, encoder):
    module = encoder()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    gallery = embedded(module, images, chunk=1)
    assert gallery.ranker.examination.changes_state
    attack(gallery, images[:2], MaxShift(), Threat(8 / 255))
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("encoder", [IntegerFirst, NoFloating])
def test_whole_numbers_among_the_weights_leave_pixels_as_they_are(images, encoder):
    ranker = Ranker(encoder(), "euclidean")
    assert ranker.dtype == torch.float32
    gallery = Gallery.build(ranker, images)
    assert torch.equal(gallery.embeddings, encoder()(images).detach())
    assert gallery.ranker.examination.dtype == "float32"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_work_to_the_end(images, dtype):
    gallery = embedded(Net().to(dtype), images, mean=[0.5], std=[0.25])
    ranker = gallery.ranker
    assert (ranker.dtype, gallery.embeddings.dtype) == (torch.float32, torch.float32)
    assert (ranker.examination.kind, ranker.examination.dtype) == ("function", str(dtype).split(".")[1])
    expected = Net().to(dtype)(((images - 0.5) / 0.25).to(dtype)).float()
    assert torch.equal(gallery.embeddings, expected)
    result = attack(gallery, images[:5], QueryRaise(), Threat(16 / 255), gallery_ids=ALL[:5])
    assert result.adversarial.dtype == torch.float32
    assert result.rank_after.mean() < result.rank_before.mean()
    black = attack(LocalOracle(gallery, 10), images[:2], Reorder(k=3), Threat(0.1), method=Rand(), budget=9)
    assert black.log.spent.tolist() <= [9, 9]


def test_pixels_take_the_type_that_the_encoder_computes_in(images):
    class Mixed(Net):
        """A scale in single precision before weights in half, as converted encoders have."""

        def __init__(self):
            super().__init__()
            weights = dict(self.half().named_parameters())
            self._parameters.clear()
            self.scale = nn.Parameter(torch.ones(()))
            self._parameters.update(weights)

    gallery = embedded(Mixed(), images)
    assert gallery.ranker.examination.dtype == "float16"
    assert torch.equal(gallery.embeddings, Net().half()(images.half()).float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: z > 0, "dense embeddings of floating numbers, not of bool"),
        (lambda z: z.long(), "floating numbers, not of int64"),
        (lambda z: z.to(torch.complex64), "floating numbers, not of complex64"),
        (lambda z: z.detach().to_sparse(), "floating numbers, not of sparse_coo"),
        (lambda z: None, r"\(batch, dimensions\) embeddings, it returned NoneType"),
        (lambda z: (z,), "it returned tuple"),
        (lambda z: {"embedding": z}, "it returned dict"),
        (lambda z: z.detach().numpy(), "it returned ndarray"),
        (lambda z: z.repeat(2, 1), r"it returned \(4, 16\)"),
        (lambda z: z[:, :0], r"it returned \(2, 0\)"),
        (lambda z: z[0], r"it returned \(16,\)"),
        (lambda z: z * float("nan"), "NaN or infinite"),
        (lambda z: z.missing, "the encoder fails on images .* no attribute 'missing'"),
        (lambda z: {}["pooled"], "the encoder fails on images .* 'pooled'"),
        (lambda z: 1 / 0, "the encoder fails on images .* division by zero"),
    ],
)
def test_what_is_no_embedding_is_one_line(images, change, message):
    net = Net()
    refused(lambda pixels: change(net(pixels)), images, message)


# -- encoders of other kinds


def test_functions_methods_and_partial_functions_are_encoders(images):
    net = Net()
    expected = embedded(net, images).embeddings
    for encoder in (lambda pixels: net(pixels), net.plain, partial(net.forward), nn.DataParallel(net)):
        gallery = embedded(encoder, images)
        assert torch.equal(gallery.embeddings, expected)
        result = attack(gallery, images[:3], QueryRaise(), Threat(8 / 255), gallery_ids=ALL[:3])
        assert result.examination.gradient == "reaches"


def test_the_module_of_a_method_is_put_into_eval_mode(images):
    class WithDropout(Net):
        def encode_image(self, pixels):
            return functional.dropout(self.plain(pixels), 0.5, training=self.training)

    net = WithDropout().double()
    ranker = embedded(net.encode_image, images).ranker
    assert (ranker.examination.kind, ranker.dtype) == ("function", torch.float64)
    assert net.training


def test_what_cannot_be_called_is_no_encoder(images):
    with pytest.raises(RankproofError, match="not the class Net"):
        Ranker(Net)
    with pytest.raises(RankproofError, match="not a value of type dict"):
        EncoderFunction({})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_frozen_torchscript_module(images):
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8)).eval()
    frozen = torch.jit.freeze(torch.jit.script(module))
    gallery = embedded(frozen, images)
    torch.testing.assert_close(gallery.embeddings, module(images).detach())
    result = attack(gallery, images[:3], QueryRaise(), Threat(8 / 255), gallery_ids=ALL[:3])
    assert result.examination.gradient == "reaches"


def test_an_exported_program_as_it_is(images):
    batch = torch.export.Dim("batch")
    program = torch.export.export(Net().eval(), (images[:2],), dynamic_shapes=({0: batch},)).module()
    assert torch.equal(embedded(program, images).embeddings, Net()(images).detach())
    inside = nn.Sequential(program, nn.Dropout(0.5))  # the parts beside a program still get their mode
    assert examined(inside, images).kind == "function"
    assert inside[1].training


# -- gradients


@pytest.mark.parametrize(
    "cut",
    [
        lambda net: torch.no_grad()(net.plain),
        lambda net: torch.inference_mode()(net.plain),
        lambda net: lambda pixels: net(pixels.detach()),
        lambda net: lambda pixels: net(pixels).detach(),
        lambda net: lambda pixels: (torch.set_grad_enabled(False), net(pixels))[1],
    ],
    ids=["no_grad", "inference_mode", "detached input", "detached output", "switched off for good"],
)
def test_without_a_gradient_there_is_a_black_box_only(images, cut):
    gallery = embedded(cut(Net()), images)
    assert torch.is_grad_enabled()
    assert gallery.ranker.examination.gradient == "none"
    assert "no gradient reaches the pixels" in gallery.ranker.examination.line
    message = "mine: no gradient flows through the encoder .* LocalOracle"
    with pytest.raises(RankproofError, match=message):
        attack(gallery, images[:2], QueryRaise(), Threat(8 / 255))
    with pytest.raises(RankproofError, match=message):
        audit(gallery, images, Threat(8 / 255), trials=2)
    clean = attack(gallery, images[:2], QueryRaise(), Threat(0.0))  # nothing is sought
    assert torch.equal(clean.rank_after, clean.rank_before)
    black = attack(LocalOracle(gallery, 10), images[:2], Reorder(k=3), Threat(0.1), method=Rand(), budget=9)
    assert len(black) == 2


def test_a_gradient_that_is_zero_is_a_note(images):
    net = Net()
    gallery = embedded(lambda pixels: net((pixels * 255).round() / 255), images)
    assert gallery.ranker.examination.gradient == "zero"
    result = attack(gallery, images[:2], QueryRaise(), Threat(8 / 255))
    assert any("gradient is zero at every pixel" in note for note in result.notes)
    clean = attack(gallery, images[:2], QueryRaise(), Threat(0.0))
    assert not any("gradient" in note for note in clean.notes)


# -- rounding is no difference


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_rounding_is_not_taken_for_dependence_at_any_scale(images, scale, offset):
    net = Net()
    found = examined(lambda pixels: scale * (net(pixels) + offset), images)
    assert found.kind == "function"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_a_narrow_cone_is_rounding(images, dtype):
    net, order = Net(), torch.randperm(8 * 36)

    def encode(pixels):  # sums in another order where an image is alone, as other kernels take them
        features = functional.relu(functional.conv2d(pixels, net.weight.to(dtype))).flatten(1)
        chosen = order if len(pixels) == 1 else order.flip(0)
        products = features[:, None, chosen] * net.matrix[None, :, chosen].to(dtype)
        return sum(products.unbind(2)).to(dtype) + 4

    encoder = Net().to(dtype)
    encoder.forward = encode
    encoder.plain = encode
    assert examined(encoder, images, distance="cosine").kind == "function"


def test_a_collapsed_encoder_has_no_distance_and_still_a_line(images):
    net = Net()
    found = examined(lambda pixels: net(pixels * 0 + 0.5), images)
    assert found.kind == "function"
    assert found.line
    assert examined(lambda pixels: 0 * net(pixels), images).kind == "function"


def test_two_equal_images_are_enough(images):
    assert examined(Net(), images[[0, 0]]).images == 2


# -- randomness, kept in hand


def test_global_generators_are_left_alone(images):
    state = torch.get_rng_state()
    gallery = embedded(Dropping(), images)
    attack(gallery, images[:2], QueryRaise(), Threat(8 / 255))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_encoder_that_seeds_for_itself_leaves_no_trace(images):
    class Seeding(Net):
        def forward(self, pixels):
            torch.manual_seed(3)
            return self.plain(pixels + torch.rand(pixels.shape[1:]) / 8)

    torch.manual_seed(5)
    state = torch.get_rng_state()
    gallery = embedded(Seeding(), images)
    gallery.ranker.embed_all(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert (gallery.ranker.examination.kind, gallery.ranker.examination.draws_numbers) == ("function", True)


def test_the_seed_gives_the_same_bytes_again(images):
    galleries = [embedded(Dropping(), images) for _ in range(2)]
    assert torch.equal(galleries[0].embeddings, galleries[1].embeddings)
    assert torch.equal(Gallery.build(galleries[0].ranker, images).embeddings, galleries[0].embeddings)

    def run(gallery, seed):
        torch.rand(7)  # what others draw does not matter
        return attack(gallery, images[:4], QueryRaise(), Threat(8 / 255), gallery_ids=ALL[:4], seed=seed)

    first, again, other = run(galleries[0], 1), run(galleries[0], 1), run(galleries[1], 2)
    for name in ("adversarial", "rank_after"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(first.unchanged["rank"], again.unchanged["rank"])
    assert not torch.equal(first.adversarial, other.adversarial)
    oracle = LocalOracle(galleries[0], 10)
    searches = [attack(oracle, images[:2], Reorder(k=3), Threat(0.1), method=Rand(), budget=9) for _ in "12"]
    assert torch.equal(searches[0].adversarial, searches[1].adversarial)


def test_embeddings_are_the_mean_of_the_draws(images):
    one, many = (embedded(Dropping(), images, draws=count).embeddings for count in (1, 64))
    without = Net()(images).detach()
    assert (many - without).norm() < (one - without).norm() / 4  # 1 / sqrt(64) = 1 / 8
    assert embedded(Dropping(), images).ranker.draws == DRAWS
    assert embedded(Net(), images).ranker.draws == 1


def test_attacks_take_new_draws_in_each_step(images):
    seen = []

    class Watched(Dropping):
        def forward(self, pixels):
            kept = functional.dropout(torch.ones(1, 16), 0.5, training=True)
            if pixels.requires_grad:
                seen.append(kept)
            return self.plain(pixels) * kept

    gallery = embedded(Watched(), images, draws=3)
    seen.clear()
    result = attack(gallery, images[:2], MaxShift(), Threat(8 / 255))
    assert len(seen) == 3 * result.steps
    assert len({tuple(mask.flatten().tolist()) for mask in seen}) > len(seen) // 2


def test_the_figure_of_unchanged_images_stands_beside_that_of_an_attack(images):
    gallery = embedded(Masking(), images, draws=2)
    result = attack(gallery, images, CandidateLower(), Threat(0.0), gallery_ids=ALL)
    assert result.unchanged.keys() == result.after.keys()
    summary = result.summary
    assert summary.unchanged == pytest.approx(result.unchanged["rank"].mean().item())
    # Chosen by one draw and judged by another: what looks like the work of an attack is chance.
    assert summary.unchanged > summary.before
    assert any("the encoder is random" in note and "2 draws" in note for note in result.notes)
    part = result[:3]
    assert torch.equal(part.unchanged["rank"], result.unchanged["rank"][:3])
    black = attack(LocalOracle(gallery, 10), images[:3], Reorder(k=3), Threat(0.1), method=Rand(), budget=9)
    assert black.summary.unchanged == pytest.approx(black.unchanged["tau"].mean().item())
    ordinary = attack(embedded(Net(), images), images[:3], CandidateLower(), Threat(0.0))
    assert (ordinary.unchanged, ordinary.summary.unchanged) == ({}, None)


def test_a_result_is_saved_with_its_examination(images, tmp_path):
    result = attack(embedded(Dropping(), images), images[:3], QueryRaise(), Threat(0.0))
    loaded = type(result).load(result.save(tmp_path))
    assert loaded.examination == result.examination
    assert loaded.summary == result.summary
    assert torch.equal(loaded.unchanged["rank"], result.unchanged["rank"])
    written = result.summary.to_json()["examination"]
    assert written["line"] == result.examination.line
    assert examination_from_json(written) == result.examination
    assert examination_from_json(None) is None


# -- when, and at what cost


def test_an_encoder_is_examined_once(images):
    passes = []

    def encode(pixels):
        passes.append(len(pixels))
        return net(pixels)

    net, ranker = Net(), None
    ranker = Ranker(encode, "euclidean")
    gallery = Gallery.build(ranker, images)
    assert sum(passes) <= len(images) + 3 * IMAGES + 2 * (RARE + 1)
    passes.clear()
    found = ranker.examination
    Gallery.build(ranker, images)
    assert passes == [len(images)]
    attack(gallery, images[:2], QueryRaise(), Threat(0.0))
    assert ranker.examination is found


def test_the_progress_reaches_its_end(images):
    steps = []
    Ranker(Net()).begin(images, progress=lambda done, total: steps.append(done / total))
    assert steps == sorted(steps)
    assert steps[-1] == 1.0


@pytest.mark.parametrize("value", [0, -1, True])
@pytest.mark.parametrize("option", ["draws", "chunk"])
def test_draws_and_chunk_are_counts(option, value):
    with pytest.raises(RankproofError, match=f"{option} must be a"):
        Ranker(Net(), **{option: value})


def test_the_default_type_of_torch_is_not_the_encoders_to_set(images):
    net = Net()
    refused(lambda pixels: (torch.set_default_dtype(torch.float64), net(pixels))[1], images, "default type")
    assert torch.get_default_dtype() == torch.float32


def test_what_an_examination_says_of_habits():
    found = Examination(images=8, shares_output=True, changes_state=True, dtype="bfloat16", gradient="zero")
    for words in ("weights in bfloat16", "overwrites its earlier", "changes its buffers", "gradient is zero"):
        assert words in found.line
    assert "\n" not in found.line


def test_any_distance_will_do(images):
    assert examined(Dropping(), images, distance=Cosine()).kind == "random"


def test_what_an_encoder_keeps_of_a_pass_serves_a_gradient_later(images):
    class Remembering(Net):
        """Makes its codes in the first pass of a size, as rotary position codes are made."""

        codes = None

        def forward(self, pixels):
            if self.codes is None or len(self.codes) < len(pixels):
                self.codes = torch.ones(len(pixels), 1, 1, 1) / 2
            kept = functional.relu(pixels) * self.codes[: len(pixels)]
            return self.plain(kept * kept)

    gallery = embedded(Remembering(), images)
    assert len(attack(gallery, images[:2], MaxShift(), Threat(8 / 255))) == 2


def test_flags_that_an_encoder_sets_are_put_back(images):
    class Learning(Net):
        def forward(self, pixels):
            self.matrix.requires_grad_(True)
            self.train()
            return self.plain(pixels)

    net = Learning().eval()
    net.matrix.requires_grad_(False)
    attack(embedded(net, images), images[:2], MaxShift(), Threat(8 / 255))
    assert not net.training
    assert not net.matrix.requires_grad
    assert net.weight.requires_grad


def test_multiplying_in_place_is_found_on_black_images_too():
    black = torch.zeros(4, 1, 8, 8)
    encoder = Net()
    assert examined(lambda pixels: encoder(pixels.mul_(2)), black).changes_input


def test_buffers_that_are_not_numbers_or_go_away_are_no_riddle(images):
    class Odd(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("unknown", torch.tensor([float("nan"), 1.0]))
            self.register_buffer("mask", torch.tensor([True, False]))

    class Dropped(Odd):
        def forward(self, pixels):
            self.mask = None
            return self.plain(pixels)

    assert not examined(Odd(), images).changes_state
    dropped = Dropped()
    assert examined(dropped, images).changes_state
    assert dropped.mask.tolist() == [True, False]


def test_draws_that_are_asked_for_are_said(images):
    found = examined(Net(), images, draws=3)
    assert (found.kind, found.draws) == ("function", 3)
    assert "mean of 3 draws, as asked for" in found.line
