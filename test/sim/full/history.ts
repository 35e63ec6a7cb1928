/** What clients asked and were told, in the order in which it happened: the linearizability checker's input. */
import type { Operation, Pairs } from "../check/linearizability.ts";

export type Asked = { readonly call: number; readonly client: string; readonly what: string };

export class Recorder {
  #position = 0;
  readonly operations: Operation[] = [];
  /** Calls that were not answered yet, and what they may have done. */
  readonly #open = new Map<Asked, Pairs>();
  onLine: (text: () => string) => void = () => {};

  /** A client asks; `effects`: what that may write, if it writes always the same. */
  asks(client: string, what: string, effects: Pairs): Asked {
    const asked = { call: ++this.#position, client, what };
    this.#open.set(asked, effects);
    this.onLine(() => `${client} asks ${what}`);
    return asked;
  }

  /** It was told what it found, and that it wrote. */
  told(asked: Asked, requires: Pairs, effects: Pairs): void {
    this.#open.delete(asked);
    const { call } = asked;
    this.operations.push({ call, return: ++this.#position, requires, effects });
    this.onLine(() => `${asked.client} is told ${asked.what}: found ${textOf(requires)}, wrote ${textOf(effects)}`);
  }

  /** It was told that nothing happened. */
  refused(asked: Asked, why: string): void {
    this.#open.delete(asked);
    this.#position++;
    this.onLine(() => `${asked.client} is refused ${asked.what}: ${why}`);
  }

  /** Nobody knows, or it was not waited for: it may happen at any time. */
  unknown(asked: Asked, why: string, requires: Pairs = []): void {
    const effects = this.#open.get(asked) ?? [];
    this.#open.delete(asked);
    this.#position++;
    if (effects.length > 0) this.operations.push({ call: asked.call, return: undefined, requires, effects });
    this.onLine(() => `${asked.client} does not know about ${asked.what}: ${why}`);
  }

  /** At the end, what is still open has an unknown outcome. */
  end(): void {
    for (const asked of [...this.#open.keys()]) this.unknown(asked, "the end");
  }
}

const textOf = (pairs: Pairs): string =>
  pairs.length === 0 ? "-" : pairs.map(([key, value]) => `${key}=${value}`).join(" ");
