"""Candidates among queries that are no items of the gallery: against naive loops, and with a tiny CLIP."""

import logging

import pytest
import torch

from rankproof import (
    CandidateLower,
    CandidateRaise,
    Gallery,
    LocalOracle,
    QueryRaise,
    Ranker,
    RankproofError,
    Reorder,
    Threat,
    attack,
    open_encoder,
    text_queries,
)
from rankproof.goals import AttackContext

TOLERANCE = {"rtol": 1e-7, "atol": 1e-6}
WORDS = ["<pad>", "<unk>", "<start>", "<end>", "red", "green", "shoe", "cup"]
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def far(distance, a, b):
    if distance == "cosine":
        return 1 - torch.dot(a, b) / (a.norm() * b.norm())
    return ((a - b) ** 2).sum().sqrt()


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("goal", [CandidateRaise, CandidateLower])
@pytest.mark.parametrize("form", ["inequality", "distance"])
def test_losses_gradients_and_ranks_of_given_queries(make, distance, goal, form):
    gallery = make.gallery(distance, count=17, dimensions=4)
    queries = make.embeddings(distance, 3, 4, seed=5)
    raw = torch.randn(4, 4, generator=make.random(6), dtype=torch.float64).requires_grad_(True)
    scene = AttackContext(
        gallery=gallery, clean=gallery.embeddings[:4], rng_keys=range(4), seed=0, gallery_ids=torch.arange(4),
        queries=queries, exclude_self=True,
    )  # fmt: skip
    bound = goal(w=3, form=form).bind(scene)
    z = raw
    sign = 1 if goal is CandidateRaise else -1
    losses, ranks = [], []
    for i in range(4):
        terms, places = [], []
        for q in queries:
            own, others = far(distance, raw[i], q), [far(distance, x, q) for x in gallery.embeddings]
            hinges = [torch.relu(sign * (own - other)) for other in others]
            terms.append(sign * own if form == "distance" else sum(hinges) / 17)
            places.append(sum(bool(d < own) for j, d in enumerate(others) if j != i))
        losses.append(sum(terms) / 3)
        ranks.append(places)
    expected = torch.stack(losses)
    torch.testing.assert_close(bound.evaluate(z).loss, expected, **TOLERANCE)
    (found,) = torch.autograd.grad(bound.evaluate(z).loss.sum(), raw, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.sum(), raw)
    torch.testing.assert_close(found, wanted, **TOLERANCE)
    told = bound.metrics(z.detach())["rank"]
    torch.testing.assert_close(told, torch.tensor(ranks, dtype=torch.float64) * 100 / 17)
    assert bound.targets.shape == bound.preserved.shape == (4, 0)


def test_given_items_are_the_same_as_chosen_items(make, gallery, pictures):
    chosen = torch.tensor([[5, 9]]).expand(8, 2)
    common = {"threat": Threat(8 / 255), "gallery_ids": torch.arange(8)}
    explicit = attack(gallery, pictures[:8], CandidateRaise(w=2), targets=chosen, **common)
    given = attack(gallery, pictures[:8], CandidateRaise(w=2), queries=gallery.embeddings[[5, 9]], **common)
    assert torch.equal(given.adversarial, explicit.adversarial)
    assert torch.equal(given.rank_after, explicit.rank_after)
    assert given.targets.shape == (8, 0)
    assert given.parameters["w"] == 2
    assert "the queries are given, not gallery items" in given.notes
    assert "the queries are given, not gallery items" not in explicit.notes


def test_given_queries_are_prepared_for_the_distance(make, pictures):
    gallery = Gallery.build(make.ranker("cosine"), pictures)
    raw = torch.randn(2, 5, generator=make.random(3))  # neither unit length nor double precision
    results = [
        attack(gallery, pictures[:3], CandidateLower(w=2), Threat(8 / 255), queries=scale * raw)
        for scale in (1, 4)
    ]
    assert torch.equal(results[0].adversarial, results[1].adversarial)


def test_queries_that_do_not_fit(gallery, pictures):
    def refused(message, queries, goal=None, victim=gallery, **more):
        goal = goal or CandidateRaise(w=2)
        with pytest.raises(RankproofError, match=message):
            attack(victim, pictures[:2], goal, Threat(8 / 255), queries=queries, **more)

    fine = torch.ones(2, 5)
    refused(r"queries: 2 are given, but w = 1; make the goal with w=2", fine, CandidateRaise())
    refused(r"queries: 2 are given, but w = 3", fine, CandidateLower(w=3))
    refused(r"expected embeddings \(n, 5\), got \(2, 4\)", torch.ones(2, 4))
    refused(r"expected embeddings", torch.ones(5))
    refused(r"expected embeddings", torch.ones(0, 5))
    refused(r"NaN or infinite", fine * float("nan"))
    refused(r"only CandidateRaise and CandidateLower", fine, QueryRaise())
    refused(r"only CandidateRaise and CandidateLower", fine, Reorder(k=2), LocalOracle(gallery, visible=5))
    refused(r"not both", fine, targets=torch.zeros(2, 2, dtype=torch.int64))


# -- texts


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A folder with a random CLIP of 32x32 pictures and texts of eight words."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("clip")
    special = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = transformers.CLIPTextConfig(**SMALL, **special, vocab_size=len(WORDS), max_position_embeddings=8)
    vision = transformers.CLIPVisionConfig(**SMALL, image_size=32, patch_size=8)
    config = transformers.CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**size).save_pretrained(folder)
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", bos_token="<start>", eos_token="<end>",
        model_max_length=8,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_texts_become_embeddings_beside_the_pictures(clip):
    source = open_encoder(f"hf:{clip}")
    assert source.input == (3, 32, 32)
    z = text_queries(source, ["red shoe", "cup"])
    model = source.encoder.model
    with torch.no_grad():
        for row, ids in enumerate(([2, 4, 6, 3], [2, 7, 3])):  # what the padding is must not matter
            alone = model.get_text_features(input_ids=torch.tensor([ids])).pooler_output
            torch.testing.assert_close(z[row], alone[0], atol=1e-5, rtol=1e-5)
    assert source.encoder(torch.rand(3, 3, 32, 32)).shape == (3, z.shape[1])


def test_a_picture_rises_for_texts(clip, make):
    source = open_encoder(f"hf:{clip}")
    pictures = torch.rand(20, 3, 32, 32, generator=make.random(0))
    ranker = Ranker(source.encoder, source.distance, mean=source.mean, std=source.std)
    gallery = Gallery.build(ranker, pictures)
    queries = text_queries(source, ["red shoe", "green cup"])
    result = attack(gallery, pictures[:3], CandidateRaise(w=2), Threat(8 / 255), queries=queries)
    assert result.rank_after.mean() < result.rank_before.mean()
    unit = torch.nn.functional.normalize
    z = unit(queries, dim=1).double() @ unit(gallery.embeddings.double(), dim=1).T
    with torch.no_grad():
        own = unit(gallery.ranker.embed(result.adversarial).double(), dim=1)
    ranks = (z[None] > (unit(queries, dim=1).double() @ own.T).T[:, :, None]).sum(2)
    torch.testing.assert_close(ranks * 5.0, result.rank_after, check_dtype=False)


def test_who_has_no_text_side_says_so(clip):
    source = open_encoder("zoo:fashion-mnist/c2f1-ct")
    with pytest.raises(RankproofError, match="has no text encoder; text queries need"):
        text_queries(source, ["red shoe"])
    for texts in ([], "red shoe"):
        with pytest.raises((RankproofError, TypeError), match="texts"):
            text_queries(open_encoder(f"hf:{clip}"), texts)
