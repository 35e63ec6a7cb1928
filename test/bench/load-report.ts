/** What a load measured: calls a second, and how long they took, in ms. */
export type Load = {
  readonly rate: number;
  readonly p50: number;
  readonly p99: number;
  readonly done: number;
  readonly failed: number;
};

/** Gathers the calls of one load that lasts `seconds`, after some that don't count. */
export function loadReport(seconds: number, warmUpMs: number) {
  const times: number[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<Load>();
  let failed = 0;
  let startedAt = 0;
  let endsAt = Number.POSITIVE_INFINITY;
  const isOver = () => performance.now() >= endsAt;
  return {
    begin(): void {
      startedAt = performance.now() + warmUpMs;
      endsAt = startedAt + seconds * 1000;
      setTimeout(
        () => {
          const wallMs = performance.now() - startedAt;
          times.sort((a, b) => a - b);
          const at = (part: number) => times[Math.min(times.length - 1, Math.floor(times.length * part))] ?? 0;
          resolve({ rate: (times.length / wallMs) * 1000, p50: at(0.5), p99: at(0.99), done: times.length, failed });
        },
        warmUpMs + seconds * 1000,
      );
    },
    isOver,
    done(ms: number): void {
      if (performance.now() >= startedAt) times.push(ms);
    },
    failed: () => void failed++,
    connectionLost: () => isOver() || reject(new Error("a connection was lost under load")),
    result: promise,
  };
}
