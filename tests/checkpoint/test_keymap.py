import pytest

from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, move_leaves
from mbv3ssd_deploy.errors import CheckpointError

RULES = KeyMap(
    (
        KeyRule(r"aux\..+", None, why="only the training reads it"),
        move_leaves("base.0", "stem.0"),
        KeyRule(r"(extra|head)\.(\d)\.(.+)", r"\1s.\2.\3"),
    )
)


def test_every_key_is_accounted_for():
    shapes = {
        "base.0.weight": (8, 3),
        "base.0.deep.weight": (1,),
        "aux.weight": (9,),
        "head.1.bias": (4,),
        "head.2.bias": (4,),
    }
    wanted = {
        "stem.0.weight": (8, 4),
        "heads.1.bias": (4,),
        "stem.0.bias": (8,),
        "stem.1.num_batches_tracked": (),
    }

    report = RULES.account(shapes, wanted)

    assert report.renamed == {"base.0.weight": "stem.0.weight", "head.1.bias": "heads.1.bias"}
    assert report.dropped == {"aux.weight": "only the training reads it"}
    # one has no rule; the other has one, but the network has no such place
    assert report.unmatched == ("base.0.deep.weight", "head.2.bias")
    assert report.missing == ("base.0.bias",)
    assert [(m.key, m.found, m.wanted) for m in report.wrong_shape] == [
        ("base.0.weight", (8, 3), (8, 4))
    ]
    assert not report.is_clean
    assert report.problems() == (
        "1 tensor is missing: base.0.bias; "
        "2 keys are unknown: base.0.deep.weight, head.2.bias; "
        "1 shape is wrong: base.0.weight is [8, 3], the network wants [8, 4]"
    )


def test_a_clean_report_has_no_problems():
    report = RULES.account({"base.0.weight": (1,)}, {"stem.0.weight": (1,)})

    assert report.is_clean
    assert report.problems() == ""


def test_the_first_rule_that_matches_decides():
    rules = KeyMap((KeyRule("a", "first"), KeyRule("a|b", "second")))

    report = rules.account({"a": (), "b": ()}, {"first": (), "second": ()})

    assert report.renamed == {"a": "first", "b": "second"}


def test_a_pattern_must_match_the_whole_key():
    assert KeyMap((KeyRule("a", "b"),)).account({"a.c": ()}, {"b": ()}).unmatched == ("a.c",)


def test_dots_of_a_moved_name_are_no_wildcards():
    report = KeyMap((move_leaves("a.b", "c"),)).account({"axb.weight": ()}, {"c.weight": ()})

    assert report.unmatched == ("axb.weight",)


def test_two_keys_that_become_one_are_an_error():
    rules = KeyMap((KeyRule(r"[ab]\.w", "c.w"),))

    with pytest.raises(CheckpointError, match=r"a\.w and b\.w both become c\.w"):
        rules.account({"a.w": (), "b.w": ()}, {"c.w": ()})


def test_a_rule_that_drops_must_say_why():
    with pytest.raises(ValueError, match="without saying why"):
        KeyRule("a", None)


def test_long_lists_are_cut():
    wanted = {f"k{i}": () for i in range(20)}

    problems = KeyMap(()).account({}, wanted).problems()

    assert problems == "20 tensors are missing: k0, k1, k2, k3, k4, k5 and 14 more"
