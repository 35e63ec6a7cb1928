/**
 * Keeps real time and real chance out of a simulation: while one runs, whoever asks for them gets an error, and `setImmediate`
 * (which the runtime uses to let others have a turn) becomes an event of virtual time.
 */
const GUARDED = ["setTimeout", "setInterval", "setImmediate", "clearImmediate"] as const;

export type Immediates = {
  set(run: () => void): unknown;
  clear(handle: unknown): void;
};

type Clocks = { now: () => number };

/** Runs `simulate` without real time. */
export function withoutRealTime<T>(immediates: Immediates, simulate: () => T): T {
  const globals = globalThis as unknown as Record<string, unknown>;
  const kept = GUARDED.map((name) => [name, globals[name]] as const);
  const date = Date as unknown as Clocks;
  const math = Math as unknown as { random: () => number };
  const { now } = date;
  const { random } = math;
  const forbidden = (name: string) => () => {
    throw new Error(`${name} in simulated code`);
  };
  globals.setTimeout = forbidden("setTimeout");
  globals.setInterval = forbidden("setInterval");
  globals.setImmediate = (run: () => void) => immediates.set(run);
  globals.clearImmediate = (handle: unknown) => immediates.clear(handle);
  date.now = forbidden("Date.now");
  math.random = forbidden("Math.random");
  try {
    return simulate();
  } finally {
    for (const [name, value] of kept) globals[name] = value;
    date.now = now;
    math.random = random;
  }
}

const rejections: unknown[] = [];
let isListening = false;

/** Promises of simulated code that were rejected, and nobody looked: since the last time this was asked. */
export async function unhandledRejections(): Promise<readonly unknown[]> {
  listenForRejections();
  // They are reported in a turn of the real loop.
  await new Promise((resolve) => setImmediate(resolve));
  return rejections.splice(0);
}

export function listenForRejections(): void {
  if (isListening) return;
  isListening = true;
  process.on("unhandledRejection", (error) => rejections.push(error));
}
