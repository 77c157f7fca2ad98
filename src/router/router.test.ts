/** One suite over all kinds of routers, and what each adds. */
import { describe, expect, test } from "vitest"
import type { Snapshot } from "../core/protocol.ts"
import { specOf } from "../core/testing.ts"
import { Router } from "./router.ts"
import { ROUTER_KINDS } from "./routers.ts"
import type { Target } from "./target.ts"

const IDLE: Snapshot = {
  nowUs: 0,
  waiting: 0,
  running: 0,
  bestEffort: 0,
  kvUsedTokens: 0,
  kvCachedTokens: 0,
  kvCapacityTokens: 1000,
  batchInFlight: false,
  prefillBacklogTokens: 0,
  speculation: [],
  calibration: [1, 1],
}

interface Fake extends Target {
  asked: number
}

function target(changes: { alive?: boolean; running?: number; takes?: boolean } = {}): Fake {
  const { alive = true, running = 0, takes = true } = changes
  return {
    alive,
    asked: 0,
    snapshot: () => ({ ...IDLE, running }),
    offer() {
      this.asked++
      return takes
    },
  }
}

const draws = (i: number) => [((i * 7) % 10) / 10, ((i * 3) % 10) / 10] as const

describe.each(ROUTER_KINDS)("router %s", (kind) => {
  test("spreads equal requests over equal replicas", () => {
    const router = new Router({ kind })
    const targets = [target(), target(), target()]
    const counts = [0, 0, 0]
    for (let i = 0; i < 300; i++) counts[router.route(specOf(i), targets, i, draws(i))]!++
    for (const count of counts) expect(count).toBeGreaterThan(30)
  })

  test("never chooses a replica that is known to be lost; -1 when all are", () => {
    const router = new Router({ kind })
    const targets = [target({ alive: false }), target({ running: 50 }), target({ alive: false }), target()]
    for (let i = 0; i < 50; i++) expect([1, 3]).toContain(router.route(specOf(i), targets, i, draws(i)))
    expect(router.route(specOf(99), [target({ alive: false })], 0, [0, 0])).toBe(-1)
  })

  test("decides the same for the same questions", () => {
    const run = () => {
      const router = new Router({ kind, affinity: true })
      const targets = [target({ running: 3 }), target({ takes: false }), target({ running: 1 })]
      return Array.from({ length: 40 }, (_, i) =>
        router.route(specOf(i, { session: i % 5 }), targets, i, draws(i)),
      )
    }
    expect(run()).toEqual(run())
  })

  test("with affinity a session stays where its KV is, until that replica is lost", () => {
    const router = new Router({ kind, affinity: true })
    const targets = [target(), target(), target()]
    const home = router.route(specOf(0, { session: 7 }), targets, 0, [0.5, 0.5])
    for (let i = 1; i < 20; i++) {
      router.route(specOf(100 + i), targets, i, draws(i))
      expect(router.route(specOf(i, { session: 7 }), targets, i, draws(i))).toBe(home)
    }
    targets[home] = target({ alive: false })
    const next = router.route(specOf(30, { session: 7 }), targets, 30, [0.1, 0.1])
    expect(next).not.toBe(home)
    targets[home] = target()
    expect(router.route(specOf(31, { session: 7 }), targets, 31, [0.9, 0.9])).toBe(next)
  })
})

test("offers go to the first replica that can keep the SLOs, within the hops", () => {
  const router = new Router({ kind: "offer", hops: 2 })
  const targets = [target({ takes: false }), target({ takes: true }), target({ takes: true })]
  expect(router.route(specOf(0), targets, 0, [0, 0])).toBe(1)
  const unwilling = [target({ takes: false }), target({ takes: false }), target()]
  // Begins with the second, asks the third as well: the third takes it.
  expect(router.route(specOf(1), unwilling, 0, [0, 0])).toBe(2)
  // Begins with the third of three that all decline: it goes to the first asked, and only two were asked.
  const none = [target({ takes: false }), target({ takes: false }), target({ takes: false })]
  expect(router.route(specOf(2), none, 0, [0, 0])).toBe(2)
  expect(none.map(({ asked }) => asked)).toEqual([1, 0, 1])
})

test("a request turned down is offered to others only", () => {
  const router = new Router({ hops: 3 })
  const targets = [target(), target({ takes: false }), target({ alive: false }), target()]
  for (let i = 0; i < 8; i++) expect(router.reoffer(specOf(i), targets, 0, 0)).toBe(3)
  expect(router.reoffer(specOf(9), [target(), target({ takes: false })], 0, 0)).toBe(-1)
})

test("least-loaded goes by what snapshots say; power-of-two takes the less busy of its draws", () => {
  const targets = [target({ running: 9 }), target({ running: 2 }), target({ running: 5 })]
  expect(new Router({ kind: "least-loaded" }).route(specOf(0), targets, 0, [0, 0])).toBe(1)
  const router = new Router({ kind: "power-of-two" })
  expect(router.route(specOf(0), targets, 0, [0, 0.9])).toBe(2)
  expect(router.route(specOf(1), targets, 0, [0, 0.1])).toBe(1)
})
