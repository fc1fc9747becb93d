"""The command that measures what a traced connection costs: `python -m bench.traces`. Needs the extra otel."""

from __future__ import annotations

import argparse
import gzip
import time
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from tests.support.connection_records import relayed
from tunnel.tracing.otlp import SpanBuilder
from tunnel.tracing.trace_export import MAX_BATCH, MAX_QUEUE, Delivery, TraceExport

RECORD = relayed()


def seconds_per_call(call: Callable[[], object], calls: int, rounds: int) -> float:
    """The CPU time of one call in the best round."""

    def run() -> float:
        began = time.process_time()
        for _ in range(calls):
            call()
        return (time.process_time() - began) / calls

    return min(run() for _ in range(rounds))


def on_the_loop(ratio: float, rounds: int) -> float:
    """Seconds of the event loop for a connection; the queue does not overflow."""

    def add_all() -> None:
        traces = TraceExport(lambda _: Delivery(), ratio, print)
        for _ in range(MAX_QUEUE):
            traces.add(RECORD)

    return seconds_per_call(add_all, 1, rounds) / MAX_QUEUE


def on_the_thread(rounds: int) -> float:
    """Seconds of the thread for a traced connection, without the request."""
    builder, batch = SpanBuilder(), [RECORD] * MAX_BATCH

    def export() -> bytes:
        return gzip.compress(encode_spans(builder.build(batch)).SerializePartialToString())

    return seconds_per_call(export, 20, rounds) / MAX_BATCH


def main() -> None:
    """Print the three numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="the best of so many rounds is reported (default 50)")
    rounds = parser.parse_args().rounds
    print(f"not traced, event loop: {on_the_loop(1e-12, rounds) * 1e6:.2f} us")
    print(f"traced, event loop: {on_the_loop(1.0, rounds) * 1e6:.2f} us")
    print(f"traced, thread: {on_the_thread(rounds) * 1e6:.0f} us")


if __name__ == "__main__":
    main()
