"""An audit says what its encoder is, and what a random one does to images that nobody changed."""

from dataclasses import replace
from io import StringIO

from rich.console import Console
from torch import nn

from rankproof import Gallery, Ranker, Threat, audit
from rankproof.audit import AuditResult
from rankproof.report.html import render_html
from rankproof.report.page import audit_table


class Random(nn.Module):
    """Dropout left on before any encoder."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images):
        return self.encoder(nn.functional.dropout(images, 0.2, training=True))


def audited(ranker, images):
    gallery = Gallery.build(ranker, images)
    text = "2,at-eps=0,qa+@eps=2,controls=0,black-box-5=2x9,black-box-10=0"
    return audit(gallery, images, Threat(8 / 255), trials=text)


def test_a_random_encoder_is_told_and_the_figures_of_unchanged_images_stand_beside(make):
    images = make.images(12)
    result = audited(Ranker(Random(make.ranker().encoder), draws=2), images)
    assert (result.examination.kind, result.examination.draws) == ("random", 2)
    assert all(cell.unchanged is not None for cell in result.cells)
    assert AuditResult.from_json(result.to_json()).examination == result.examination
    page = render_html(result)
    assert f"The encoder was {result.examination.line.split(',')[0]}" in page
    assert page.count("unchanged ") >= len(result.cells) + 2
    console = Console(width=200, record=True, file=StringIO())
    console.print(audit_table(result))
    assert "unchanged" in console.export_text()


def test_an_ordinary_one_has_the_line_alone(make):
    result = audited(make.ranker(), make.images(12))
    assert result.examination.kind == "function"
    page = render_html(result)
    assert "The encoder was examined on 8 images: a function of its image" in page
    assert "unchanged" not in page.lower()
    assert "The encoder was" not in render_html(replace(result, examination=None))
