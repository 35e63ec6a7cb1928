import type { Answer, ConsensusCalls, MachineCalls, Question } from "./messages.ts";

/** One end of the way between two threads: a Worker, or what it sees of the one that made it. */
export type Port = { postMessage(value: unknown, transfer: ArrayBuffer[]): void };

/**
 * Sends what is said in one turn in one post: each post wakes the other thread, and costs as much as many messages. What many
 * clients ask for at once comes here together already (`Sequencer`).
 */
export class Channel<Message> {
  readonly #port: Port;
  #messages: Message[] = [];
  #transfer: ArrayBuffer[] = [];
  #isClosed = false;
  #posts = 0;

  constructor(port: Port) {
    this.#port = port;
  }

  /** How many posts were made: as long as it is the same, what is sent goes with what was sent before. */
  get posts(): number {
    return this.#posts;
  }

  /** @param given the buffers in it that change hands, and are gone here when this turn ends */
  send(message: Message, ...given: ArrayBuffer[]): void {
    if (this.#isClosed) return;
    if (this.#messages.push(message) === 1) queueMicrotask(() => this.#flush());
    for (const buffer of given) this.#transfer.push(buffer);
  }

  #flush(): void {
    this.#posts++;
    const messages = this.#messages;
    const transfer = this.#transfer;
    this.#messages = [];
    this.#transfer = [];
    if (!this.#isClosed) this.#port.postMessage(messages, transfer);
  }

  /** Nobody hears the other end any more. */
  close(): void {
    this.#isClosed = true;
  }
}

type Calls = ConsensusCalls | MachineCalls;
type Waiting = { readonly resolve: (value: unknown) => void; readonly reject: (error: Error) => void };

/** Questions to the other thread. Whoever asks bounds how many there are. */
export class Questions<Of extends Calls> {
  readonly #to: { send(question: Question<Of>, ...given: ArrayBuffer[]): void };
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;

  constructor(to: { send(question: Question<Of>, ...given: ArrayBuffer[]): void }) {
    this.#to = to;
  }

  /** Rejects when the other side met a defect. */
  ask<Call extends keyof Of>(call: Call, ask: AskOf<Of[Call]>, ...given: ArrayBuffer[]): Promise<AnswerOf<Of[Call]>> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      // Whose answer this is, is known by its number only.
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#to.send({ type: "question", id, call, ask } as Question<Of>, ...given);
    });
  }

  answered({ id, value, thrown }: Answer): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (thrown !== undefined) waiting?.reject(new Error(thrown));
    else waiting?.resolve(value);
  }

  /** There will be no other answer to anything. */
  end(value: unknown): void {
    for (const { resolve } of this.#waiting.values()) resolve(value);
    this.#waiting.clear();
  }
}

type AskOf<Call> = Call extends { readonly ask: infer Ask } ? Ask : never;
type AnswerOf<Call> = Call extends { readonly answer: infer Value } ? Value : never;

type Answers = { send(answer: Answer, ...given: ArrayBuffer[]): void };

/** Sends the answer to question `id`. @param given what of the value changes hands */
export function reply<Value>(
  to: Answers,
  id: number,
  value: Promise<Value>,
  given: (value: Value) => ArrayBuffer[] = () => [],
): void {
  value.then(
    (done) => to.send({ type: "answer", id, value: done }, ...given(done)),
    (error) => to.send({ type: "answer", id, thrown: String(error) }),
  );
}

/** The same bytes in a buffer of their own: one that is sent takes along all that its buffer holds. */
export const alone = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(bytes);
