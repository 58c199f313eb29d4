"""What other packages register is found by name; what is broken there harms no other name."""

from __future__ import annotations

import pytest

from tests.installed_packages import install
from uva_agents.errors import MachineError
from uva_agents.utils.plugins import plugins

GROUP = "uva_agents.tests"


def test_an_object_of_another_package_is_found_and_loaded(site):
    install(site, "plug_good", f"[{GROUP}]\nanswer = plug_good:ANSWER\n", "ANSWER = 42\n")
    assert {name: load() for name, load in plugins(GROUP, expected=int).items()} == {"answer": 42}
    assert not plugins("uva_agents.other")


def test_a_broken_plug_in_names_its_package_and_harms_no_other_name(site):
    install(site, "plug_raises", f"[{GROUP}]\nraises = plug_raises:X\n", "raise RuntimeError('no luck')\n")
    install(site, "plug_lacks", f"[{GROUP}]\nlacks = plug_lacks:X\n")
    install(site, "plug_right", f"[{GROUP}]\nright = plug_right:X\n", "X = 1\n")
    found = plugins(GROUP)
    with pytest.raises(MachineError, match=r"'raises' = 'plug_raises:X' .* 'plug_raises' cannot be loaded: .*no luck"):
        found["raises"]()
    with pytest.raises(MachineError, match=r"'lacks' .* 'plug_lacks' cannot be loaded: AttributeError"):
        found["lacks"]()
    assert found["right"]() == 1


def test_damaged_metadata_of_some_package_hides_nothing_else(site):
    install(site, "plug_damaged", f"[{GROUP}]\nthis is no entry point\n")
    install(site, "plug_whole", f"[{GROUP}]\nwhole = plug_whole:X\n", "X = 1\n")
    assert plugins(GROUP)["whole"]() == 1


def test_an_object_of_another_type_is_refused(site):
    install(site, "plug_text", f"[{GROUP}]\ntext = plug_text:X\n", "X = 'no'\n")
    with pytest.raises(MachineError, match=r"'plug_text' is a str, expected a int"):
        plugins(GROUP, expected=int)["text"]()


def test_names_of_this_package_and_of_others_cannot_be_taken(site):
    install(site, "plug_thief", f"[{GROUP}]\nours = plug_thief:X\n", "X = 1\n")
    install(site, "plug_one", f"[{GROUP}]\ntheirs = plug_one:X\n", "X = 1\n")
    install(site, "plug_two", f"[{GROUP}]\ntheirs = plug_two:X\n", "X = 2\n")
    found = plugins(GROUP, own=["ours"])
    with pytest.raises(MachineError, match=r"'plug_thief' takes a name that uva-agents itself defines"):
        found["ours"]()
    with pytest.raises(MachineError, match=r"has the same name as one of 'plug_(one|two)'"):
        found["theirs"]()


def test_a_distribution_that_is_on_the_path_twice_counts_once(site, tmp_path_factory, monkeypatch):
    later = tmp_path_factory.mktemp("later")
    install(site, "plug_twice", f"[{GROUP}]\ntwice = plug_twice:X\n", "X = 'first'\n")
    install(later, "plug_twice", f"[{GROUP}]\ntwice = plug_twice:X\n", "X = 'second'\n")
    monkeypatch.syspath_prepend(str(later))
    monkeypatch.syspath_prepend(str(site))
    assert plugins(GROUP)["twice"]() == "first"
