/**
 * Counters, gauges and histograms in Prometheus' text format (version 0.0.4). Names are `hive_<area>_<thing>_<unit>`.
 * Labels come from closed sets (operation, code), never ids: every set of label values costs memory for good, so each
 * metric holds at most SERIES_MAX of them and counts what comes after under the label values `other`.
 */
import { assert } from "./assert.ts";

export const SERIES_MAX = 5000;

/** Seconds. From a cached answer to one that waits for a slow disk. */
export const LATENCY_BUCKETS = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
];

export interface Counter {
  /** Adds `by` (1 unless given, never negative). */
  add(labels: readonly string[], by?: number): void;
}
export interface Gauge {
  set(labels: readonly string[], value: number): void;
}
export interface Histogram {
  /** Counts one value, in the unit of the metric's name. */
  observe(labels: readonly string[], value: number): void;
}

interface Family {
  readonly name: string;
  render(): string;
}

/** The metrics of one process. A name is registered once; registering it again is a defect. */
export class Metrics {
  readonly #families = new Map<string, Family>();

  counter(name: string, help: string, labelNames: readonly string[] = []): Counter {
    const series = this.#register(
      name,
      "counter",
      help,
      labelNames,
      () => ({ value: 0 }),
      (labels, { value }) => [`${name}${labels()} ${value}`],
    );
    return {
      add: (labels, by = 1) => {
        series(labels).value += by;
      },
    };
  }

  gauge(name: string, help: string, labelNames: readonly string[] = []): Gauge {
    const series = this.#register(
      name,
      "gauge",
      help,
      labelNames,
      () => ({ value: 0 }),
      (labels, { value }) => [`${name}${labels()} ${value}`],
    );
    return {
      set: (labels, value) => {
        series(labels).value = value;
      },
    };
  }

  /** A gauge without labels whose value is asked for when the metrics are. */
  observedGauge(name: string, help: string, read: () => number): void {
    this.#add({ name, render: () => `${head(name, "gauge", help)}${name} ${read()}\n` });
  }

  /** `buckets` are upper bounds, ascending; `+Inf` is added. */
  histogram(
    name: string,
    help: string,
    labelNames: readonly string[] = [],
    buckets: readonly number[] = LATENCY_BUCKETS,
  ): Histogram {
    const make = () => ({ counts: new Array<number>(buckets.length + 1).fill(0), sum: 0 });
    const series = this.#register(name, "histogram", help, labelNames, make, (labels, { counts, sum }) => {
      let total = 0;
      const lines = counts.map((count, at) => {
        total += count;
        return `${name}_bucket${labels(`le="${buckets[at] ?? "+Inf"}"`)} ${total}`;
      });
      return [...lines, `${name}_sum${labels()} ${sum}`, `${name}_count${labels()} ${total}`];
    });
    return {
      observe: (labels, value) => {
        const into = series(labels);
        let at = 0;
        while (at < buckets.length && value > buckets[at]!) at++;
        into.counts[at]!++;
        into.sum += value;
      },
    };
  }

  /** All metrics as text, served as `text/plain; version=0.0.4`. */
  render(): string {
    let text = "";
    for (const family of this.#families.values()) text += family.render();
    return text;
  }

  #add(family: Family): void {
    assert(/^hive_[a-z0-9_]+$/.test(family.name), `${family.name} is a metric's name`);
    assert(!this.#families.has(family.name), `${family.name} is registered once`);
    this.#families.set(family.name, family);
  }

  #register<S>(
    name: string,
    type: string,
    help: string,
    labelNames: readonly string[],
    make: () => S,
    lines: (labels: (more?: string) => string, series: S) => string[],
  ): (labels: readonly string[]) => S {
    const all = new Map<string, { readonly labels: readonly string[]; readonly series: S }>();
    const find = (labels: readonly string[]): S => {
      const key = labels.length === 1 ? labels[0]! : labels.join("\0");
      const known = all.get(key);
      if (known) return known.series;
      assert(labels.length === labelNames.length, `${name} has ${labelNames.length} labels`);
      if (all.size >= SERIES_MAX && labels.some((label) => label !== "other"))
        return find(labelNames.map(() => "other"));
      const series = make();
      all.set(key, { labels: [...labels], series });
      return series;
    };
    this.#add({
      name,
      render: () => {
        let text = head(name, type, help);
        for (const { labels, series } of all.values()) {
          const own = labelNames.map((label, at) => `${label}="${escapeLabel(labels[at]!)}"`);
          const write = (more?: string) => {
            const both = more === undefined ? own : [...own, more];
            return both.length === 0 ? "" : `{${both.join(",")}}`;
          };
          for (const line of lines(write, series)) text += `${line}\n`;
        }
        return text;
      },
    });
    return find;
  }
}

const head = (name: string, type: string, help: string): string =>
  `# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}\n# TYPE ${name} ${type}\n`;

const escapeLabel = (value: string): string =>
  value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
