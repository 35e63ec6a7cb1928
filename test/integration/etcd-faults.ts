/** A way to etcd that fails as networks and machines do: calls and answers are lost, doubled and late, and watches cut. */
import { seededRandom } from "../../src/lib/random.ts";

export interface FaultyWay {
  /** `127.0.0.1:port` of this way to etcd. */
  readonly address: string;
  /** How many of a hundred calls meet a fault. */
  percent: number;
  /** Nothing goes through, and nothing that is on its way goes on. */
  isCut: boolean;
  /** Calls are taken and never answered. */
  isMute: boolean;
  /** Calls are carried out and never answered. */
  losesAnswers: boolean;
  /** Of calls and of what a watch tells, each. */
  delayMs: number;
  /** The watches that there are tell nothing any more, and do not end. */
  deafen(): void;
  readonly faults: number;
  stop(): void;
}

export function startFaultyWay(target: string, seed: number): FaultyWay {
  const random = seededRandom(seed);
  const chance = () => random.bytes(1)[0]! / 256;
  const streams = new Set<AbortController>();
  let deafened = 0;
  let isCut = false;
  const lost = (): Response => new Response("the way to etcd is broken", { status: 502 });
  const forward = (path: string, body: string, signal?: AbortSignal): Promise<Response> =>
    fetch(`http://${target}${path}`, { method: "POST", body, timeout: false, ...(signal && { signal }) });

  const call = async (path: string, body: string): Promise<Response> => {
    if (way.isMute) return new Promise(() => undefined);
    if (way.losesAnswers) {
      void forward(path, body).catch(() => undefined);
      return new Promise(() => undefined);
    }
    if (way.delayMs > 0) await Bun.sleep(way.delayMs);
    if (chance() * 100 >= way.percent) return forward(path, body);
    way.faults++;
    const kind = Math.floor(chance() * 4);
    if (kind === 0) return lost();
    if (kind === 1) {
      // The call arrives long after it was given up.
      setTimeout(() => void forward(path, body).catch(() => undefined), 1 + chance() * 60);
      return lost();
    }
    const answer = await forward(path, body);
    if (kind === 2) {
      await answer.text();
      return lost();
    }
    void forward(path, body).catch(() => undefined);
    return answer;
  };

  const watch = async (path: string, body: string): Promise<Response> => {
    const controller = new AbortController();
    streams.add(controller);
    const cut = way.percent > 0 ? setTimeout(() => controller.abort(), 20 + chance() * 400) : undefined;
    const born = deafened;
    const answer = await forward(path, body, controller.signal);
    controller.signal.addEventListener("abort", () => {
      clearTimeout(cut);
      streams.delete(controller);
    });
    // The listener must not see the abort: it would call that an error of ours.
    async function* untilCut() {
      try {
        for await (const chunk of answer.body ?? []) {
          if (way.delayMs > 0) await Bun.sleep(way.delayMs);
          if (born === deafened) yield chunk;
        }
      } catch {
        // Cut.
      }
    }
    return new Response(untilCut(), { status: answer.status });
  };

  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    async fetch(request) {
      const { pathname } = new URL(request.url);
      const body = await request.text();
      if (isCut) return lost();
      try {
        const answer = await (pathname === "/v3/watch" ? watch(pathname, body) : call(pathname, body));
        return isCut ? lost() : answer;
      } catch {
        return lost();
      }
    },
  });
  const way = {
    address: `127.0.0.1:${server.port}`,
    percent: 0,
    isMute: false,
    losesAnswers: false,
    delayMs: 0,
    faults: 0,
    deafen() {
      deafened++;
    },
    get isCut() {
      return isCut;
    },
    set isCut(cut: boolean) {
      isCut = cut;
      if (cut) for (const stream of streams) stream.abort();
    },
    stop() {
      for (const stream of streams) stream.abort();
      void server.stop(true);
    },
  };
  return way;
}
