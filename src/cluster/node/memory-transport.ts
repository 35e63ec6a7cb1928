/**
 * Nodes that talk inside one process, for tests: what is sent arrives in a later turn of the event loop, in order, the very
 * same objects. Links can be cut; what is on its way when that happens is lost, and nobody is told, as with a real network.
 */
import type { PeerId } from "../raft/types.ts";
import type { Frame, Transport } from "./transport.ts";

type Handlers = Parameters<Transport["listen"]>[0];

export interface MemoryNetwork {
  /** The node's way onto the network. Called again for the same node (a restart), the one before hears nothing more. */
  transport(id: PeerId): Transport;
  /** Nothing passes between the two any more, or only from `b` to `a` with "one-way". */
  cut(a: PeerId, b: PeerId, direction?: "both" | "one-way"): void;
  /** Cuts the node off from every other, those to come included. */
  isolate(id: PeerId): void;
  /** All links are whole again. */
  heal(): void;
}

export function memoryNetwork(): MemoryNetwork {
  const nodes = new Map<PeerId, { readonly handlers: Handlers }>();
  const cutLinks = new Set<string>();
  const isolated = new Set<PeerId>();
  let onTheWay: { readonly from: PeerId; readonly to: PeerId; readonly frame: Frame }[] = [];

  const link = (from: PeerId, to: PeerId) => JSON.stringify([from, to]);
  const passes = (from: PeerId, to: PeerId) =>
    !isolated.has(from) && !isolated.has(to) && (cutLinks.size === 0 || !cutLinks.has(link(from, to)));

  const deliver = () => {
    const arriving = onTheWay;
    onTheWay = [];
    for (const { from, to, frame } of arriving) {
      if (!passes(from, to)) continue;
      const receiver = nodes.get(to);
      if (receiver) receiver.handlers.frame(from, frame);
      else nodes.get(from)?.handlers.unreachable(to);
    }
  };

  return {
    transport(id) {
      let self: { readonly handlers: Handlers } | undefined;
      return {
        send(to, frame) {
          if (!self || nodes.get(id) !== self || !passes(id, to)) return;
          if (onTheWay.length === 0) setImmediate(deliver);
          onTheWay.push({ from: id, to, frame });
        },
        listen(handlers) {
          self = { handlers };
          nodes.set(id, self);
        },
        async close() {
          if (self && nodes.get(id) === self) nodes.delete(id);
          self = undefined;
        },
      };
    },
    cut(a, b, direction = "both") {
      cutLinks.add(link(a, b));
      if (direction === "both") cutLinks.add(link(b, a));
    },
    isolate(id) {
      isolated.add(id);
    },
    heal() {
      cutLinks.clear();
      isolated.clear();
    },
  };
}
