"""Files, classes, functions and parameter lists stay small."""

from tests.house import limits
from tests.house.source import Source, assert_kept, everything, product


def made(text: str) -> Source:
    return Source("gateway/made.py", text)


def test_no_file_is_longer_than_400_lines() -> None:
    assert_kept(limits.long_files, everything())


def test_no_class_is_longer_than_200_lines() -> None:
    assert_kept(limits.long_classes, everything())


def test_no_function_is_longer_than_60_lines() -> None:
    assert_kept(limits.long_functions, everything())


def test_no_function_takes_more_than_5_positional_parameters() -> None:
    assert_kept(limits.many_parameters, product())


def test_no_function_takes_several_parameters_in_one_tuple() -> None:
    assert_kept(limits.tupled_parameters, product())


def test_a_tuple_of_parameters_is_found_by_its_name() -> None:
    assert len(limits.tupled_parameters(made("def f(url_and_body: tuple[str, bytes]): ...\n"))) == 1
    assert limits.tupled_parameters(made("def f(key: tuple[str, str], allow_and_deny: bool): ...\n")) == []


def test_the_limits_are_exact() -> None:
    assert limits.long_files(made("x = 1\n" * 400)) == []
    assert len(limits.long_files(made("x = 1\n" * 401))) == 1
    assert limits.long_classes(made("class A:\n" + "    x = 1\n" * 199)) == []
    assert len(limits.long_classes(made("class A:\n" + "    x = 1\n" * 200))) == 1
    assert limits.long_functions(made("async def f():\n" + "    x = 1\n" * 59)) == []
    assert len(limits.long_functions(made("async def f():\n" + "    x = 1\n" * 60))) == 1


def test_self_is_no_parameter_and_keyword_only_ones_are_free() -> None:
    assert limits.many_parameters(made("class A:\n    def f(self, a, b, c, d, e, *, g, h): ...\n")) == []
    assert len(limits.many_parameters(made("class A:\n    def f(self, a, b, c, d, e, g, *, h): ...\n"))) == 1
    assert len(limits.many_parameters(made("async def f(a, b, c, d, e, g): ...\n"))) == 1


def test_the_options_of_a_command_are_no_parameters() -> None:
    assert limits.many_parameters(made("def f(a: Annotated[str, typer.Option()], b, c, d, e, g): ...\n")) == []
