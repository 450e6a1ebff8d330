"""Builds the site: copies the pages, runs MkDocs, and takes the addresses of other hosts out of the theme's scripts."""

import os
import re
import subprocess
import sys

from tests.docs.pages import ROOT, assemble

SITE = ROOT / "build" / "docs"
MKDOCS = ROOT / "build" / "vendors" / "docs" / "bin" / "mkdocs"
CONFIGURATION = ROOT / "tests" / "docs" / "mkdocs.yml"
FOREIGN_SCRIPT = re.compile(r'"https://unpkg\.com/[^"]*"')


def main() -> int:
    """The exit code: that of MkDocs, whose warnings are failures."""
    assemble()
    ran = subprocess.run(
        [str(MKDOCS), "build", "--strict", "--clean", "-f", str(CONFIGURATION)], cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    if ran.returncode == 0:
        remove_foreign_scripts()
        print(f"the site is in {SITE.relative_to(ROOT)}: open {SITE.relative_to(ROOT)}/index.html")
    return ran.returncode


def remove_foreign_scripts() -> None:
    """The theme would fetch these scripts for diagrams, which are pictures here, and for browsers of 2019."""
    for script in SITE.rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        if FOREIGN_SCRIPT.search(text):
            script.write_text(FOREIGN_SCRIPT.sub('"data:text/javascript,"', text), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
