"""Medians of the repetitions, and the tables in Markdown."""

import json
import statistics


def read(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def brief(name, result):
    """One line of one result, while it runs."""
    bad = f"  {result['bad']} BAD: {result['problem']}" if result["bad"] else ""
    if name == "hold":
        idle, full, after = (result[f"rss_{when}_kib"] / 1024 for when in ("idle", "open", "after"))
        return f"hold        {idle:.0f} -> {full:.0f} -> {after:.0f} MiB, {result['streams']} streams, core {result['core_use']:.2f}{bad}"
    if result["all_chunks"]:
        first, transit = result["first_chunk_us"] or {}, result["transit_us"] or {}
        return (
            f"{name:11} {result['chunks_per_second']:8.0f} chunks/s  {result['cpu_per_1m_chunks']:6.2f} CPU-s/1M  "
            f"first {first.get('p50', 0):.0f} / {first.get('p99', 0):.0f} us  "
            f"transit {transit.get('p50', 0):.0f} / {transit.get('p99', 0):.0f} us  core {result['core_use']:.2f}{bad}"
        )
    latency = result["latency_us"] or {}
    return (
        f"{name:11} {result['per_second']:8.0f} req/s  {result['cpu_per_10k_requests']:7.3f} CPU-s/10k  "
        f"{latency.get('p50', 0):.0f} / {latency.get('p99', 0):.0f} us  core {result['core_use']:.2f}{bad}"
    )


class Results:
    """The figures of one row in one arrangement."""

    def __init__(self, records, row, arrangement):
        self.found = [one for one in records if one.get("row") == row and one["in"] == arrangement]

    def median(self, scenario, *keys):
        """Of all repetitions; None if it was not measured."""
        values = []
        for one in self.found:
            value = one if one["scenario"] == scenario else None
            for key in keys:
                value = value and value.get(key)
            if value is not None:
                values.append(value)
        return statistics.median(values) if values else None


def number(value, digits=0):
    return "–" if value is None else f"{value:,.{digits}f}"


def pair(one, other, digits=0):
    return "–" if one is None and other is None else f"{number(one, digits)} / {number(other, digits)}"


def ratio(value, base):
    return "–" if value is None or not base else f"{value / base:.2f}"


def less(value, base):
    return None if value is None or base is None else value - base


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def without_empty(head, rows):
    # What was not measured of anybody has no column.
    keep = [at for at in range(len(head)) if at == 0 or any(row[at] != "–" for row in rows)]
    return table([head[at] for at in keep], [[row[at] for at in keep] for row in rows])


def base_tables(names, results):
    direct, haproxy = results.get("direct"), results.get("haproxy")

    def of(name, scenario, *keys):
        return results[name].median(scenario, *keys)

    def against(what, name, scenario, *keys):
        return what and less(of(name, scenario, *keys), what.median(scenario, *keys))

    def times(name, scenario, key):
        return ratio(of(name, scenario, key), haproxy.median(scenario, key)) if haproxy else "–"

    cpu, per_chunk = "cpu_per_10k_requests", "cpu_per_1m_chunks"
    plain, added, streams, memory = [], [], [], []
    for name in names:
        measured = name != "direct"
        line = [name]
        for scenario in ("plain-300", "plain-16k", "plain-256k"):
            line += [number(of(name, scenario, "per_second"))]
            line += [number(of(name, scenario, cpu), 3), times(name, scenario, cpu)] if measured else ["–", "–"]
            if scenario == "plain-300":
                line.insert(2, number(of(name, scenario, "core_use"), 2) if measured else "–")
        plain.append(line)
        added.append([
            name,
            pair(of(name, "rate", "latency_us", "p50"), of(name, "rate", "latency_us", "p99")),
            pair(against(direct, name, "rate", "latency_us", "p50"), against(direct, name, "rate", "latency_us", "p99")) if measured else "–",
            pair(of(name, "first", "first_chunk_us", "p50"), of(name, "first", "first_chunk_us", "p99")),
            pair(against(direct, name, "first", "first_chunk_us", "p50"), against(direct, name, "first", "first_chunk_us", "p99")) if measured else "–",
        ])
        streams.append([name, number(of(name, "stream", "chunks_per_second"))])
        streams[-1] += [number(of(name, "stream", "core_use"), 2) if measured else "–"]
        streams[-1] += [number(of(name, "stream", per_chunk), 2), times(name, "stream", per_chunk)] if measured else ["–", "–"]
        streams[-1] += [number(of(name, "paced", per_chunk), 1), times(name, "paced", per_chunk)] if measured else ["–", "–"]
        streams[-1] += [pair(of(name, "paced", "transit_us", "p50"), of(name, "paced", "transit_us", "p99"))]
        if measured:
            mib = [of(name, "hold", f"rss_{when}_kib") for when in ("idle", "open", "after")]
            told = " → ".join(number(kib / 1024) for kib in mib) if None not in mib else "–"
            memory.append([name, told, number(of(name, "hold", "kib_per_stream"), 1), number(of(name, "hold", "streams")), number(of(name, "hold", "core_use"), 2)])
    yield "Plain requests, 64 connections, prompts of 300 B, 16 KiB and 256 KiB", without_empty(
        ["", "req/s", "core", "CPU-s per 10,000", "/ HAProxy", "16 KiB: req/s", "CPU-s per 10,000", "/ HAProxy", "256 KiB: req/s", "CPU-s per 10,000", "/ HAProxy"],
        plain,
    )
    yield "Latency: 500 requests per second, and the first chunk of 100 new streams per second, p50 / p99 in µs", without_empty(
        ["", "request", "added", "first chunk", "added"], added
    )
    yield "Streams: 256 of 100 chunks, as fast as can be, and paced with a chunk each 50 ms", without_empty(
        ["", "chunks/s", "core", "CPU-s per million", "/ HAProxy", "paced: CPU-s per million", "/ HAProxy", "paced: transit p50 / p99 µs"], streams
    )
    yield "Memory with open streams of 5 chunks per second each", without_empty(
        ["", "MiB idle → open → after", "KiB per stream", "streams", "cores in use"], memory
    )


def small_table(names, results):
    haproxy = results.get("haproxy")
    lines = []
    for name in names:
        line = [name]
        for scenario, rate, cost, digits in (
            ("plain-300", "per_second", "cpu_per_10k_requests", 3),
            ("stream", "chunks_per_second", "cpu_per_1m_chunks", 2),
        ):
            value = results[name].median(scenario, cost) if name != "direct" else None
            line += [number(results[name].median(scenario, rate)), number(value, digits)]
            line += [ratio(value, haproxy.median(scenario, cost)) if haproxy else "–"]
        lines.append(line)
    head = ["", "req/s", "CPU-s per 10,000", "/ HAProxy", "chunks/s", "CPU-s per million", "/ HAProxy"]
    return without_empty(head, lines)


TITLES = {"1000-runners": "1,000 runners", "two-cores": "Two threads on two cores"}


def tables(records):
    """All that was measured, and on what."""
    head, records = records[0], records[1:]
    parts = []
    for arrangement in dict.fromkeys(one["in"] for one in records):
        here = [one for one in records if one["in"] == arrangement]
        names = list(dict.fromkeys(one["row"] for one in here))
        results = {name: Results(here, name, arrangement) for name in names}
        if arrangement == "base":
            parts += [f"{title}:\n\n{text}" for title, text in base_tables(names, results) if "|--:|" in text]
        else:
            parts.append(f"{TITLES[arrangement]}, else as above:\n\n{small_table(names, results)}")
    bad = [one for one in records if one["bad"]]
    if bad:
        worst = {(one["row"], one["scenario"]): one["problem"] for one in bad}
        parts.append("NOT ALL ANSWERS WERE GOOD:\n\n" + "\n".join(f"- {row}, {what}: {why}" for (row, what), why in worst.items()))
    late = {(one["row"], one["scenario"]) for one in records if one.get("unsent")}
    if late:
        parts.append("THE RATE WAS NOT HELD, latencies are those of a growing queue: " + ", ".join(f"{row} in {what}" for row, what in sorted(late)))
    repetitions = len({one["repetition"] for one in records})
    versions = ", ".join(f"{name}: {version}" for name, version in head["versions"].items())
    load = statistics.median(one["load_average"] for one in records) if records else 0
    parts.append(
        f"Measured on {head['date']} at {head['commit']}: {head['cores']} cores ({head['processor']}), {head['memory_gib']} GiB, "
        f"Linux {head['kernel']}, {head['rustc']}. {versions or 'No peers'}. Medians of {repetitions}; "
        f"load average {load:.1f}. `{head['command']}`"
    )
    return "\n\n".join(parts)
