"""What a report says: the verdict first, in words that claim no more than the tests do, and nothing left blank."""

import dataclasses

import pytest

from mtl_tickets.report.content import document
from mtl_tickets.report.data import Difference, Judgement
from mtl_tickets.report.document import Bullets, Figure, Fold, Gallery, Heading, Mark, Paragraph, Table, pieces, plain
from mtl_tickets.report.gather import gather
from mtl_tickets.report.verdict_content import in_short
from tests.report.made import World


def judgement(*outcomes: str) -> Judgement:
    items = (Difference(f"rule {i}", outcome, "", 1.0, None, None, None, None) for i, outcome in enumerate(outcomes))
    return Judgement("dense", tuple(items), {})


def inside(blocks) -> list:
    found = []
    for block in blocks:
        found.append(block)
        if isinstance(block, Fold):
            found += inside(block.blocks)
        if isinstance(block, Gallery):
            found += block.figures
    return found


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (["better"], "rule 0 is better than dense on the average over tasks."),
        (["better", "worse"], "rule 0 is better than dense and rule 1 is worse than dense on the average over tasks."),
        (
            ["better", "better", "not shown", "same scores"],
            "rule 0 and rule 1 are better than dense on the average over tasks; for 2 more no difference is shown.",
        ),
        (["not shown"], "The method is not shown to differ from dense on the average over tasks."),
        (
            ["not shown", "same scores"],
            "None of the 2 methods is shown to differ from dense on the average over tasks.",
        ),
        (
            ["one seed", "one seed"],
            "One seed: no test over seeds is possible, so that no method is shown to differ from dense. What these "
            "very models do on other rows is under Scores.",
        ),
    ],
)
def test_the_verdict_in_short_claims_what_is_shown(outcomes, said):
    assert in_short(judgement(*outcomes)) == said


def test_sections_stand_in_one_order_and_the_verdict_first(made):
    names = ["verdict", "scores", "ladders", "choice", "tickets", "training", "cost", "run"]
    assert [section.name for section in made.sections] == names
    assert all(section.blocks for section in made.sections)


def test_every_difference_has_its_sentence_and_its_mark(made, data):
    marks = [
        piece
        for block in made.sections[0].blocks
        if isinstance(block, Bullets)
        for item in block.items
        for piece in pieces(item)
        if isinstance(piece, Mark)
    ]
    assert [mark.outcome for mark in marks] == [item.outcome for j in data.judgements for item in j.average]


def test_rows_have_a_cell_for_every_heading_and_no_blank_one(made):
    tables = [b for section in made.sections for b in inside(section.blocks) if isinstance(b, Table)]
    for table in tables:
        for row in table.rows:
            assert len(row.cells) == len(table.headings) - 1
            assert all(plain(cell.text).strip() for cell in row.cells), plain(table.caption)


def test_figures_have_names_of_their_own_and_say_what_they_show(made):
    figures = [b for section in made.sections for b in inside(section.blocks) if isinstance(b, Figure)]
    assert len({figure.drawing.name for figure in figures}) == len(figures)
    assert len({figure.finding for figure in figures}) == len(figures)


def test_p_stands_in_the_table_of_differences(made, data):
    table = next(b for b in made.sections[1].blocks if isinstance(b, Table) and "Differences" in plain(b.caption))
    last = table.rows[-1]
    assert plain(last.head) == "p of the average"
    for cell, item in zip(last.cells, data.judgements[0].average, strict=True):
        assert float(plain(cell.text).removeprefix("< ")) == pytest.approx(item.p, rel=1e-2)


def test_one_task_and_one_seed_make_a_report_without_tests_or_pairs(tmp_path):
    world = World(tmp_path / "made", tasks=["rte"], rules=["own"], controls=[], rungs=1)
    world.write(4)
    data = gather(world.folder)
    made = document(data)
    verdict, scores, _, tickets, *_ = made.sections
    assert plain(verdict.blocks[0].text).startswith("One seed: no test over seeds is possible")
    assert not [block for block in verdict.blocks if isinstance(block, Figure)]
    assert "p of the average" not in [
        plain(r.head) for b in inside(scores.blocks) if isinstance(b, Table) for r in b.rows
    ]
    assert "Overlap" not in [block.text for block in tickets.blocks if isinstance(block, Heading)]
    shown = " ".join(
        plain(c.text) for b in inside(scores.blocks) if isinstance(b, Table) for r in b.rows for c in r.cells
    )
    assert "±" not in shown


def test_what_is_missing_is_said_in_every_section_that_lacks_it(data):
    nothing = dataclasses.replace(
        data, methods=(), scores=None, extra=None, judgements=(), ladders=(), optimism=None, tickets=None,
        courses=(), costs=(), missing=("Seed 1 is not finished.",),
    )  # fmt: skip
    made = document(nothing)
    assert any(isinstance(block, Paragraph) and block.warns for block in made.lead)
    for section in made.sections[:-1]:
        (said,) = section.blocks
        assert "yet" in plain(said.text)
