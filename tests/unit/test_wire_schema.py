import pytest

from tightwire.errors import CodecError
from tightwire.wire.ledger import SECTIONS, Sections
from tightwire.wire.schema import Schema, TensorSpec


def test_slices_lie_end_to_end_and_cover_the_vector() -> None:
    schema = Schema((TensorSpec("a", (2, 3)), TensorSpec("empty", (0, 4)), TensorSpec("scalar", ())))
    assert schema.size == 7
    assert schema.offsets == (0, 6, 6, 7)
    assert schema.slices() == (slice(0, 6), slice(6, 6), slice(6, 7))


def test_digest_depends_on_names_shapes_and_order() -> None:
    a, b = TensorSpec("a", (2, 3)), TensorSpec("b", (6,))
    others = [Schema((b, a)), Schema((TensorSpec("a", (3, 2)), b)), Schema((a,)), Schema((a, TensorSpec("c", (6,))))]
    digests = {schema.digest for schema in [Schema((a, b)), *others]}
    assert len(digests) == 5
    assert all(len(digest) == 8 for digest in digests)
    assert Schema((a, b)).digest == Schema((TensorSpec("a", (2, 3)), TensorSpec("b", (6,)))).digest


def test_digest_is_the_same_in_every_process() -> None:
    assert Schema.single(10).digest.hex() == "f7149ccf9ce94b62"


@pytest.mark.parametrize(("name", "shape"), [("", (1,)), ("a", (-1,)), ("a", (True,)), ("a", (1.0,))])
def test_bad_tensors_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(CodecError):
        TensorSpec(name, shape)


def test_doubled_names_are_refused() -> None:
    with pytest.raises(CodecError, match="a more than once"):
        Schema((TensorSpec("a", (1,)), TensorSpec("b", (1,)), TensorSpec("a", (2,))))


def test_sections_add_up_and_are_named_as_listed() -> None:
    one = Sections(*range(1, 9))
    assert one.total == 36
    assert one + one == Sections(*range(2, 18, 2))
    assert all(getattr(one, name) for name in SECTIONS)
