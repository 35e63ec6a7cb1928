/** Virtual time: what is due next, in order of time, and of asking where times are equal. A binary heap. */
export type Event = {
  readonly at: number;
  readonly order: number;
  run: (() => void) | undefined;
};

export class EventQueue {
  #heap: Event[] = [];
  #orders = 0;
  /** Milliseconds since the simulation began. */
  now = 0;

  get size(): number {
    return this.#heap.length;
  }

  /** Does `run` in `delay` ms. The event that is returned can be cancelled. */
  after(delay: number, run: () => void): Event {
    return this.at(this.now + delay, run);
  }

  at(time: number, run: () => void): Event {
    const event: Event = { at: Math.max(time, this.now), order: ++this.#orders, run };
    this.#push(event);
    return event;
  }

  cancel(event: Event | undefined): void {
    if (event) event.run = undefined;
  }

  /** Moves time on to the next event and does it; false when there is none, or none until `until`. */
  step(until: number): boolean {
    for (;;) {
      const event = this.#heap[0];
      if (!event || event.at > until) return false;
      this.#pop();
      const { run } = event;
      if (!run) continue; // cancelled
      event.run = undefined;
      this.now = event.at;
      run();
      return true;
    }
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    const length = heap.length;
    if (length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= length) break;
      if (child + 1 < length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

const isBefore = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);
