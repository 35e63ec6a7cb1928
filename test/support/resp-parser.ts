import type { Reply } from "./redis-client.ts";

/** Reads RESP2 replies from chunks; gives each to `deliver` when it is whole. */
export class RespParser {
  readonly #deliver: (reply: Reply) => void;
  #bytes = Buffer.alloc(0);

  constructor(deliver: (reply: Reply) => void) {
    this.#deliver = deliver;
  }

  take(chunk: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    for (;;) {
      const found = parse(this.#bytes, 0);
      if (!found) return;
      this.#bytes = this.#bytes.subarray(found.end);
      this.#deliver(found.reply);
    }
  }
}

function parse(bytes: Buffer, at: number): { reply: Reply; end: number } | undefined {
  const lineEnd = bytes.indexOf("\r\n", at);
  if (lineEnd === -1) return undefined;
  const line = bytes.toString("utf8", at + 1, lineEnd);
  const end = lineEnd + 2;
  switch (String.fromCharCode(bytes[at]!)) {
    case "+":
      return { reply: line, end };
    case "-":
      return { reply: new Error(line), end };
    case ":":
      return { reply: Number(line), end };
    case "$": {
      const length = Number(line);
      if (length === -1) return { reply: null, end };
      if (bytes.length < end + length + 2) return undefined;
      return { reply: bytes.toString("utf8", end, end + length), end: end + length + 2 };
    }
    case "*": {
      if (line === "-1") return { reply: null, end };
      const replies: Reply[] = [];
      let next = end;
      for (let i = 0; i < Number(line); i++) {
        const found = parse(bytes, next);
        if (!found) return undefined;
        replies.push(found.reply);
        next = found.end;
      }
      return { reply: replies, end: next };
    }
    default:
      throw new Error(`"${line}" is no reply`);
  }
}
