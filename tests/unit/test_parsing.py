from __future__ import annotations

import shlex
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action import parsing

# What an operating system can hand over: any bytes but NUL, undecodable ones as surrogates.
os_text = st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("2d", 172800), (" 1H ", 3600), ("1d2h3m4s", 93784),
        ("off", 0), ("never", 0), ("none", 0), ("0", 0), (0, 0), ("0m", 0), ("366d", 366 * 86400),
    ],
)  # fmt: skip
def test_a_duration_is_seconds(written, seconds):
    assert parsing.duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "m", "1.5h", "-5m", "30m1h", "1h 30m", "1w", "٣m", "5m\n5m", True, ["1h"], "9" * 5000 + "s"]
)
def test_what_is_no_duration_is_shown_with_examples(written):
    with pytest.raises(ValueError, match=r"is not a duration.*: write 90m, 1h30m, 45s, 2d or off") as caught:
        parsing.duration(written)
    assert parsing.shown(written) in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("written", ["90", 90, "1.5", 2.5])
def test_a_number_without_a_unit_is_told_that_it_needs_one(written):
    with pytest.raises(ValueError, match="a number needs a unit"):
        parsing.duration(written)


@pytest.mark.parametrize("written", ["367d", "999999999d", "999999999h"])
def test_a_duration_that_no_date_can_hold_is_refused(written):
    with pytest.raises(ValueError, match=f"{written}' is longer than 366d"):
        parsing.duration(written)


@given(st.integers(0, 366 * 86400))
def test_a_shown_duration_reads_as_itself(seconds):
    assert parsing.duration(parsing.show_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("512B", 512), ("4096", 4096), (4096, 4096), ("1kB", 1000), ("100MB", 10**8), ("1GiB", 2**30), ("1.5 gib", 3 * 2**29),
        ("2TiB", 2**41), ("0.1GB", 10**8),
    ],
)  # fmt: skip
def test_a_size_is_bytes(written, count):
    assert parsing.size(written) == count


@pytest.mark.parametrize(
    "written", ["", "GB", "1 PB", "-1MB", "1,5MB", "1iB", "1\u212aB", "1e3MB", "1..5MB", False, [1]]
)
def test_what_is_no_size_is_shown_with_examples(written):
    with pytest.raises(ValueError, match=r"is not a size: write 500MB, 1\.5GiB or 4096B") as caught:
        parsing.size(written)
    assert parsing.shown(written) in str(caught.value)


@pytest.mark.parametrize(
    ("written", "usd"), [("0.50", "0.50"), ("$0.5", "0.5"), (" $12 ", "12"), (0.1, "0.1"), (3, "3")]
)
def test_money_is_exact(written, usd):
    assert parsing.money(written) == Decimal(usd)


@pytest.mark.parametrize(
    "written", ["", "free", "0", "-1", "$-1", "nan", "inf", "sNaN", "1,5", "€1", True, "1e999999999", "1e-99", "9" * 50]
)
def test_what_is_no_amount_is_shown_with_examples(written):
    with pytest.raises(ValueError, match=r"amount in US dollars: write 0\.50 or \$0\.50") as caught:
        parsing.money(written)
    assert parsing.shown(written) in str(caught.value)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("a,b", ("a", "b")), ("a\nb\n", ("a", "b")), (" a , , b ", ("a", "b")), ("", ()), (["a", "b,c"], ("a", "b,c")),
        ([123456789012], ("123456789012",)), (123456789012, ("123456789012",)), ([], ()),
    ],
)  # fmt: skip
def test_a_list_is_separated_by_commas_or_lines_or_an_array(written, found):
    assert parsing.words(written) == found


@pytest.mark.parametrize("written", [True, {"a": 1}, [""], [" "], [["a"]], [True], [{"a": 1}], [1.5]])
def test_what_is_no_list_is_refused_with_an_example(written):
    with pytest.raises(ValueError, match=r'write a, b or \["a", "b"\]'):
        parsing.words(written)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("--lr 0.1 --name 'two words'", ("--lr", "0.1", "--name", "two words")),
        ("""'' "" "it's" $HOME *""", ("", "", "it's", "$HOME", "*")),
        ("--a 1 \\\n  --b 2", ("--a", "1", "--b", "2")),
        ('"a\\\nb" x\\\ny', ("ab", "xy")),
        ("'a\\\nb'", ("a\\\nb",)),
        ("a\nb # c", ("a", "b", "#", "c")),
        ("a\\ b", ("a b",)),
        ("\\\\\nx", ("\\", "x")),
        (3, ("3",)),
        ([], ()),
        (["", "a b", '"q"', "--"], ("", "a b", '"q"', "--")),
        (["--lr", 0.1, "--n", 3, True], ("--lr", "0.1", "--n", "3", "true")),
    ],
)
def test_arguments_are_split_as_a_shell_does_and_an_array_is_taken_as_it_is(written, found):
    assert parsing.shell_words(written) == found


@given(st.lists(os_text))
def test_an_array_of_arguments_stays_as_it_is(arguments):
    assert parsing.shell_words(arguments) == tuple(arguments)


@given(st.lists(os_text))
def test_what_a_shell_would_quote_is_unquoted(arguments):
    assert parsing.shell_words(shlex.join(arguments)) == tuple(arguments)


@pytest.mark.parametrize("written", ["--name 'open", 'a "b', "a\\"])
def test_an_open_quotation_is_shown_with_an_example(written):
    with pytest.raises(ValueError, match="without its end: write --name 'two words'") as caught:
        parsing.shell_words(written)
    assert parsing.shown(written) in str(caught.value)


@pytest.mark.parametrize("written", [True, {"lr": 1}])
def test_what_are_no_arguments_is_refused_with_an_example(written):
    with pytest.raises(ValueError, match=r'write --lr 0\.1 or \["--lr", "0\.1"\]'):
        parsing.shell_words(written)


@pytest.mark.parametrize("parse", [parsing.text, parsing.words, parsing.shell_words, lambda a: parsing.pairs(f"A={a}")])
def test_a_nul_is_refused_before_a_program_is_started_with_it(parse):
    with pytest.raises(ValueError, match="NUL"):
        parse("a\0b")


@pytest.mark.parametrize(
    "parse", [parsing.shell_words, lambda a: parsing.shell_words([a]), lambda a: parsing.pairs(f"A={a}")]
)
def test_what_is_too_long_for_a_program_is_refused_at_once(parse):
    parse("a" * 131_071)
    with pytest.raises(ValueError, match="longer than 128 KiB"):
        parse("a" * 10_000_000)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("A=1\nB_2=x=y\n\n  C= spaced \n", {"A": "1", "B_2": "x=y", "C": " spaced "}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=one\u2028line\x0b\x85", {"A": "one\u2028line\x0b\x85"}),
        ("A=", {"A": ""}),
        ("", {}),
        (["A=1,2", "B=two\nlines"], {"A": "1,2", "B": "two\nlines"}),
        ({"A": 1, "B": "x", "C": True, "D": 0.5}, {"A": "1", "B": "x", "C": "true", "D": "0.5"}),
    ],
)
def test_variables_are_lines_or_an_array_or_a_table(written, found):
    assert parsing.pairs(written) == found


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("A=1\nhunter2", "line 2 has no `=`: write NAME=VALUE"),
        ("A B=hunter2", "line 1: 'A B' is not a variable's name"),
        ("=hunter2", "line 1: '' is not a variable's name"),
        ({"A B": "hunter2"}, "'A B' is not a variable's name"),
        ({"A": ["hunter2"]}, "the value of A is neither text nor a number"),
        ({"A": "hunter2\0"}, "the value of A has a NUL"),
        (["A=1", {"hunter2": 1}], "item 2 is neither text nor a number"),
        (3, "3 is not a list of variables: write NAME=VALUE"),
    ],
)
def test_a_wrong_variable_is_told_without_its_value(written, said):
    with pytest.raises(ValueError) as caught:
        parsing.pairs(written)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("written", ["true", "True", "yes", "on", "1", 1, True])
def test_yes_is_yes(written):
    assert parsing.boolean(written) is True


@pytest.mark.parametrize("written", ["false", "FALSE", "no", "off", "0", 0, False])
def test_no_is_no(written):
    assert parsing.boolean(written) is False


@pytest.mark.parametrize("written", ["maybe", "", 2, [True], "null"])
def test_what_is_neither_yes_nor_no_is_shown(written):
    with pytest.raises(ValueError, match="is neither true nor false: write true or false") as caught:
        parsing.boolean(written)
    assert parsing.shown(written) in str(caught.value)


@pytest.mark.parametrize(("written", "number"), [("3", 3), (3, 3), (" 12 ", 12), ("-1", -1), ("+1", 1)])
def test_a_whole_number_is_one(written, number):
    assert parsing.whole_number(written) == number


@pytest.mark.parametrize("written", ["", "3.0", 3.0, "three", True, [3], "1_000", "1e3", "9" * 5000])
def test_what_is_no_whole_number_is_shown_with_an_example(written):
    with pytest.raises(ValueError, match="is not a whole number: write 3, for example") as caught:
        parsing.whole_number(written)
    assert parsing.shown(written) in str(caught.value)


@pytest.mark.parametrize("written", [3.12, 3, True, ["a"], {"a": 1}])
def test_what_is_no_text_is_asked_for_in_quotes(written):
    with pytest.raises(ValueError, match="is not text: write it in quotes") as caught:
        parsing.text(written)
    assert parsing.shown(written) in str(caught.value)


def test_a_choice_is_one_of_its_words():
    assert parsing.one_of("never", "prefer")(" prefer ") == "prefer"


def test_a_word_that_is_no_choice_is_told_all_of_them_and_the_nearest():
    with pytest.raises(ValueError, match=r"^'nevr' is none of never, prefer: did you mean never\?$"):
        parsing.one_of("never", "prefer")("nevr")
    with pytest.raises(ValueError, match=r"^false is none of never, prefer$"):
        parsing.one_of("never", "prefer")(False)


@given(
    st.one_of(os_text, st.integers(), st.floats(), st.booleans(), st.lists(os_text), st.dictionaries(os_text, os_text))
)
def test_nothing_that_toml_can_say_makes_a_parser_fail_in_another_way(value):
    for parse in (
        parsing.text, parsing.secret, parsing.whole_number, parsing.boolean, parsing.duration, parsing.size, parsing.money,
        parsing.words, parsing.shell_words, parsing.pairs, parsing.one_of("a", "b"),
    ):  # fmt: skip
        try:
            parse(value)
        except ValueError as error:
            assert str(error)
