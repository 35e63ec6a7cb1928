/** What a command prints: tables and progress for a person, JSON for a program. Data to stdout, the rest to stderr. */

export type OutputFormat = "text" | "json";

const colour = process.stderr.isTTY === true && process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
const paint = (code: number, text: string) => (colour ? `\x1b[${code}m${text}\x1b[0m` : text);
export const bold = (text: string) => paint(1, text);
export const dim = (text: string) => paint(2, text);
export const green = (text: string) => paint(32, text);
export const yellow = (text: string) => paint(33, text);
export const red = (text: string) => paint(31, text);

export const print = (line: string): void => void process.stdout.write(`${line}\n`);
export const say = (line: string): void => void process.stderr.write(`${line}\n`);

/** Writes bytes to stdout and waits until they are gone, so that a slow reader loses none. False when the reader has left. */
export function writeOut(bytes: Uint8Array | string): Promise<boolean> {
  return new Promise((resolve) => {
    process.stdout.write(bytes, (failed) => resolve(!failed));
  });
}

/** Rows in columns, two spaces apart; the last column is not padded. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  }
  return rows
    .map((row) => row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]!))).join("  "))
    .join("\n");
}

/** One line that is rewritten while a step runs: on a terminal with the seconds it has taken, elsewhere a line a change. */
export interface Progress {
  update(detail: string): void;
  done(detail?: string): void;
  fail(): void;
}

export function progress(step: string): Progress {
  const started = Date.now();
  const seconds = () => `${((Date.now() - started) / 1000).toFixed(1)} s`;
  let detail = "";
  let printed = "";
  const draw = (mark: string, end: string) => {
    // A line that wraps could not be rewritten.
    const room = (process.stderr.columns ?? 80) - step.length - seconds().length - 6;
    const shown = detail.length > room && end === "" ? `${detail.slice(0, Math.max(0, room - 1))}…` : detail;
    const line = `${mark} ${step}${shown ? `: ${dim(shown)}` : ""} ${dim(seconds())}`;
    process.stderr.write(`\r\x1b[K${line}${end}`);
  };
  const plain = (mark: string) => {
    const line = `${mark} ${step}${detail ? `: ${detail}` : ""}`;
    if (line !== printed) say(line);
    printed = line;
  };
  const show = (mark: string, end = "") => (process.stderr.isTTY ? draw(mark, end) : plain(mark));
  show("…");
  const timer = process.stderr.isTTY ? setInterval(() => draw("…", ""), 100) : undefined;
  const finish = (mark: string) => {
    clearInterval(timer);
    show(mark, "\n");
  };
  return {
    update(next) {
      detail = next;
      if (!process.stderr.isTTY) plain("…"); // a terminal's line is drawn by the timer
    },
    done(next) {
      detail = next ?? detail;
      finish(green("✓"));
    },
    fail() {
      finish(red("✗"));
    },
  };
}
