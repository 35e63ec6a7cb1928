/**
 * Clients' calls that wait for an answer. The store bounds every wait by its node's own clock, whatever the other nodes do: so
 * each call is answered within a time in which its node could run, unless the node dies first. How long a client waits is
 * another matter: one that has gone its way still has its answer coming.
 */
import type { Store } from "../../../src/model/store.ts";
import { Violation } from "../base/simulation.ts";

/** What it is to be called: `ended` resolves when the node dies. */
export type Callee = {
  readonly id: string;
  readonly ended: Promise<void>;
  /** Milliseconds of its life in which it was not paused. */
  runMs(): number;
  /** It serves nobody any more: whoever waits there hears so, or it dies. */
  isClosing(): boolean;
};

/** A node as a client sees it. */
export type Server = Callee & { readonly store: Store };

export type CallPorts = {
  sleep(ms: number): Promise<void>;
  /** A client calls there now. */
  calledAt(server: Callee): void;
  fails(violation: Violation): void;
};

/** Longer than the store itself lets anyone wait. */
const PATIENCE_MS = 15_000;

export class Calls {
  readonly #ports: CallPorts;
  #open = 0;

  constructor(ports: CallPorts) {
    this.#ports = ports;
  }

  /** How many have no answer yet, at nodes that live. */
  get open(): number {
    return this.#open;
  }

  /** What the node answers; nothing if it dies first, or it takes so long that the client goes its way. */
  told<T>(client: string, server: Callee, answer: Promise<T>): Promise<T | undefined> {
    this.#ports.calledAt(server);
    const runBefore = server.runMs();
    let isOpen = true;
    this.#open++;
    const close = () => {
      isOpen = false;
      this.#open--;
    };
    const settled = Promise.race([answer, server.ended.then(() => undefined)]);
    settled.then(close, close);
    const patience = this.#ports.sleep(PATIENCE_MS).then(() => {
      void this.#expect(`${client} at ${server.id}`, server, runBefore + PATIENCE_MS, () => isOpen);
      return undefined;
    });
    return Promise.race([settled, patience]);
  }

  /** It is answered by the time that its node has run so long. */
  async #expect(what: string, server: Callee, runMs: number, isOpen: () => boolean): Promise<void> {
    // What is less than a millisecond is a rounding error.
    for (let left = runMs - server.runMs(); left >= 1; left = runMs - server.runMs()) {
      if (!isOpen()) return;
      await this.#ports.sleep(left);
    }
    if (isOpen() && !server.isClosing()) this.#ports.fails(new Violation("every call is answered in time", what));
  }
}
