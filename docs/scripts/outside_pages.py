"""MkDocs hook: Markdown files outside of docs/ are pages too; links between all of them work."""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# File of the repository -> page of the site.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "configs/README.md": "configs.md",
    "projects/README.md": "projects.md",
    "projects/attention_analysis/README.md": "attention_analysis.md",
    "projects/imagenet_classification/README.md": "imagenet_classification.md",
    "projects/kinetics_slow_only/README.md": "kinetics_slow_only.md",
    "projects/parity/README.md": "parity.md",
    "projects/serving/README.md": "serving.md",
    "projects/tour/README.md": "tour.md",
    "tools/README.md": "tools.md",
}
PICTURES = (
    "tools/demo.png",
    "projects/attention_analysis/generated_dnl.png",
    "projects/imagenet_classification/pairs.png",
    "projects/kinetics_slow_only/curves.png",
)
# Code is left alone, but for code that is a link's text.
_TOKEN = re.compile(
    r"^ *```.*?^ *```|(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)|`[^`\n]*`",
    re.MULTILINE | re.DOTALL,
)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages from outside, and the pictures that they show."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for source in PICTURES:
        files.append(File.generated(config, source, content=(ROOT / source).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the site has them; what the site lacks, such as code, is named without a link."""
    here = page.file.src_uri
    sources = {page: source for source, page in OUTSIDE.items()}
    folder = os.path.dirname(sources.get(here, f"docs/{here}"))

    def convert(match: re.Match) -> str:
        mark, text, link = match.groups()
        if link is None or link.startswith("#") or re.match(r"[a-z]+:", link):
            return match[0]
        address, _, heading = unquote(link).partition("#")
        target = os.path.normpath(os.path.join(folder, address))
        page = OUTSIDE.get(target, target.removeprefix("docs/"))
        if page == target and not mark:  # neither
            return text
        place = os.path.relpath(page, os.path.dirname(here) or ".")
        return f"{mark}[{text}]({place}{'#' * bool(heading)}{heading})"

    return _TOKEN.sub(convert, markdown)
