"""Messages repeat little of what they were given, and name what is near."""

from service.nearest import did_you_mean, shown


def test_a_near_name_is_suggested() -> None:
    assert did_you_mean("bata", ["beta", "alpha"], kind="names") == 'did you mean "beta"?'


def test_without_a_near_one_the_known_are_listed() -> None:
    assert did_you_mean("zzz", ["b", "a"], kind="names") == "the names are a, b"
    many = [f"name-{number:02}" for number in range(12)]
    assert did_you_mean("zzz", many, kind="names") == f"some names are {', '.join(many[:10])}"


def test_without_any_that_is_said() -> None:
    assert did_you_mean("zzz", [], kind="models") == "there are no models"


def test_long_text_is_cut() -> None:
    assert shown("x" * 1_000) == '"' + "x" * 100 + '…"'
