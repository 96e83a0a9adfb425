"""Reads /metrics with Prometheus' own Python library, in both formats, and checks what the parser doesn't.

metrics.py PORT [words]: names behind which exporter-metrics.txt has one of the words must be there, too.
Prints every name of a sample, for whoever compares queries with them.
"""

import pathlib
import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"


def page(port, accept=None):
    headers = {"Accept": accept} if accept else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def families(port, accept, parse, kind):
    content_type, text = page(port, accept)
    assert content_type.startswith(kind), content_type
    found = {}
    for family in parse(text):
        assert family.name not in found, f"{family.name} comes in two pieces"
        assert family.documentation, f"{family.name} has no help"
        found[family.name] = family
    return found


def required(words):
    lines = pathlib.Path(__file__).with_name("exporter-metrics.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return {row[0] for row in rows if len(row) == 2 or row[2] in words}


def main(port, words):
    plain = families(port, None, prometheus, "text/plain; version=0.0.4")
    modern = families(port, OPENMETRICS, openmetrics, "application/openmetrics-text; version=1.0.0")
    assert set(modern) == set(plain), set(modern) ^ set(plain)
    typed = {"counter", "gauge", "histogram", "summary"}
    for name, family in plain.items():
        assert family.type in typed, f"{name}: {family.type}"
        # OpenMetrics knows no counter whose name doesn't end in _total.
        assert modern[name].type in {family.type, "unknown"}, f"{name}: {modern[name].type}"
    for name, family in modern.items():
        unit = next((unit for unit in ("seconds", "bytes", "ratio") if name.endswith("_" + unit)), "")
        assert family.unit == unit, f"{name}: unit {family.unit!r}"
    # A counter's family is called without its ending, and may have no sample yet.
    shown = {f"{name}_total" for name, family in plain.items() if family.type == "counter"}
    shown |= set(plain) | {sample.name for family in plain.values() for sample in family.samples}
    missing = required(words) - shown
    assert not missing, f"missing: {sorted(missing)}"
    histograms(plain["redis_commands_latencies_usec"], plain["redis_commands"])
    print("\n".join(sorted(shown)))


def histograms(latencies, calls):
    """Every histogram's buckets grow, and end at the number of calls."""
    totals = {s.labels["cmd"]: s.value for s in calls.samples}
    assert totals, "no command was counted"
    last = {}
    for sample in latencies.samples:
        cmd = sample.labels["cmd"]
        if sample.name.endswith("_bucket"):
            assert sample.value >= last.get(cmd, 0), f"{cmd}: a bucket is smaller than the one before"
            last[cmd] = sample.value
    for cmd, value in last.items():
        assert value == totals[cmd], f"{cmd}: {value} in buckets, {totals[cmd]} calls"


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
