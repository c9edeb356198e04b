"""The report of a study or an experiment, written into its folder: ``report.html``, ``report.md`` and ``figures/``."""

from __future__ import annotations

from pathlib import Path

from mtl_tickets.files import folder_written_whole, write_text
from mtl_tickets.locate import STUDY
from mtl_tickets.progress import Progress, Silent
from mtl_tickets.report.content import document
from mtl_tickets.report.document import Document, drawings
from mtl_tickets.report.gather import gather
from mtl_tickets.report.html import page
from mtl_tickets.report.markdown import markdown
from mtl_tickets.report.study import StudyData, baselines_of, gather_study
from mtl_tickets.report.study_content import study_document

HTML, MARKDOWN, FIGURES = "report.html", "report.md", "figures"


def write_report(place: str | Path) -> Path:
    """Writes the report of the study, the experiment folder or the single run at ``place``; gives the path of the HTML
    file. Of a study of several points each has a report of its own in its folder.

    What is unfinished is reported as far as it got. Raises :class:`CheckpointError` as
    :func:`~mtl_tickets.report.gather.gather` does. Files of an earlier report are replaced, each at once.
    """
    place = Path(place)
    if (place / STUDY).is_file():
        return write_study(gather_study(place), place)
    return write(document(gather(place, baselines_of(place) or ())), place)


def write_study(study: StudyData, folder: Path, progress: Progress | None = None) -> Path:
    """As :func:`write_report`, of a study that is read already. ``progress`` is told of every report."""
    progress = progress or Silent()
    if len(study.points) > 1:
        for point in study.points:
            progress.stage(f"writing the report of {point.name}")
            if point.report is not None:
                write(document(point.report), folder / point.folder)
            progress.advance(1)
    progress.stage("writing the report")
    written = write(study_document(study), folder)
    progress.advance(1)
    return written


def report_study(folder: Path, points: int, progress: Progress) -> tuple[StudyData, Path]:
    """Reads the study at ``folder``, which has so many points, and writes its report; gives both."""
    each = 2 if points > 1 else 1  # of several each has a report of its own
    progress.begin(f"reports in {folder}", each * points + 1)
    found = gather_study(folder, progress)
    return found, write_study(found, folder, progress)


def write(made: Document, folder: Path) -> Path:
    """Writes a report into ``folder``; equal documents give equal bytes."""
    with folder_written_whole(folder / FIGURES) as figures:
        for drawing in (drawing for section in made.sections for drawing in drawings(section.blocks)):
            (figures / f"{drawing.name}.svg").write_text(drawing.svg, encoding="utf-8")
            (figures / f"{drawing.name}.png").write_bytes(drawing.png)
    write_text(folder / MARKDOWN, markdown(made))
    write_text(folder / HTML, page(made))
    return folder / HTML
