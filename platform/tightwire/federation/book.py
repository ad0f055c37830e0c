"""The books of a closed round: what every frame cost, and what every client decided."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tightwire.federation.invite import Invited
from tightwire.federation.records import DecisionRow, LedgerRow
from tightwire.federation.tasks import ClientReport, Exchange
from tightwire.wire.ledger import SECTIONS, Sections


def book(
    round_: int,
    invited: Invited,
    reports: Mapping[int, ClientReport],
    statuses: Mapping[int, str],
    *,
    tier: Callable[[int], str],
    resent: Callable[[int], int],
    bytes_fp32: int,
    tag: int = 0,
) -> tuple[tuple[LedgerRow, ...], tuple[DecisionRow, ...]]:
    """Rows of the round's ledger and decisions, ascending by client.

    Args:
        round_: Number of the round.
        invited: Its clients.
        reports: Theirs.
        statuses: What became of their uploads.
        tier: Client -> name of its tier.
        resent: Bytes -> bytes that the link loses besides.
        bytes_fp32: Of a frame under the codec ``none``.
        tag: Of authentication, behind each frame that a client sends.
    """
    ledger: list[LedgerRow] = []
    decisions: list[DecisionRow] = []
    for client, report in reports.items():
        common: dict[str, Any] = {"round": round_, "client": client, "tier": tier(client)}
        ledger.append(_down(invited, report, {**common, "bytes_fp32": bytes_fp32}, resent))
        if report.exchange is not None:
            ledger.extend(_exchanged(report.exchange, common))
        passage, decision = report.passage, report.decision
        if report.sections is not None and (passage.bytes or passage.resent):
            ledger.append(
                _row(
                    _through(report.sections, passage.bytes),
                    **common,
                    bytes_fp32=bytes_fp32 + tag,
                    direction="up",
                    codec=decision.codec or "",
                    status=statuses[client],
                    seconds=passage.seconds,
                    joules=passage.joules,
                    resent=passage.resent,
                )
            )
        decisions.append(
            DecisionRow(
                **common,
                codec=decision.codec or "",
                bits=decision.bits,
                density=decision.density,
                reason=decision.reason,
                predicted_bytes=decision.predicted_bytes,
                predicted_seconds=decision.predicted_seconds,
                predicted_error=decision.predicted_error,
                bytes=report.sections.total if report.sections is not None else 0,
                seconds=passage.seconds,
                error=report.error,
                status=f"refused: {report.reason}" if statuses[client] == "refused" else statuses[client],
            )
        )
    return tuple(ledger), tuple(decisions)


def _down(invited: Invited, report: ClientReport, common: Mapping[str, Any], resent: Callable[[int], int]) -> LedgerRow:
    delivery = invited.deliveries[report.client]
    whole = report.received >= delivery.sections.total
    return _row(
        _through(delivery.sections, report.received),
        **common,
        direction="down",
        codec=delivery.codec,
        status="used" if whole else "lost",
        seconds=report.download_seconds,
        joules=report.download_joules,
        frames=delivery.frames,
        resent=resent(report.received),
    )


def _exchanged(exchange: Exchange, common: Mapping[str, Any]) -> Iterator[LedgerRow]:
    """What agreeing on ranges costs one client; without compression there would be nothing of it."""
    told = {**common, "codec": "range", "bytes_fp32": 0}
    yield _row(
        exchange.sent,
        **told,
        direction="up",
        status=exchange.status,
        seconds=exchange.sent_seconds,
        joules=exchange.sent_joules,
    )
    if exchange.answer is not None:
        yield _row(
            exchange.answer,
            **told,
            direction="down",
            status="used",
            seconds=exchange.answer_seconds,
            joules=exchange.answer_joules,
        )


def _through(sections: Sections, size: int) -> Sections:
    """The sections of a frame of which `size` bytes got through."""
    return sections if size >= sections.total else Sections(partial=size)


def _row(sections: Sections, **rest: Any) -> LedgerRow:  # Any: the remaining fields, checked by the record
    parts = {name: getattr(sections, name) for name in SECTIONS}
    return LedgerRow(bytes=sections.total, **parts, **rest)
