"""The kit of the Open Workflow Specification against the interpreter of workflows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.kit import BUILD, KitMissing
from tests.conformance.workflow_features import FeatureScenario, NotAsExpected, UnknownPhrase, read_feature, run_scenario
from tests.conformance.workflow_upstreams import ServiceEffects

REPOSITORY = "open-workflow-specification/specification"
VARIABLE = "OPEN_WORKFLOW_SPECIFICATION"  # of the environment, with the folder of a checkout
FEATURES = Path("ctk/features")
DEFAULT = "open-workflow-specification"  # below build/
OWN = Path(__file__).parents[1] / "gateway" / "workflows" / "features"


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """One scenario. `why` is empty where it passed."""

    file: str
    name: str
    why: str

    @property
    def id(self) -> str:
        return f"{self.file}: {self.name}"


def find(environment: Mapping[str, str]) -> Path:
    """The folder of the kit's features. Raises KitMissing."""
    folder = Path(environment.get(VARIABLE) or BUILD / DEFAULT)
    if not any((folder / FEATURES).glob("*.feature")):
        raise KitMissing(f"no workflow kit in {folder}: check out {REPOSITORY} there, or set {VARIABLE} to the folder where it is")
    return (folder / FEATURES).resolve()


async def results(folder: Path) -> list[ScenarioResult]:
    """Every scenario of the kit, in the order of its files."""
    found = []
    for file, scenario in scenarios(folder):
        why = ""
        try:
            why = "" if await run_scenario(scenario, ServiceEffects) else "it checks nothing"
        except (NotAsExpected, UnknownPhrase) as error:
            why = f"{type(error).__name__}: {error}"
        found.append(ScenarioResult(file, scenario.name, why))
    return found


def scenarios(folder: Path) -> list[tuple[str, FeatureScenario]]:
    """Every scenario of a folder with the name of its file. Raises KitMissing where there is none."""
    found = [(path.stem, each) for path in sorted(folder.glob("*.feature")) for each in read_feature(path.read_text(encoding="utf-8"))]
    if not found:
        raise KitMissing(f"{folder} has no features")
    return found


def own_scenarios(folder: Path = OWN) -> dict[str, list[str]]:
    """The scenarios of this repository's own features, by the title of the feature. `make test` runs them."""
    found: dict[str, list[str]] = {}
    for _, scenario in scenarios(folder):
        found.setdefault(scenario.feature, []).append(scenario.name)
    return found


def failed(found: Sequence[ScenarioResult]) -> list[ScenarioResult]:
    return [one for one in found if one.why]
