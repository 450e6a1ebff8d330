"""The pages of the site: copies of the papers of this repository in the Markdown that MkDocs reads, with their pictures and files."""

import asyncio
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import count
from pathlib import Path

from gateway.workflows.drawing.mermaid import mermaid_of
from gateway.workflows.drawing.outline import outline_of
from gateway.workflows.drawing.svg import svg_of
from gateway.workflows.dsl.loading import read_document, read_source
from tests.docs.charts import charts_in, draw_chart, parse_chart
from tests.fakes.house import house
from tests.house.source import ROOT

SOURCE = ROOT / "build" / "docs-source"
ASSETS = Path(__file__).with_name("assets")
SCREENSHOTS = ROOT / "build" / "screenshots"
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```.*?^```\n?)", re.MULTILINE | re.DOTALL)
ITEM = re.compile(r"^( *)(?:[-*]|\d+\.) ")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".cedar": "text"}
SHOWN = {"overview": "The overview", "task": "A task", "why": "Why a call was refused", "run": "A run of a workflow", "agent": "An agent"}


def papers() -> list[Path]:
    """The papers of the repository, which are the pages of the site."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def assemble(target: Path = SOURCE) -> None:
    """Writes everything that MkDocs reads into an empty folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ASSETS, target / "assets")
    files: set[Path] = set()
    for paper in papers():
        text = paper.read_text(encoding="utf-8")
        files |= set(linked_files(paper, text))
        page = target / paper.relative_to(ROOT)
        _write(page, convert(paper, text))
        for number, chart in enumerate(charts_in(text), 1):
            _write(page.with_name(picture_name(paper, number)), picture_of(chart))
    for file in files:
        _copy_file(file, target)
    for picture in (ROOT / "docs").glob("*.svg"):
        shutil.copy(picture, target / "docs")
    _write(target / "docs" / "api.md", asyncio.run(api_page()))
    if pictures := sorted(SCREENSHOTS.glob("*.png")):
        shutil.copytree(SCREENSHOTS, target / "docs" / "pictures")
        with (target / "docs" / "console.md").open("a", encoding="utf-8") as page:
            page.write(gallery({picture.stem for picture in pictures}))


def convert(paper: Path, text: str) -> str:
    """A page as MkDocs reads it: links to files lead to their pages, pictures are SVG, and lists have a blank line before them."""
    text = LINK.sub(lambda found: f"]({_page_of(paper, found[1])}{found[2] or ''})", text)
    numbers = count(1)
    parts = FENCE.split(text)
    return "".join(_fence(part, paper, numbers) if part.startswith("```") else _prose(part) for part in parts)


def picture_name(paper: Path, number: int) -> str:
    """The file of a chart of a page, beside the page."""
    return f"{paper.stem.lower()}-{number}.svg"


def _page_of(paper: Path, link: str) -> str:
    target = (paper.parent / link).resolve()
    if "://" in link or target.suffix in (".md", ".svg") or not target.exists():
        return link
    return f"{link.rstrip('/')}/index.md" if target.is_dir() else f"{link}.md"


def linked_files(paper: Path, text: str) -> Iterator[Path]:
    """The files and folders that a paper links to and that are no pages of their own."""
    for link, _anchor in LINK.findall(FENCE.sub("", text)):
        target = (paper.parent / link).resolve()
        if "://" not in link and target.exists() and target.suffix not in (".md", ".svg"):
            yield target


def _copy_file(file: Path, target: Path) -> None:
    """Writes the page of a file, or of a folder with all files in it."""
    name = file.relative_to(ROOT).as_posix()
    if file.is_dir():
        inside = sorted(path for path in file.iterdir() if path.suffix in LANGUAGES)
        _write(target / name / "index.md", f"# {name}\n\n" + "".join(f"- [{path.name}]({path.name}.md)\n" for path in inside))
        for path in inside:
            _copy_file(path, target)
        return
    _write(target / f"{name}.md", f"# {name}\n\n````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8')}````\n")


def _fence(block: str, paper: Path, numbers: Iterator[int]) -> str:
    if block.startswith("```mermaid\n"):
        name = picture_name(paper, next(numbers))
        return f'<div class="picture" markdown>\n[![The picture of the steps]({name})]({name})\n</div>\n'
    info, _, rest = block.removeprefix("```").partition("\n")
    return f"```{info.partition(' ')[0]}\n{rest}"  # the word after the language is for tests


def _prose(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        before = lines[-1] if lines else "\n"
        if ITEM.match(line) and before.strip() and not ITEM.match(before) and not before.startswith(" "):
            lines.append("\n")
        lines.append(line.replace("\\|", "&#124;") if line.startswith("|") and "`" not in line else _cells(line))
    return "".join(lines)


def _cells(line: str) -> str:
    """A row of a table whose code has a bar, as MkDocs reads it: in code, a backslash before the bar would be shown."""
    if not line.startswith("|") or "\\|" not in line:
        return line
    parts = line.split("`")
    return "`".join(part.replace("\\|", "|") if index % 2 else part.replace("\\|", "&#124;") for index, part in enumerate(parts))


def picture_of(chart: str) -> str:
    """The SVG of a mermaid chart: of an example workflow as the gateway draws it, else of a small flowchart. Raises ValueError."""
    name = _workflows_by_chart().get(chart.strip())
    if name is None:
        return draw_chart("How the parts fit together", parse_chart(chart))
    document = read_document(read_source((ROOT / name).read_text(encoding="utf-8")))
    return svg_of(Path(name).stem, outline_of(document))


def _flat(html: str) -> str:
    return "".join(line.strip() for line in html.splitlines()) + "\n"  # Markdown ends raw HTML at a blank line


@cache
def _workflows_by_chart() -> Mapping[str, str]:
    """The examples by their charts."""
    paths = [path for path in (ROOT / "examples").rglob("*.yaml") if "workflows" in path.parts and ".test." not in path.name]
    charts = ((mermaid_of(outline_of(read_document(read_source(path.read_text(encoding="utf-8"))))), path) for path in paths)
    return {chart.strip(): path.relative_to(ROOT).as_posix() for chart, path in charts}


async def api_page() -> str:
    """The reference of /api, as a running gateway shows it at /docs."""
    with tempfile.TemporaryDirectory(prefix="interlock-docs-") as folder:
        async with house(Path(folder) / "home", f"sqlite:///{folder}/i.db") as home:
            page = (await home.http.get("/docs")).text
    body = re.sub(r"<h1>.*?</h1>", "", page.partition("<body>")[2].partition("</body>")[0])
    body = body.replace('<a href="/openapi.json">/openapi.json</a>', "<code>/openapi.json</code> of a running gateway")
    body = re.sub(r"<pre>(.*?)</pre>", lambda found: f"<pre>{found[1].replace(chr(10), '&#10;')}</pre>", body, flags=re.DOTALL)
    return f"# HTTP API\n\n<div>\n{_flat(body)}</div>\n"


def gallery(names: set[str]) -> str:
    """The pictures of `make screenshots`, in light and dark."""
    shown = [name for name in SHOWN if name in names]
    texts = (
        f"### {SHOWN[name]}\n\n![{SHOWN[name]}](pictures/{name}.png#only-light)\n"
        + (f"![{SHOWN[name]}](pictures/{name}-dark.png#only-dark)\n" if f"{name}-dark" in names else "")
        for name in shown
    )
    return "\n" + "\n".join(texts)  # below the heading that ends the page


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
