"""The conformance tests as a pytest class, which a distribution with its own adapter subclasses."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from adapters.conformance import checks
from adapters.conformance.checks import BAD_RESPONSES, BadHttpResponse
from adapters.conformance.recordings import BodyTransform, Expectation, in_odd_chunks, in_one_chunk, load_expectations
from adapters.vendors.sdk.agent import Vendor

BODY_TRANSFORMS: Final[dict[str, BodyTransform]] = {"whole": in_one_chunk, "pieces": in_odd_chunks}


@dataclass(frozen=True)
class AdapterUnderTest:
    """An adapter and the scenarios that test it."""

    vendor: Vendor
    scenarios: tuple[Expectation, ...]

    @property
    def streamed_scenarios(self) -> list[Expectation]:
        """The scenarios with streamed turns."""
        return [each for each in self.scenarios if "turns" in each.document and not each.document.get("whole")]

    def __str__(self) -> str:
        return self.vendor.kind


class VendorSuite:
    """Tests of one adapter. Subclass it in a file that pytest collects, and set both members:

        class TestRiddle(VendorSuite):
            vendor = Riddle
            recordings = Path(__file__).parent / "recordings"

    Requires only pytest: no plugin, no fixture, no network.
    """

    vendor: ClassVar[type[Vendor]]
    recordings: ClassVar[Path]  # a folder with `SCENARIO.jsonl` and `SCENARIO.expected.json`

    @classmethod
    def adapters_under_test(cls) -> list[AdapterUnderTest]:
        """The adapters under test: one."""
        return [AdapterUnderTest(cls.vendor(), tuple(load_expectations(cls.recordings)))]

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Called by pytest for each test: parametrizes it over adapters, scenarios, chunk sizes and bad responses."""
        subjects = self.adapters_under_test()
        pairs = [(each.vendor, scenario) for each in subjects for scenario in each.scenarios]
        if "adapter" in metafunc.fixturenames:
            metafunc.parametrize("adapter", subjects, ids=str)
        if "scenario" in metafunc.fixturenames:
            metafunc.parametrize(("vendor", "scenario"), pairs, ids=[str(scenario) for _, scenario in pairs])
        if "pieces" in metafunc.fixturenames:
            metafunc.parametrize("pieces", BODY_TRANSFORMS.values(), ids=BODY_TRANSFORMS)
        if "bad" in metafunc.fixturenames:
            metafunc.parametrize("bad", BAD_RESPONSES, ids=str)

    def test_the_adapter_is_shown_by_scenarios_of_its_kind(self, adapter: AdapterUnderTest) -> None:
        foreign = [str(each) for each in adapter.scenarios if each.kind != adapter.vendor.kind]
        assert not foreign, f"scenarios of another kind than {adapter}: {foreign}"
        assert any("turns" in each.document for each in adapter.scenarios), f"no scenario of {adapter} has `turns`"
        assert adapter.streamed_scenarios or not adapter.vendor.features.streams, f"{adapter} streams, but no scenario shows it"

    def test_an_adapter_has_a_kind_features_and_options_and_no_state(self, adapter: AdapterUnderTest) -> None:
        checks.check_shape(adapter.vendor)

    def test_an_unknown_option_is_refused_by_its_name(self, adapter: AdapterUnderTest) -> None:
        checks.check_options(adapter.vendor, adapter.scenarios[0])

    def test_a_scenario_comes_out_as_expected(self, vendor: Vendor, scenario: Expectation, pieces: BodyTransform) -> None:
        asyncio.run(checks.check_scenario(vendor, scenario, pieces))

    def test_an_answer_that_is_cut_is_a_failure_even_after_partial_output(self, adapter: AdapterUnderTest) -> None:
        for scenario in adapter.streamed_scenarios:
            asyncio.run(checks.check_cuts(adapter.vendor, scenario))

    def test_unknown_events_and_members_change_nothing(self, adapter: AdapterUnderTest) -> None:
        for scenario in adapter.streamed_scenarios:
            asyncio.run(checks.check_unknown_members(adapter.vendor, scenario))

    def test_a_repeated_event_brings_no_second_ending(self, adapter: AdapterUnderTest) -> None:
        for scenario in adapter.streamed_scenarios:
            asyncio.run(checks.check_repeats(adapter.vendor, scenario))

    def test_a_bad_answer_is_a_failure_of_its_kind_that_tells_nothing(self, adapter: AdapterUnderTest, bad: BadHttpResponse) -> None:
        asyncio.run(checks.check_bad_response(adapter.vendor, adapter.scenarios[0], bad))

    def test_a_credential_that_an_agent_echoes_is_not_in_the_details(self, adapter: AdapterUnderTest) -> None:
        asyncio.run(checks.check_credential(adapter.vendor, adapter.scenarios[0]))
