"""A folder belongs to one model and one data set, and nothing in it is embedded twice."""

import pytest
import torch

from rankproof.errors import RankproofError
from rankproof.models import new_encoder, save_checkpoint
from rankproof.ranking import Ranker
from rankproof.service import opening
from rankproof.service.opening import open_database, open_service
from rankproof.system import SystemOptions, load_task, preprocess_of

TRIED = [16, 4, 8, 12]  # batch sizes that are compared


@pytest.fixture
def embedded(monkeypatch):
    """The sizes of the batches that are embedded."""
    passes, embed = [], Ranker.embed_all
    monkeypatch.setattr(Ranker, "embed_all", lambda *args: passes.append(len(args[1])) or embed(*args))
    return passes


def test_a_restart_embeds_nothing(new_service, local, embedded):
    first = new_service()
    assert embedded == [1, 500, 297, *TRIED]
    wanted = first.search(local.dataset.images[:4])
    first.close()
    embedded.clear()
    again = new_service()
    assert embedded == [1, *TRIED]  # the first gives the number of dimensions
    assert again.search(local.dataset.images[:4]) == wanted


def test_the_embeddings_are_those_of_the_gallery_to_the_bit(service, local):
    found = torch.cat([z for _, z in service.items.embeddings()])
    assert torch.equal(found, local.gallery.ranker.distance.prepare(local.gallery.embeddings))


def test_a_start_that_was_stopped_goes_on(new_service, local, embedded, monkeypatch):
    def stop(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(opening, "fill", lambda *args, fill=opening.fill: fill(*args[:-1], stop))
    with pytest.raises(KeyboardInterrupt):
        new_service()
    monkeypatch.undo()
    passes, embed = [], Ranker.embed_all
    monkeypatch.setattr(Ranker, "embed_all", lambda *args: passes.append(len(args[1])) or embed(*args))
    service = new_service()
    assert passes == [1, 297, *TRIED]
    stored = torch.cat([z for _, z in service.items.embeddings()])
    assert torch.equal(stored, local.gallery.ranker.distance.prepare(local.gallery.embeddings))
    assert list(service.items.ids().values()) == [str(number) for number in range(797)]


def test_removed_items_stay_removed(new_service):
    first = new_service()
    first.remove("5")
    first.close()
    assert len(new_service()) == 796


@pytest.mark.parametrize("change", ["weights", "distance", "jpeg"])
def test_a_folder_belongs_to_one_model_and_one_data_set(new_service, models, tmp_path, change):
    new_service().close()
    model, options = models / "cosine", {}
    match change:
        case "weights":
            model, encoder = tmp_path / "other", new_encoder("digits")
            with torch.no_grad():
                next(encoder.parameters())[0] += 1e-3
            save_checkpoint(model, encoder, {"arch": "digits", "distance": "cosine"})
        case "distance":
            model = models / "sphere"
        case "jpeg":
            options = {"preprocess": preprocess_of(None, None, 90)}
    with pytest.raises(
        RankproofError, match="embedded by another model, with other settings or from other data"
    ):
        open_service(load_task(str(model), None, SystemOptions(**options)), tmp_path)


def test_unknown_indexes(tmp_path):
    for name in ("", "milvus", "mysql://localhost/x", "faiss://"):
        with pytest.raises(RankproofError, match="known: faiss, pgvector, postgresql://"):
            open_database(name, tmp_path)
    with pytest.raises(RankproofError, match="cannot connect to the database"):
        open_database("postgresql://nobody@127.0.0.1:1/x", tmp_path)


def test_a_path_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "service.sqlite").write_text("no database " * 100)
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(RankproofError, match="cannot be used"):
            open_database("faiss", folder)
