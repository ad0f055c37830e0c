import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.codecs import grammar
from tightwire.codecs.chain import Chain
from tightwire.codecs.codec import Codec
from tightwire.codecs.entropy import Rans
from tightwire.codecs.floats import Brain, Half, Plain
from tightwire.codecs.stage import Stage
from tightwire.codecs.topk import TopK
from tightwire.codecs.uniform import Uniform
from tightwire.errors import CodecError

quantisers = st.builds(Uniform, st.integers(1, 16), st.sampled_from(["stochastic", "nearest"]))
sparsifiers = st.builds(TopK, st.floats(1e-9, 1, exclude_min=True))
endings: st.SearchStrategy[tuple[Stage, ...]] = st.one_of(
    st.tuples(quantisers),
    st.tuples(quantisers, st.just(Rans())),
    st.tuples(st.sampled_from([Plain(), Half(), Brain()])),
)
chains = st.builds(lambda front, back: Chain((*front, *back)), st.lists(sparsifiers, max_size=2), endings)
patterns = st.text('abc.*?[]-/"_0123456789', min_size=1, max_size=8)
codecs = st.builds(Codec, chains, st.lists(st.tuples(patterns, chains), max_size=3).map(tuple))


@settings(deadline=None, max_examples=150)
@given(codecs)
def test_every_codec_prints_a_line_that_parses_back_to_it(codec: Codec) -> None:
    assert Codec.parse(str(codec)) == codec
    assert Codec.parse(codec.compact) == codec
    assert " " not in codec.compact


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(["topk(0.1)", "uniform(4)", "rans", "|", ";", "a*", "b.c", ":", " ", "\t", "é", "("])))
def test_a_line_taken_apart_at_its_rules_means_what_the_grammar_says(words: list[str]) -> None:
    line = "".join(words)
    try:
        whole: object = Codec(*grammar.parse(line))
    except CodecError as error:
        whole = str(error)
    try:
        assert Codec.parse(line) == whole
    except CodecError as error:
        assert str(error) == whole  # noqa: PT017 - parsing may also succeed


@settings(deadline=None, max_examples=300)
@given(st.text("topkunifrmas(0.14)|;:=,* \té", max_size=30))
def test_any_text_parses_or_is_refused_with_a_column(line: str) -> None:
    try:
        Codec.parse(line)
    except CodecError as error:
        assert str(error).startswith("column ")  # noqa: PT017 - parsing may also succeed
        assert "\n" not in str(error)  # noqa: PT017 - as above


def test_canonical_form() -> None:
    line = "topk(density=0.10)|uniform( 4 ,rounding=stochastic ) |rans;*.bias:fp16"
    assert str(Codec.parse(line)) == "topk(0.1) | uniform(4) | rans; *.bias: fp16"
    assert Codec.parse(line).compact == "topk(0.1)|uniform(4)|rans;*.bias:fp16"
    assert str(Codec.parse("uniform(4,nearest)")) == "uniform(4, rounding=nearest)"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "column 1: expected a stage, got the end"),
        ("topk(0.1) | unifrom(4)", "column 13: unknown stage 'unifrom' (did you mean 'uniform'?)"),
        ("zzz", "column 1: unknown stage 'zzz' ('tightwire codec list' shows all)"),
        ("topk(0.1", "column 9: expected ',' or ')', got 'the end'"),
        ("topk()", "column 1: 'topk' needs density: topk(density)"),
        ("topk(2)", "column 1: topk takes a density in (0, 1], got 2.0"),
        ("topk(nan)", "column 1: topk takes a density in (0, 1], got nan"),
        ("topk(much)", "column 6: 'topk' takes a number for density, got 'much'"),
        ("topk(0.1, 0.2)", "column 11: too many arguments for 'topk': topk(density)"),
        ("topk(0.1, density=0.2)", "column 11: 'topk' got density twice"),
        ("topk(k=3)", "column 6: 'topk' has no argument 'k': topk(density)"),
        ("uniform(17)", "column 1: uniform takes 1 to 16 bits, got 17"),
        ("uniform(4.5)", "column 9: 'uniform' takes an integer for bits, got '4.5'"),
        ("uniform(4, rounding=up)", "column 21: 'uniform' takes stochastic or nearest"),
        ("rans | topk(0.1)", "column 1: 'rans' takes codes, but a chain starts from real values; put "),
        ("uniform(4) | fp16", "column 14: 'fp16' takes real values, but 'uniform' gives codes; it must come earlier"),
        ("none | rans", "column 8: 'rans' takes codes, but 'none' gives final bytes"),
        ("flatten | svd(2)", "column 11: 'svd' works on a tensor's axes, but 'flatten' gives values without any; it "),
        ("rotate | powersgd(2)", "column 10: 'powersgd' works on a tensor's axes, but 'rotate' gives"),
        ("topk(0.1) | fp16; w: randk(0.5) | structured(rows, 0.5)", "column 35: 'structured' works on a tensor's axes"),
        ("none fp16", "column 6: expected '|', ';' or the end, got 'fp16'"),
        ("*.bias: none", "column 1: unknown stage '*.bias'"),
        ("none : none", "column 6: expected '|', ';' or the end, got ':'; only rules behind a ';' have a pattern"),
        ("none; none", "column 11: expected ':' behind the pattern 'none', got 'the end'"),
        ("none; *.bias:", "column 14: expected a stage, got the end"),
        ("none é", "column 6: a codec line is ASCII, got 'é'"),
    ],
)
def test_errors_point_at_the_column_and_say_what_would_be_right(line: str, message: str) -> None:
    with pytest.raises(CodecError) as error:
        Codec.parse(line)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith(f"in {line!r}")


def test_a_chain_built_by_hand_is_checked_too() -> None:
    with pytest.raises(CodecError, match="'rans' takes codes"):
        Chain((Rans(),))
    with pytest.raises(CodecError, match="needs a stage"):
        Chain(())


@pytest.mark.parametrize(
    "line",
    [
        "flatten | structured(blocks, density=0.1)",
        "structured(rows, density=0.5) | svd(2)",
        "flatten | sketch(3, columns=100) | powersgd(2)",
        "powersgd(4) | svd(2) | topk(0.5)",
    ],
)
def test_what_works_on_axes_may_follow_what_has_some(line: str) -> None:
    assert str(Codec.parse(line)) == line


def test_the_first_matching_rule_counts() -> None:
    codec = Codec.parse("none; *.bias: fp16; fc*: bf16")
    names = ("fc1.bias", "fc1.weight", "conv.weight")
    assert [str(codec.chain(name)) for name in names] == ["fp16", "bf16", "none"]
