"""Values of secret keys in arguments are masked, by the names of Rails, of jq.toml and of the application."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solidjq.errors import UsageError
from solidjq.rails.active_job import shown_arguments
from solidjq.rails.masking import RAILS_NAMES, Harmless, Mask, application_names, contains_mask, with_own
from solidjq.settings.file import SettingsFile
from solidjq.settings.masks import masked_names
from solidjq.settings.sources import Settings
from solidjq_cli.formats import plain

MASK = "***"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"password": "x"}, {"password": MASK}),
        ({"Old_PassWd_2": 12}, {"Old_PassWd_2": MASK}),
        ({"user": {"api_key": ["a", "b"], "name": "Ann"}}, {"user": {"api_key": MASK, "name": "Ann"}}),
        ([{"token": {"deep": 1}}, 5], [{"token": MASK}, 5]),
        ({"email": "ann@example.org", "cvc": 123}, {"email": MASK, "cvc": MASK}),
        ({"secret": None}, {"secret": None}),  # that there is none is no secret
        ({"key": 1, "monkey": 2}, {"key": 1, "monkey": 2}),
        (
            {"_aj_symbol_keys": ["otp"], "_aj_ruby2_keywords": ["id"], "otp": 1},
            {"_aj_symbol_keys": ["otp"], "_aj_ruby2_keywords": ["id"], "otp": MASK},
        ),
        ("https://ann:pw@host/x?token=5", "https://ann:***@host/x?token=***"),
        (True, True),
    ],
)
def test_what_rails_filters_is_masked(value: Any, shown: Any) -> None:
    assert Mask().applied(value) == shown


_WORDS = st.sampled_from(
    ["", "a text", "name", "password=x", "https://ann:pw@host/", "gid://shop/Order/1", "ann@example.org", "a\\tb", "é"]
)
_KEYS = st.sampled_from(
    ["id", "name", "_aj_symbol_keys", "password", "api_key", "sslkey", "sslpassword", "token=1", "q"]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(values=st.lists(_VALUES, max_size=3), ascii_only=st.booleans())
def test_what_is_not_masked_piece_by_piece_has_nothing_to_mask(values: list[Any], *, ascii_only: bool) -> None:
    mask = Mask()
    document = json.dumps({"arguments": values}, ensure_ascii=ascii_only)
    shown = shown_arguments(document, mask)
    assert shown == mask.applied(values)
    if isinstance(shown, Harmless):
        assert plain(shown) == values


def test_most_arguments_are_not_masked_piece_by_piece() -> None:
    for values in ([], [5, "a"], [{"_aj_globalid": "gid://shop/Order/1"}, {"id": [{"name": "a"}]}]):
        assert type(shown_arguments(json.dumps({"arguments": values}), Mask())) is Harmless


def test_own_names_are_added_and_may_be_anchored() -> None:
    mask = with_own(["iban", "^pin$", "^card", "id.$"])
    hidden = {"IBAN_2", "pin", "PIN", "card_no", "id.", "password"}
    assert {key for key in (*hidden, "pins", "spin", "no_card", "ids", "id") if mask.hides(key)} == hidden
    assert mask.names[: len(RAILS_NAMES)] == RAILS_NAMES


def test_no_names_mask_nothing() -> None:
    assert Mask([]).applied({"password": "x"}) == {"password": "x"}


@pytest.mark.parametrize("text", ["not JSON, token 5", '{"arguments": [NaN]}', '{"arguments": ' + "[" * 5000])
def test_of_what_cannot_be_read_nothing_is_shown(text: str) -> None:
    shown = shown_arguments(text, Mask())
    assert shown == f"({len(text):,} characters that are no readable JSON: see --show-arguments)"
    assert shown_arguments(text) == text


def test_a_mask_in_the_place_of_a_value_is_found() -> None:
    assert contains_mask([1, {"a": [{"password": MASK}]}])
    assert not contains_mask([1, {"a": [{MASK: "***x"}]}])


# -- the application's own filter


def application(folder: Path, **files: str) -> Path:
    for name, text in {"application": "", **files}.items():
        path = folder / "config" / ("initializers" if name != "application" else "") / f"{name}.rb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_filter_of_an_application_is_read_as_data(tmp_path: Path) -> None:
    root = application(
        tmp_path,
        application="config.filter_parameters << :badge_number  # not << :comment",
        filter_parameter_logging="""
# Be sure to restart
Rails.application.config.filter_parameters += [
  :passw, :"iban", "phone",
  /\\Apin\\z/i, /^card/, /a.b|c/,  # the last is for Ruby alone
  lambda { |key, value| value.reverse! if key == "x" },
]
""",
        more="""
Rails.application.config.filter_parameters.concat(%w[street zip])
Rails.application.config.filter_parameters += %i[birth_date]
config.filter_parameters = [:nickname]
other.parameters += [:not_this]
""",
    )
    assert application_names(root) == (
        *("badge_number", "passw", "iban", "phone", "^pin$", "^card", "x"),
        *("street", "zip", "birth_date", "nickname"),
    )


def test_an_application_without_a_filter_and_a_folder_that_is_none(tmp_path: Path) -> None:
    assert application_names(application(tmp_path)) == ()
    assert application_names(tmp_path / "nowhere") == ()


# -- jq.toml


def test_the_names_of_all_files_count() -> None:
    files = [SettingsFile(Path(f"{name}.toml"), {"mask": [name, "iban"]}) for name in ("own", "system", "found")]
    assert masked_names(Settings((files[0], files[1]), files[2])) == ("own", "iban", "system", "found")
    assert masked_names(Settings()) == ()


@pytest.mark.parametrize("value", ["iban", [1], [""], ["^$"], ["x" * 300], {"iban": True}])
def test_what_is_no_list_of_names_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"own.toml: mask is .*a list of names"):
        masked_names(Settings((SettingsFile(Path("own.toml"), {"mask": value}),)))
