/**
 * The loop that every reconciler runs in. A pass is caused by a wake (a table changed, a machine said something), by a
 * deadline that the pass before named, by the back-off after a failure, or by the slow resync; never by a short timer: an
 * idle node does nothing.
 *
 * Level-triggered: a wake carries no message. Wakes during a pass are one more pass after it. There is one pass at a time,
 * so a pass may keep state between its steps without locks.
 */
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { MINUTE_MS } from "../lib/units.ts";
import { BACK_OFF, type BackOffLimits, backOffMs } from "./back-off.ts";

/** What one pass did. Failures of single items are counted here, and do not end the pass. */
export interface PassReport {
  readonly converged: number;
  readonly changed: number;
  readonly failed: number;
  /** Wall time (`clock.now()`) at which the next pass is due though nothing wakes it. */
  readonly wakeAt?: number;
}

/** `resync`: look at everything anew, also what no wake spoke of. Set for the first pass, after a failed one, and slowly ever after. */
export type Pass = (context: { readonly resync: boolean; readonly signal: AbortSignal }) => Promise<PassReport>;

export interface LoopOptions {
  /** For the log: `instances`, `flows`, … */
  readonly name: string;
  readonly pass: Pass;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly backOff?: BackOffLimits;
  /** How long to wait before everything is looked at though nothing happened. Default five minutes. */
  readonly resyncMs?: number;
}

export interface LoopStatus {
  readonly passes: number;
  readonly failuresInARow: number;
  readonly lastPass?: PassReport & { readonly endedAt: number; readonly tookMs: number };
  /** Why the last pass failed as a whole; absent when it did not. */
  readonly lastError?: string;
}

export interface Loop {
  /** Asks for a pass soon. Cheap, and safe from anywhere at any time. */
  wake(): void;
  status(): LoopStatus;
  /** Aborts the signal of the pass that runs, waits for its end, and starts no more. */
  stop(): Promise<void>;
}

/** Starts the loop; its first pass (a resync) begins at once. */
export function startLoop(options: LoopOptions): Loop {
  const { name, clock, random, log } = options;
  const resyncMs = options.resyncMs ?? 5 * MINUTE_MS;
  const stopping = new AbortController();
  let woken = true;
  let interrupt = new AbortController();
  let status: LoopStatus = { passes: 0, failuresInARow: 0 };

  const wake = () => {
    woken = true;
    interrupt.abort();
  };

  const onePass = async (resync: boolean): Promise<PassReport | undefined> => {
    const startedAt = clock.monotonicMs();
    try {
      const report = await options.pass({ resync, signal: stopping.signal });
      const lastPass = { ...report, endedAt: clock.now(), tookMs: clock.monotonicMs() - startedAt };
      status = {
        passes: status.passes + 1,
        failuresInARow: report.failed > 0 ? status.failuresInARow + 1 : 0,
        lastPass,
      };
      if (report.changed > 0 || report.failed > 0) log.debug("reconcile.pass", { loop: name, ...lastPass });
      return report;
    } catch (cause) {
      // A defect, or a store that cannot be written: neither may end the loop.
      const { lastPass } = status;
      status = {
        passes: status.passes + 1,
        failuresInARow: status.failuresInARow + 1,
        ...(lastPass ? { lastPass } : {}),
        lastError: cause instanceof Error ? cause.message : String(cause),
      };
      if (!stopping.signal.aborted) log.error("reconcile.pass-failed", { loop: name, cause });
      return undefined;
    }
  };

  const rest = async (until: number): Promise<void> => {
    while (!woken && !stopping.signal.aborted) {
      const waitMs = until - clock.now();
      if (waitMs <= 0) return;
      await clock.sleep(Math.min(waitMs, 2 ** 31 - 1), interrupt.signal);
    }
  };

  const running = (async () => {
    let resyncAt = clock.now();
    while (!stopping.signal.aborted) {
      const resync = clock.now() >= resyncAt;
      woken = false;
      interrupt = new AbortController();
      const report = await onePass(resync);
      if (report && resync) resyncAt = clock.now() + resyncMs;
      const due = [resyncAt];
      if (report?.wakeAt !== undefined) due.push(report.wakeAt);
      if (!report) {
        // The whole pass failed: a wake does not shorten the wait, or a store that is down would be asked in a busy loop.
        resyncAt = clock.now();
        await clock.sleep(backOffMs(status.failuresInARow, random, options.backOff ?? BACK_OFF), stopping.signal);
        continue;
      }
      if (report.failed > 0) {
        due.push(clock.now() + backOffMs(status.failuresInARow, random, options.backOff ?? BACK_OFF));
      }
      await rest(Math.min(...due));
    }
  })();

  return {
    wake,
    status: () => status,
    async stop() {
      stopping.abort();
      interrupt.abort();
      await running;
    },
  };
}
