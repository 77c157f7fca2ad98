/** One suite over all kinds of routers, and what each adds. */
import { describe, expect, test } from "vitest"
import { specOf } from "../core/testing.ts"
import { Router } from "./router.ts"
import { ROUTER_KINDS } from "./routers.ts"
import { type Fake, type FakeState, IDLE, routed, target } from "./testing.ts"

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

test.each(["offer", "prefix-offer"] as const)(
  "%s: arrivals begin in turn, however many of them are turned down and offered again",
  (kind) => {
    const router = new Router({ kind, reoffers: 3 })
    const targets = [target({ takes: false }), target({ takes: false })]
    const given = [0, 0]
    for (let i = 0; i < 40; i++) {
      const at = router.route(specOf(i), targets, i, draws(i))
      given[at]!++
      router.reoffer(specOf(i), targets, at, i, draws(i))
    }
    // With one turn for both, each arrival had the place after the other's, and one replica had them all.
    expect(given).toEqual([20, 20])
  },
)

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
  for (let i = 0; i < 8; i++) expect(router.reoffer(specOf(i), targets, 0, 0, draws(i))).toBe(3)
  expect(router.reoffer(specOf(9), [target(), target({ takes: false })], 0, 0, [0, 0])).toBe(-1)
})

test("least-loaded goes by what snapshots say; power-of-two takes the less busy of its draws", () => {
  const targets = [target({ running: 9 }), target({ running: 2 }), target({ running: 5 })]
  expect(new Router({ kind: "least-loaded" }).route(specOf(0), targets, 0, [0, 0])).toBe(1)
  const router = new Router({ kind: "power-of-two" })
  expect(router.route(specOf(0), targets, 0, [0, 0.9])).toBe(2)
  expect(router.route(specOf(1), targets, 0, [0, 0.1])).toBe(1)
})

test("an order asks nothing; replicas that promise nothing are not asked at all", () => {
  const targets = [target({ running: 1 }), target(), target({ running: 2 })]
  for (const kind of ROUTER_KINDS) {
    const order = new Router({ kind, hops: 2 }).order(specOf(0), targets, [0.1, 0.6])
    const asks = kind === "offer" || kind === "prefix-offer"
    expect(order.length, kind).toBe(asks ? 2 : 1)
    new Router({ kind }).route(specOf(0), targets, 0, [0.1, 0.6])
    expect(targets.reduce((sum, { asked }) => sum + asked, 0) > 0, kind).toBe(asks)
    for (const one of targets) one.asked = 0
  }
})

test("turns skip the lost: what follows one has no second turn", () => {
  const targets = [target(), target({ alive: false }), target()]
  const router = new Router({ kind: "round-robin" })
  const counts = [0, 0, 0]
  for (let i = 0; i < 100; i++) counts[router.route(specOf(i), targets, i, [0, 0])]!++
  expect(counts).toEqual([50, 0, 50])
})

test("what was sent since a snapshot was taken counts, until a later one shows it", () => {
  let seen = IDLE
  const quiet = { ...target(), snapshot: () => seen }
  const targets = [quiet, target({ running: 5 })]
  const router = new Router({ kind: "least-loaded" })
  const chosen = Array.from({ length: 6 }, (_, i) => router.route(specOf(i), targets, 1000 + i, [0, 0]))
  // Two a request: the third makes it the busier one, by the prompts.
  expect(chosen).toEqual([0, 0, 0, 1, 0, 1])
  seen = { ...IDLE, nowUs: 5000, running: 1 }
  expect(router.order(specOf(9), targets, [0, 0])).toEqual([0])
})

describe("prefix-offer", () => {
  const long = (names: string) => routed(names.repeat(32), 600)
  const fleet = (...states: FakeState[]) => states.map((state) => target({ nowUs: 1, ...state }))
  const order = (router: Router, targets: Fake[], request = long("a")) =>
    router.order(request, targets, [0, 0.5])
  const sent = (to: number, request = long("a"), hops = 3) => {
    const router = new Router({ kind: "prefix-offer", hops })
    router.placed(request, fleet({}, {}, {}, {}), to, 0)
    return router
  }

  test("asks where the prefix is, until more stands before it there than the prefix is worth", () => {
    const first = (holder: FakeState) => order(sent(3), fleet({}, {}, {}, holder))[0]
    const targets = fleet({}, {}, {}, { prefillBacklogTokens: 5000 })
    expect(order(sent(3), targets)[0]).toBe(3)
    // 512 of 600 tokens are worth 1.28: that many seconds of prompts, or that times a quarter of its requests waiting.
    expect(first({ prefillBacklogTokens: 12_000 })).toBe(3)
    expect(first({ prefillBacklogTokens: 14_000 })).not.toBe(3)
    expect(first({ running: 10, waiting: 3 })).toBe(3)
    expect(first({ running: 10, waiting: 6 })).not.toBe(3)
    expect(order(sent(3), targets, long("b"))).not.toContain(3)
    targets[3]!.offer = () => false
    expect(sent(3).route(specOf(0, long("a")), targets, 2, [0, 0.5])).not.toBe(3)
  })

  test("of prompts that were sent since a snapshot was taken only what is to be computed stands before others", () => {
    const slow = { prefillUsPerToken: 1000, running: 100 }
    const targets = fleet(slow, slow, slow, slow)
    const router = sent(3)
    for (let i = 0; i < 3; i++) router.placed(long("a"), targets, 3, 10 + i)
    expect(order(router, targets)[0]).toBe(3)
    // Others' prompts are all to be computed.
    for (let i = 0; i < 3; i++) router.placed(long("xyz"[i]!), targets, 3, 20 + i)
    expect(order(router, targets)[0]).not.toBe(3)
  })

  test("a prefix that the replica has evicted is worth nothing", () => {
    const slow = { prefillUsPerToken: 101 }
    expect(order(sent(3), fleet({}, {}, {}, slow))[0]).toBe(3)
    expect(order(sent(3), fleet({}, {}, {}, { ...slow, kvEvictedTokens: 100_000 }))[0]).not.toBe(3)
  })

  test("of those that have as much, where the first token is soonest: a slow replica's queue takes as long as it does", () => {
    const asked = (fastOwes: number) => {
      const router = sent(0, long("a"), 2)
      router.placed(long("a"), fleet({}, {}), 1, 0)
      const slow = { prefillUsPerToken: 300, prefillBacklogTokens: 100 }
      const targets = fleet(slow, { prefillUsPerToken: 100, prefillBacklogTokens: fastOwes })
      return [1, 2, 3].map(() => order(router, targets))
    }
    expect(asked(1000)).toEqual([1, 2, 3].map(() => [0, 1]))
    expect(asked(400)).toEqual([1, 2, 3].map(() => [1, 0]))
  })

  test("those that have nothing of it in turn, however busy", () => {
    const router = new Router({ kind: "prefix-offer", hops: 2 })
    const targets = fleet({ prefillBacklogTokens: 5000 }, {}, { prefillBacklogTokens: 100 })
    const orders = [1, 2, 3].map(() => order(router, targets))
    expect(orders).toEqual([
      [0, 1],
      [1, 2],
      [2, 0],
    ])
  })

  test("a session that begins goes where least stands, for it will stay there", () => {
    const router = new Router({ kind: "prefix-offer", hops: 2 })
    const targets = fleet({ prefillBacklogTokens: 5000 }, {}, { prefillBacklogTokens: 100 })
    const first = { session: 4, promptTokens: 500, prefix: [] }
    expect([1, 2, 3].map(() => order(router, targets, first))).toEqual([
      [1, 0],
      [1, 2],
      [2, 0],
    ])
  })

  test("a session's round is asked of its home alone where the others would compute again more than half of what it brings", () => {
    const round = (promptTokens: number) => ({ session: 4, promptTokens, prefix: [] })
    const ask = (first: number, next: number) =>
      order(sent(2, round(first)), fleet({}, {}, {}, {}), round(next))
    expect(ask(500, 1499)).toEqual([2])
    expect(ask(500, 1500)).toEqual([2, expect.any(Number), expect.any(Number)])
    // Its home has lost the KV, or is lost: it is as any other.
    const targets = fleet({}, {}, { kvEvictedTokens: 5000, prefillUsPerToken: 101 }, {})
    expect(order(sent(2, round(500)), targets, round(600))[0]).not.toBe(2)
    targets[2] = target({ alive: false })
    expect(order(sent(2, round(500)), targets, round(600)).sort()).toEqual([0, 1, 3])
  })

  test("a request turned down is offered to others, those with the prefix first", () => {
    const targets = fleet({}, {}, {}, {})
    expect(sent(3).reofferOrder(long("a"), targets, 0, [0, 0])).toEqual([3, 1, 2])
    expect(sent(3).reofferOrder(long("a"), targets, 3, [0, 0])).toEqual([0, 1, 2])
  })

  test("a session's round that its home turned down is offered anywhere", () => {
    const round = { session: 4, promptTokens: 900, prefix: [] }
    const router = sent(2, { ...round, promptTokens: 880 })
    router.placed(round, fleet({}, {}, {}, {}), 2, 5)
    expect(router.reofferOrder(round, fleet({}, {}, {}, {}), 2, [0, 0]).sort()).toEqual([0, 1, 3])
  })

  test("what several have is not computed again for a request that one of them turned down", () => {
    const router = sent(1)
    for (const index of [2, 3]) router.placed(long("a"), fleet({}, {}, {}, {}), index, 0)
    expect(router.reofferOrder(long("a"), fleet({}, {}, {}, {}), 3, [0, 0]).sort()).toEqual([1, 2])
  })

  test("of those that have as much, first where KV is free, and where fewer wait for what those that run give back", () => {
    const asked = (first: FakeState, second: FakeState) => {
      const router = sent(0, long("a"), 2)
      router.placed(long("a"), fleet({}, {}), 1, 0)
      return order(router, fleet(first, second))[0]
    }
    expect(asked({ kvUsedTokens: 900 }, { kvUsedTokens: 700 })).toBe(1)
    expect(asked({ kvUsedTokens: 700 }, { kvUsedTokens: 900 })).toBe(0)
    // What is only cached is free.
    expect(asked({ kvUsedTokens: 900, kvCachedTokens: 500 }, { kvUsedTokens: 700 })).toBe(0)
    expect(asked({ running: 40, waiting: 4 }, { running: 40, waiting: 3 })).toBe(1)
    expect(asked({ running: 40, waiting: 4 }, { running: 20, waiting: 3 })).toBe(0)
  })

  test("those that share the prompt are looked at beside a session's home, however many replicas there are", () => {
    const states = Array.from({ length: 40 }, () => ({}))
    const router = new Router({ kind: "prefix-offer", hops: 2 })
    router.placed(long("a"), fleet(...states), 33, 0)
    const first = routed(`${"a".repeat(32)}${"b".repeat(8)}`, 640, 4)
    router.placed(first, fleet(...states), 21, 0)
    const next = routed(`${"a".repeat(32)}${"b".repeat(8)}${"c".repeat(24)}`, 1000, 4)
    expect(order(router, fleet(...states), next)).toEqual([21, 33])
  })

  test("where none promises it goes where least stands before it, the prefix counted: not all wait where that is", () => {
    const given = (holder: FakeState, others: FakeState, request = long("a")) => {
      const targets = fleet(others, others, others, holder)
      // They have a little of it.
      const router = sent(3)
      for (let index = 0; index < 3; index++) router.placed(routed("a".repeat(8), 130), targets, index, 0)
      for (const one of targets) one.offer = () => false
      return router.route({ ...specOf(0), ...request }, targets, 2, [0, 0.5])
    }
    const full = { running: 10, kvUsedTokens: 1000 }
    expect(given(full, full)).toBe(3)
    expect(given({ ...full, waiting: 3 }, full)).toBe(3)
    expect(given({ ...full, waiting: 7 }, full)).not.toBe(3)
    expect(given({ ...full, waiting: 7 }, { ...full, waiting: 7 })).toBe(3)
    // What it lacks is computed at the pace of those.
    expect(given({ ...full, waiting: 7 }, { ...full, prefillUsPerToken: 3000 })).toBe(3)
    // Nothing is known of it anywhere: the first asked.
    expect(given({ running: 10, kvUsedTokens: 500 }, full, long("b"))).toBe(0)
  })

  test("where none promises a session's round stays where its KV is, if the others would compute most of it again", () => {
    const round = { session: 4, promptTokens: 900, prefix: [] }
    const targets = fleet({}, {}, { running: 10, waiting: 40, kvUsedTokens: 1000 }, {})
    for (const one of targets) one.offer = () => false
    expect(sent(2, { ...round, promptTokens: 880 }).route(specOf(1, round), targets, 2, [0, 0])).toBe(2)
  })

  test("a replica that starts afresh has no prefix and no home", () => {
    const request = { ...long("a"), session: 4 }
    const router = sent(2, request)
    const targets = fleet({}, {}, { prefillUsPerToken: 101 }, {})
    expect(order(router, targets, request)).toEqual([2])
    router.forget(2)
    expect(order(router, targets, request)[0]).not.toBe(2)
  })
})

describe("the rivals by prefix", () => {
  const request = routed("a".repeat(32), 600)

  test("cache-aware: the longest match while the fleet is balanced, else the least loaded", () => {
    const router = new Router({ kind: "cache-aware" })
    router.placed(request, [target(), target(), target()], 1, 0)
    const order = (running: number) =>
      router.order(
        request,
        [target({ nowUs: 1 }), target({ nowUs: 1, running }), target({ nowUs: 1, running: 2 })],
        [0, 0],
      )
    expect(order(64)).toEqual([1])
    expect(order(65)).toEqual([0])
    const short = routed(`${"a".repeat(8)}b`, 600)
    expect(
      router.order(short, [target({ running: 1 }), target({ nowUs: 1 }), target({ running: 2 })], [0, 0]),
    ).toEqual([1])
  })

  test("prefix-score: three parts prefix, two parts queue, two parts free KV", () => {
    const router = new Router({ kind: "prefix-score" })
    router.placed(request, [target(), target()], 1, 0)
    const order = (waiting: number, kvUsedTokens: number) =>
      router.order(request, [target({ nowUs: 1 }), target({ nowUs: 1, waiting, kvUsedTokens })], [0, 0])
    expect(order(0, 1000)).toEqual([1])
    expect(order(5, 0)).toEqual([1])
    expect(order(5, 400)).toEqual([0])
  })
})
