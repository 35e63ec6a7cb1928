import { expect, test } from "bun:test";
import fc from "fast-check";
import { seededRandom } from "../../lib/random.ts";
import {
  accept,
  dial,
  HANDSHAKE_BYTES_MAX,
  type Handshake,
  type Identity,
  REFUSALS,
  type Refusal,
  type Step,
} from "./handshake.ts";

const secret = new Uint8Array(32).fill(7);
const identity = (id: string, change: Partial<Identity> = {}): Identity => ({ id, clusterId: "c1", secret, ...change });
let seed = 1;
const random = () => seededRandom(seed++);
const admitAll = () => undefined;
const none = new Uint8Array(0);
const join = (...parts: Uint8Array[]): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.concat(parts));

/** Gives each side what the other says until both have come to an end, or nobody speaks any more. */
function converse(
  { hello, handshake: dialer }: ReturnType<typeof dial>,
  acceptor: Handshake,
  onTheWay: (bytes: Uint8Array, from: "dialer" | "acceptor") => Uint8Array = (bytes) => bytes,
) {
  const said: { from: "dialer" | "acceptor"; bytes: Uint8Array }[] = [];
  const ends: { dialer: Step; acceptor: Step } = { dialer: { state: "open" }, acceptor: { state: "open" } };
  let from: "dialer" | "acceptor" = "dialer";
  let bytes: Uint8Array | undefined = hello;
  while (bytes) {
    said.push({ from, bytes });
    const to: "dialer" | "acceptor" = from === "dialer" ? "acceptor" : "dialer";
    if (ends[to].state !== "open") break;
    ends[to] = (to === "dialer" ? dialer : acceptor).receive(onTheWay(bytes, from));
    bytes = ends[to].send;
    from = to;
  }
  return { ...ends, said };
}

const outcome = (step: Step) => (step.state === "refused" ? step.reason : step.state);

test("two nodes of one cluster come to terms: each knows who the other is", () => {
  const { dialer, acceptor } = converse(
    dial(identity("n1"), "n2", random()),
    accept(identity("n2"), admitAll, random()),
  );
  expect(dialer).toMatchObject({ state: "done", peer: "n2", version: 1 });
  expect(acceptor).toMatchObject({ state: "done", peer: "n1", version: 1 });
});

test("the bytes may come in pieces", () => {
  const { hello, handshake } = dial(identity("n1"), "n2", random());
  const acceptor = accept(identity("n2"), admitAll, random());
  const inPieces = (side: Handshake, bytes: Uint8Array): Step => {
    let last: Step = { state: "open" };
    for (const byte of bytes) {
      expect(last).toEqual({ state: "open" });
      last = side.receive(new Uint8Array([byte]));
    }
    return last;
  };
  const proof = inPieces(handshake, inPieces(acceptor, hello).send ?? none).send ?? none;
  const welcome = inPieces(acceptor, proof);
  expect(welcome.state).toBe("done");
  expect(inPieces(handshake, welcome.send ?? none).state).toBe("done");
});

const me = identity("n2");
test.each<[string, Identity, string, Refusal, Refusal]>([
  ["another secret", identity("n1", { secret: new Uint8Array(32).fill(8) }), "n2", "proof", "proof"],
  ["another cluster", identity("n1", { clusterId: "c2" }), "n2", "cluster", "cluster"],
  ["an address that is another node's", identity("n1"), "n3", "addressee", "addressee"],
  ["an id that nobody admits", identity("stranger"), "n2", "stranger", "stranger"],
  ["one more than there is room for", identity("late"), "n2", "full", "full"],
])("%s is refused, and the dialer hears why", (_, self, wanted, atAcceptor, atDialer) => {
  const admission = (id: string) => (id === "stranger" ? "stranger" : id === "late" ? "full" : undefined);
  const { dialer, acceptor } = converse(dial(self, wanted, random()), accept(me, admission, random()));
  expect([outcome(acceptor), outcome(dialer)]).toEqual([atAcceptor, atDialer]);
});

test("who may take part is only said to those who hold the secret", () => {
  let asked = 0;
  const admission = () => {
    asked++;
    return "stranger" as const;
  };
  converse(dial(identity("n9", { secret: new Uint8Array(32) }), "n2", random()), accept(me, admission, random()));
  expect(asked).toBe(0);
});

test("an acceptor without the secret is refused by the dialer, and has seen nothing but a proof for itself", () => {
  const liar = accept(identity("n2", { secret: new Uint8Array(32).fill(9) }), admitAll, random());
  const { hello, handshake } = dial(identity("n1"), "n2", random());
  const challenge = liar.receive(hello).send ?? none;
  expect(handshake.receive(challenge).state).toBe("open");
  // The liar takes any proof, and answers with its best guess: 32 bytes of its own, or the dialer's proof sent back.
  const welcome = (payload: Uint8Array) => join(Buffer.from("HIVENODE"), new Uint8Array([32, 0, 4, 0]), payload);
  expect(outcome(handshake.receive(welcome(new Uint8Array(32).fill(1))))).toBe("proof");
});

test("a proof that is sent back to who made it is not a welcome", () => {
  const { hello, handshake } = dial(identity("n1"), "n2", random());
  const challenge = accept(me, admitAll, random()).receive(hello).send ?? none;
  const proof = handshake.receive(challenge).send ?? none;
  const reflected = new Uint8Array(proof);
  reflected[10] = 4;
  expect(outcome(handshake.receive(reflected))).toBe("proof");
});

test("a recorded conversation opens nothing, on either side", () => {
  const { said } = converse(dial(identity("n1"), "n2", random()), accept(me, admitAll, random()));
  const [hello, challenge, proof, welcome] = said.map(({ bytes }) => bytes);
  const acceptor = accept(me, admitAll, random());
  expect(acceptor.receive(hello!).state).toBe("open");
  expect(outcome(acceptor.receive(proof!))).toBe("proof");
  const { handshake } = dial(identity("n1"), "n2", random());
  expect(handshake.receive(challenge!).state).toBe("open");
  expect(outcome(handshake.receive(welcome!))).toBe("proof");
});

test("two conversations can't be crossed: a node's proof to one peer opens no connection to another", () => {
  // A stranger between them: it has n1 dial it as n3, and passes n1's words on to n2.
  const { hello, handshake } = dial(identity("n1"), "n3", random());
  expect(outcome(accept(me, admitAll, random()).receive(hello))).toBe("addressee");
  const acceptor = accept(me, admitAll, random());
  const renamed = join(hello.subarray(0, -1), Buffer.from("2"));
  const challenge = acceptor.receive(renamed).send ?? none;
  const proof = handshake.receive(challenge).send ?? none;
  expect(outcome(acceptor.receive(proof))).toBe("proof");
});

test("whatever one changes on the way, no conversation ends well", () => {
  fc.assert(
    fc.property(fc.nat(3), fc.nat(), fc.integer({ min: 1, max: 255 }), (which, at, difference) => {
      let count = 0;
      const tamper = (bytes: Uint8Array) => {
        if (count++ !== which) return bytes;
        const changed = new Uint8Array(bytes);
        changed[at % changed.length]! ^= difference;
        return changed;
      };
      const { dialer, acceptor } = converse(
        dial(identity("n1"), "n2", random()),
        accept(me, admitAll, random()),
        tamper,
      );
      expect(dialer.state).not.toBe("done");
      if (which < 3) expect(acceptor.state).not.toBe("done");
    }),
    { numRuns: 2000 },
  );
});

test("the newest version that both speak is chosen; none in common is refused", () => {
  const between = (dialer: [number, number], acceptor: [number, number]) => {
    const versions = ([oldest, newest]: [number, number]) => ({ oldest, newest });
    const ends = converse(
      dial(identity("n1"), "n2", random(), versions(dialer)),
      accept(me, admitAll, random(), versions(acceptor)),
    );
    return [ends.dialer, ends.acceptor].map((step) => (step.state === "done" ? step.version : outcome(step)));
  };
  expect(between([1, 3], [2, 5])).toEqual([3, 3]);
  expect(between([2, 5], [1, 3])).toEqual([3, 3]);
  expect(between([1, 1], [2, 3])).toEqual(["version", "version"]);
  expect(between([4, 5], [2, 3])).toEqual(["version", "version"]);
});

test("an older version can't be forced on two nodes that speak newer ones", () => {
  const { dialer, acceptor } = converse(
    dial(identity("n1"), "n2", random(), { oldest: 1, newest: 3 }),
    accept(me, admitAll, random(), { oldest: 1, newest: 3 }),
    (bytes) => {
      if (bytes[10] !== 1) return bytes;
      const older = new Uint8Array(bytes);
      older[13] = 1;
      return older;
    },
  );
  expect([outcome(dialer), outcome(acceptor)]).toEqual(["proof", "proof"]);
});

test("a version that was not offered is refused by the dialer", () => {
  const { hello, handshake } = dial(identity("n1"), "n2", random());
  const challenge = new Uint8Array(accept(me, admitAll, random()).receive(hello).send ?? none);
  challenge[12] = 2;
  expect(outcome(handshake.receive(challenge))).toBe("version");
});

test.each<[string, Uint8Array]>([
  ["an HTTP request", Buffer.from("GET / HTTP/1.1\r\n")],
  ["a TLS hello", new Uint8Array([0x16, 3, 1, 2, 0])],
  ["the right magic with a message of another kind", join(Buffer.from("HIVENODE"), new Uint8Array([33, 0, 2, 0]))],
  ["a refusal before anything was said", join(Buffer.from("HIVENODE"), new Uint8Array([1, 0, 5, 0, 0]))],
  ["a hello that is too long", join(Buffer.from("HIVENODE"), new Uint8Array([0xff, 0xff, 1, 0]))],
  ["a hello that is too short", join(Buffer.from("HIVENODE"), new Uint8Array([5, 0, 1, 0]))],
  ["more than any message", new Uint8Array(HANDSHAKE_BYTES_MAX + 1).fill(0x48)],
  ["something behind the hello", join(dial(identity("n1"), "n2", seededRandom(1)).hello, new Uint8Array(1))],
])("%s is garbage, and gets no answer", (_, bytes) => {
  const step = accept(me, admitAll, random()).receive(bytes);
  expect(step).toMatchObject({ state: "refused", reason: "garbage" });
  expect(step.send).toBeUndefined();
});

test("a hello with empty, too long or broken texts is garbage", () => {
  const hello = (...texts: string[]) => {
    const parts = texts.map((text) => join(new Uint8Array([Buffer.byteLength(text)]), Buffer.from(text)));
    const payload = join(new Uint8Array([1, 1]), new Uint8Array(32), ...parts);
    return join(Buffer.from("HIVENODE"), new Uint8Array([payload.length, 0, 1, 0]), payload);
  };
  const answer = (bytes: Uint8Array) => outcome(accept(me, admitAll, random()).receive(bytes));
  expect(answer(hello("c1", "n1", "n2"))).toBe("open");
  expect(answer(hello("c1", "", "n2"))).toBe("garbage");
  expect(answer(hello("c1", "n1"))).toBe("garbage");
  expect(answer(hello("c1", "n1", "n2", "n3"))).toBe("garbage");
  expect(answer(hello("c1", "n".repeat(65), "n2"))).toBe("garbage");
  expect(answer(hello("c1", "n1", "n2").fill(0xff, 46, 47))).toBe("garbage");
});

test("any bytes whatever end in a refusal or in waiting for more, on both sides, without a throw", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 5 }), fc.boolean(), (chunks, isFramed) => {
      for (const side of [dial(identity("n1"), "n2", random()).handshake, accept(me, admitAll, random())]) {
        for (const chunk of chunks) {
          const bytes = isFramed ? join(Buffer.from("HIVENODE"), chunk) : chunk;
          const step = side.receive(bytes);
          expect(step.state).not.toBe("done");
          if (step.state !== "open") break;
        }
      }
    }),
    { numRuns: 1000 },
  );
});

test("bytes behind a message, before its answer went out, are garbage at every point of the conversation", () => {
  const more = (bytes: Uint8Array | undefined) => join(bytes ?? none, new Uint8Array(1));
  for (const point of [0, 1, 2, 3]) {
    let count = 0;
    const ends = converse(dial(identity("n1"), "n2", random()), accept(me, admitAll, random()), (bytes) =>
      count++ === point ? more(bytes) : bytes,
    );
    expect(outcome(point % 2 === 0 ? ends.acceptor : ends.dialer)).toBe("garbage");
  }
});

test("a refusal reaches the other side at every point of the conversation", () => {
  const refusal = join(Buffer.from("HIVENODE"), new Uint8Array([1, 0, 5, 0, 6]));
  const { hello, handshake } = dial(identity("n1"), "n2", random());
  expect(outcome(dial(identity("n1"), "n2", random()).handshake.receive(refusal))).toBe("full");
  const acceptor = accept(me, admitAll, random());
  handshake.receive(acceptor.receive(hello).send ?? none);
  expect(outcome(handshake.receive(refusal))).toBe("full");
  expect(outcome(acceptor.receive(refusal))).toBe("full");
  const unknown = new Uint8Array(refusal).fill(200, 12);
  expect(outcome(dial(identity("n1"), "n2", random()).handshake.receive(unknown))).toBe("garbage");
});

test("nonces are fresh: no two handshakes say the same", () => {
  const source = seededRandom(99);
  const first = converse(dial(identity("n1"), "n2", source), accept(me, admitAll, source));
  const second = converse(dial(identity("n1"), "n2", source), accept(me, admitAll, source));
  first.said.forEach(({ bytes }, at) => {
    expect(second.said[at]?.bytes).not.toEqual(bytes);
  });
});

test("refusals keep their numbers on the wire", () => {
  expect(REFUSALS).toEqual(["garbage", "version", "cluster", "addressee", "proof", "stranger", "full"]);
});

test("a secret that can be guessed is a defect", () => {
  expect(() => dial(identity("n1", { secret: new Uint8Array(8) }), "n2", random())).toThrow("guessed");
});
