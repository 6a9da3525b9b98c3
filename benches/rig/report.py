"""Medians of the repetitions, and the tables in Markdown."""

import json
import statistics

PER_REQUEST, PER_CHUNK = "cpu_per_10k_requests", "cpu_per_1m_chunks"


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
    """A table without the columns and rows of what was not measured; None if nothing was."""
    keep = [at for at in range(len(head)) if at == 0 or any(row[at] != "–" for row in rows)]
    rows = [[row[at] for at in keep] for row in rows if any(cell != "–" for cell in row[1:])]
    return table([head[at] for at in keep], rows) if rows else None


class Base:
    """The tables of the arrangement that everything is measured in."""

    def __init__(self, names, results):
        self.names, self.results = names, results

    def of(self, name, scenario, *keys):
        return self.results[name].median(scenario, *keys)

    def rate(self, name, scenario, key="per_second"):
        return number(self.of(name, scenario, key))

    def cost(self, name, scenario, key, digits):
        """What it costs, and how many times as much as HAProxy; of `direct` it means nothing."""
        if name == "direct":
            return ["–", "–"]
        value = self.of(name, scenario, key)
        base = self.of("haproxy", scenario, key) if "haproxy" in self.results else None
        return [number(value, digits), ratio(value, base)]

    def core(self, name, scenario):
        return "–" if name == "direct" else number(self.of(name, scenario, "core_use"), 2)

    def quantiles(self, name, scenario, key):
        return pair(*(self.of(name, scenario, key, quantile) for quantile in ("p50", "p99")))

    def added(self, name, scenario, key):
        if name == "direct" or "direct" not in self.results:
            return "–"
        quantiles = ("p50", "p99")
        return pair(*(less(self.of(name, scenario, key, at), self.of("direct", scenario, key, at)) for at in quantiles))

    def memory(self, name):
        mib = [self.of(name, "hold", f"rss_{when}_kib") for when in ("idle", "open", "after")]
        return "–" if None in mib else " → ".join(number(kib / 1024) for kib in mib)

    def summary(self, name):
        cells = [self.rate(name, "plain-300"), *self.cost(name, "plain-300", PER_REQUEST, 3)]
        cells += [self.added(name, "rate", "latency_us"), *self.cost(name, "stream", PER_CHUNK, 1)]
        return [*cells, self.quantiles(name, "first", "first_chunk_us"), self.memory(name)]

    def plain(self, name):
        cells = [self.core(name, "plain-300")]
        for scenario in ("plain-300", "plain-16k", "plain-256k"):
            cells += [self.rate(name, scenario), *self.cost(name, scenario, PER_REQUEST, 3)]
        return cells

    def latency(self, name):
        rate, first = ("rate", "latency_us"), ("first", "first_chunk_us")
        cells = [self.quantiles(name, *rate), self.added(name, *rate)]
        return [*cells, self.quantiles(name, *first), self.added(name, *first)]

    def streams(self, name):
        cells = [self.core(name, "stream"), self.rate(name, "stream", "chunks_per_second")]
        cells += self.cost(name, "stream", PER_CHUNK, 2) + self.cost(name, "paced", PER_CHUNK, 1)
        return [*cells, self.quantiles(name, "paced", "transit_us")]

    def held(self, name):
        cells = [self.memory(name), number(self.of(name, "hold", "kib_per_stream"), 1)]
        return [*cells, number(self.of(name, "hold", "streams")), number(self.of(name, "hold", "core_use"), 2)]

    def tables(self):
        costs = ["CPU-s per 10,000", "/ HAProxy"]
        chunks = ["CPU-s per million", "/ HAProxy"]
        wanted = [
            (
                "All in short, one core, times in µs",
                ["req/s", "CPU-s per 10,000 requests", "/ HAProxy", "added p50 / p99 at 500 req/s", "CPU-s per million chunks",
                 "/ HAProxy", "first chunk p50 / p99", "MiB idle → streams open → after"],
                self.summary,
            ),
            (
                "Plain requests, 64 connections, prompts of 300 B, 16 KiB and 256 KiB",
                ["core", "req/s", *costs, "16 KiB: req/s", *costs, "256 KiB: req/s", *costs],
                self.plain,
            ),
            (
                "Latency at 500 requests, and first chunk at 100 new streams per second, p50 / p99 in µs",
                ["request", "added", "first chunk", "added"],
                self.latency,
            ),
            (
                "Streams: 256 of 100 chunks, as fast as can be, and paced with a chunk each 50 ms",
                ["core", "chunks/s", *chunks, f"paced: {chunks[0]}", chunks[1], "paced: transit p50 / p99 µs"],
                self.streams,
            ),
            (
                "Memory with open streams of 5 chunks per second each",
                ["MiB idle → open → after", "KiB per stream", "streams", "cores in use"],
                self.held,
            ),
        ]
        for title, head, cells in wanted:
            text = without_empty(["", *head], [[name, *cells(name)] for name in self.names])
            if text:
                yield title, text


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
            parts += [f"{title}:\n\n{text}" for title, text in Base(names, results).tables()]
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
