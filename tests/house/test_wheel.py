"""What is installed: four packages with generic names, and nothing that could overwrite a stranger's."""

import tomllib
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from adapters.version import VERSION
from tests.house.source import PRODUCT, ROOT, product


def test_the_wheel_holds_the_four_packages_and_its_own_papers(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert f"interlock_gateway-{VERSION}.dist-info" in tops
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PRODUCT)
    assert len(tops) == len(PRODUCT) + 1
    assert {source.path for source in product()} == {name for name in names if name.endswith(".py")}
    rules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "policies").rglob("*.cedar")}
    assert rules
    assert rules <= set(names)
    console = ROOT / "gateway" / "ingress" / "console"
    pages = {path.relative_to(ROOT).as_posix() for folder in ("templates", "static") for path in (console / folder).iterdir()}
    assert {"gateway/ingress/console/templates/layout.html", "gateway/ingress/console/static/console.css"} <= pages <= set(names)


def test_the_distribution_is_private_and_foreign_packages_are_refused() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert document["project"]["name"] == "interlock-gateway"
    assert "Private :: Do Not Upload" in document["project"]["classifiers"]
    assert set(document["tool"]["uv"]["constraint-dependencies"]) == {"adapters<0", "policies<0", "registry<0"}


def test_the_version_stands_in_one_file() -> None:
    assert [source.path for source in product() if f'"{VERSION}"' in source.text] == ["adapters/version.py"]
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
