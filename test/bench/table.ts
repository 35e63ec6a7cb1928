/** The benchmark's one table. */
import type { ForeignLoad } from "./processor-time.ts";

/** A goal of the project: `met` judges; `text` says it. */
export interface Goal {
  readonly text: string;
  readonly met: boolean;
}

export interface Row {
  readonly measure: string;
  /** Hive's figure, with its unit. */
  readonly value: string;
  /** What it is measured against, taken in the same run. */
  readonly reference?: string;
  /** Hive's figure by the reference's. */
  readonly ratio?: number;
  readonly goal?: Goal;
}

/** A row, and what others used of the machine while it was measured. */
export type MeasuredRow = Row & { readonly foreign: ForeignLoad };

export const atLeast = (wanted: number, ratio: number): Goal => ({ text: `≥ ${wanted}`, met: ratio >= wanted });
export const atMost = (wanted: number, ratio: number): Goal => ({ text: `≤ ${wanted}`, met: ratio <= wanted });
export const below = (limit: number, value: number, unit: string): Goal => ({
  text: `< ${limit} ${unit}`,
  met: value < limit,
});

/** `ok` or `miss`; with a question mark where others were at work, which proves neither. */
export function verdictOf({ goal, foreign }: MeasuredRow): string {
  if (!goal) return "";
  return `${goal.met ? "ok" : "miss"}${foreign.tooBusy ? "?" : ""}`;
}

const HEADINGS = ["measure", "value", "reference", "ratio", "goal", "", "others"] as const;

export function renderTable(rows: readonly MeasuredRow[]): string {
  const lines = rows.map((row) => [
    row.measure,
    row.value,
    row.reference ?? "",
    row.ratio === undefined ? "" : row.ratio.toFixed(2),
    row.goal?.text ?? "",
    verdictOf(row),
    row.foreign.processors.toFixed(2),
  ]);
  const widths = HEADINGS.map((heading, at) => Math.max(heading.length, ...lines.map((line) => line[at]!.length)));
  const draw = (cells: readonly string[]) => `| ${cells.map((cell, at) => cell.padEnd(widths[at]!)).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [draw(HEADINGS), rule, ...lines.map(draw)].join("\n");
}

/** Thousands apart, and no more digits than say something. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (value >= 100) return Math.round(value).toLocaleString("en-US");
  return value.toPrecision(value >= 10 ? 3 : 2);
}
