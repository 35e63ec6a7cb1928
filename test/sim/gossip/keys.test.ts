/** Keys are rotated under load, loss and late joiners, with every frame sealed. */
import { expect, test } from "bun:test";
import {
  installKey,
  newKey,
  newRing,
  removeKey,
  replaceKeys,
  useKey,
} from "../../../src/cluster/node/gossip-keyring.ts";
import { Secret } from "../../../src/lib/log.ts";
import { SealedWorld } from "./simulate-sealed.ts";

const secret = new Secret("what only members of this cluster know");

function rotation(seed: number): SealedWorld {
  const world = new SealedWorld(seed, 0.05, secret);
  const first = newRing(world.chance);
  const old = first.primary;
  world.start(first, true);
  for (let i = 1; i < 20; i++) world.start(undefined, true);
  world.until(() => world.isOne(), 30_000);
  // One node sleeps through everything that follows.
  const sleeper = world.nodes[19]!;
  const ringOf = (index: number) => world.nodes[index]!.endpoint!.ring!;
  const everywhere = (holds: (ring: ReturnType<typeof ringOf>) => boolean) => () =>
    world.nodes.every(({ endpoint }) => !endpoint || (endpoint.ring !== undefined && holds(endpoint.ring)));
  sleeper.endpoint = undefined;

  for (let round = 0; round < 3; round++) {
    const key = newKey(world.chance);
    const before = ringOf(0).primary;
    const at = (index: number) => world.nodes[index]!.endpoint!;
    expect(at(round).changeRing((ring) => installKey(ring, key)).ok).toBe(true);
    // Someone joins in the midst of each phase, with the old key alone.
    world.start(round === 0 ? first : world.nodes[5]!.ring, false);
    world.until(
      everywhere((ring) => ring.keys.some(({ id }) => id === key.id)),
      20_000,
    );
    expect(at(round + 3).changeRing((ring) => useKey(ring, key.id)).ok).toBe(true);
    world.start(undefined, true);
    world.until(
      everywhere((ring) => ring.primary === key.id),
      20_000,
    );
    expect(at(round + 6).changeRing((ring) => removeKey(ring, before)).ok).toBe(true);
    world.until(
      everywhere((ring) => ring.keys.length === 1),
      20_000,
    );
    world.until(() => world.isOne(), 60_000);
  }
  world.start(sleeper.ring, true, sleeper);
  expect(sleeper.ring?.primary).toBe(old);
  world.until(() => world.isOne(), 30_000);
  return world;
}

test("three rotations among 20 nodes with 5 % loss: joiners and a node that was away get in, nobody is called dead", () => {
  const world = rotation(1);
  const sleeper = world.nodes[19]!;
  const wronged = world.nodes.flatMap((node) => node.deaths).filter((id) => id !== sleeper.id);
  expect(wronged).toEqual([]);
  expect(sleeper.endpoint?.ring).toEqual(world.nodes[0]!.endpoint!.ring!);
  expect(world.nodes.every(({ refusals }) => !refusals.has("forged") && !refusals.has("replayed"))).toBe(true);
});

test("sealed runs, too, are the same for the same seed", () => {
  expect(rotation(2).trace.hash).toBe(rotation(2).trace.hash);
});

test("all keys are replaced at once among 30 nodes: known everywhere in seconds, and nobody is called dead meanwhile", () => {
  const world = new SealedWorld(3, 0.05, secret);
  world.start(newRing(world.chance), true);
  for (let i = 1; i < 30; i++) world.start(undefined, true);
  world.until(() => world.isOne(), 30_000);
  const key = newKey(world.chance);
  expect(world.nodes[7]!.endpoint!.changeRing((ring) => replaceKeys(ring, key)).ok).toBe(true);
  const ms = world.until(() => world.nodes.every(({ endpoint }) => endpoint!.ring?.primary === key.id), 20_000);
  console.log(`a ring under the join secret alone reached 30 nodes in ${ms} ms`);
  expect(ms).toBeLessThan(10_000);
  world.run(world.queue.now + 30_000);
  expect(world.isOne()).toBe(true);
  expect(world.nodes.flatMap((node) => node.deaths)).toEqual([]);
});
