/** Requests that move between replicas, and what a replica says of itself. */
import { describe, expect, test } from "vitest"
import type { Policy } from "./policy/policy.ts"
import { aboard, Played } from "./replica-testing.ts"
import { LIMITS, specOf } from "./testing.ts"

const used = (played: Played) => played.replica.snapshot(played.nowUs).kvUsedTokens

describe("an offer", () => {
  /** What the policy was asked: how many requests are there, and when the next batch begins. */
  function asked(answer = true) {
    const asked: [number, number, number][] = []
    const played = new Played({
      maxQueue: 3,
      policy: (): Policy => ({
        name: "spy",
        decide: (requests, batch) => {
          for (const request of requests) batch.prefill(request, 400)
        },
        offer: (requests, offered, _, atUs) => {
          asked.push([requests.length, offered.deadlineUs, atUs])
          return answer
        },
      }),
    })
    return { played, asked }
  }

  test("is the policy's to answer, as of the next batch boundary", () => {
    const { played, asked: seen } = asked()
    expect(played.replica.offer(specOf(9), 2_000)).toBe(true)
    played.arrives(1)
    const batch = played.runs()
    expect(batch.predictedUs).toBe(15_000)
    expect(played.replica.offer(specOf(9), 2_000)).toBe(true)
    // The batch takes longer than it should.
    expect(played.replica.offer(specOf(9), 20_000)).toBe(true)
    expect(seen).toEqual([
      [0, 1_002_000, 2_000],
      [1, 1_002_000, 15_000],
      [1, 1_020_000, 20_000],
    ])
    expect(asked(false).played.replica.offer(specOf(9), 0)).toBe(false)
  })

  test("changes nothing: a request that comes after it has the order it would have had", () => {
    const { played } = asked()
    played.replica.offer(specOf(9), 0)
    played.arrives(1)
    expect(aboard(played.runs())).toEqual([1])
  })

  test("is refused without asking where the request would be, and taken where nothing is promised", () => {
    const { played, asked: seen } = asked(false)
    expect(played.replica.offer(specOf(9, { tier: "bestEffort" }), 0)).toBe(true)
    expect(new Played().replica.offer(specOf(9), 0)).toBe(true)
    expect(new Played().replica.offer(specOf(9, { promptTokens: 2000 }), 0)).toBe(false)
    for (const id of [1, 2, 3]) played.arrives(id)
    expect(played.replica.offer(specOf(9, { tier: "bestEffort" }), 0)).toBe(false)
    expect(seen).toEqual([])
  })
})

describe("KV taken for a request that is yet to come", () => {
  const small = { ...LIMITS, kvTokens: 160, contextTokens: 160, maxSequences: 2 }

  test("is refused where there is no room for it and one more block", () => {
    const played = new Played({ limits: small })
    expect(played.replica.reserve(1, 96)).toBe(true)
    expect(used(played)).toBe(96)
    // Four blocks are left.
    expect(played.replica.reserve(2, 64)).toBe(false)
    expect(played.replica.reserve(2, 48)).toBe(true)
    // There is room for more, but no sequence.
    expect(played.replica.reserve(3, 0)).toBe(false)
    // One that fills all the KV cannot have more.
    expect(new Played({ limits: small }).replica.reserve(1, 160)).toBe(true)
  })

  test("is refused while a request that is here waits for some", () => {
    const played = new Played({ limits: small })
    played.arrives(1, { promptTokens: 32 })
    expect(played.replica.reserve(2, 16)).toBe(false)
    played.step()
    expect(played.replica.reserve(2, 16)).toBe(true)
  })

  test("is the request's when it comes: it goes on with a decode", () => {
    const from = new Played({ prefillOnly: true })
    from.arrives(1, { promptTokens: 32 })
    from.step()
    from.poll()
    const { progress } = from.of("handedOff")[0]!
    const to = new Played({ limits: small })
    to.replica.reserve(1, 33)
    to.arrives(1, { promptTokens: 32 }, progress)
    expect(to.runs().items).toEqual([{ id: 1, position: 32, tokens: 1, sample: true, draft: 0 }])
  })

  test("is free again when the request does not come", () => {
    const played = new Played({ limits: small })
    played.replica.reserve(1, 96)
    played.replica.release(1)
    expect(used(played)).toBe(0)
    // Nothing is kept for it when it comes after all.
    played.arrives(1, { promptTokens: 32 })
    expect(played.runs().items[0]).toMatchObject({ position: 0, tokens: 32 })
  })
})

describe("a replica that only prefills", () => {
  test("hands a request off with its first token, and keeps its KV until it is released", () => {
    const played = new Played({ prefillOnly: true })
    played.arrives(1, { promptTokens: 32 })
    played.arrives(2, { promptTokens: 32, maxOutputTokens: 1 })
    played.step()
    played.poll()
    expect(played.of("handedOff")).toMatchObject([{ id: 1, progress: { output: 1 } }])
    expect(played.of("finished").map(({ id }) => id)).toEqual([2])
    expect(played.of("token").map(({ id }) => id)).toEqual([1, 2])
    expect(used(played)).toBe(32)
    played.replica.release(1)
    expect(used(played)).toBe(0)
  })

  test("releases only when no batch is in the air", () => {
    const played = new Played({ prefillOnly: true })
    played.arrives(1, { promptTokens: 32 })
    played.step()
    played.arrives(2, { promptTokens: 32 })
    const batch = played.runs()
    played.replica.release(1)
    expect(used(played)).toBe(64)
    played.done(batch)
    expect(used(played)).toBe(32)
  })
})

describe("a request that is withdrawn", () => {
  test("leaves with how far it has come, and without its KV", () => {
    const played = new Played()
    played.arrives(1, { promptTokens: 32 })
    played.step()
    const moved = played.replica.withdraw(1)!
    expect(moved).toMatchObject({ request: { id: 1 }, progress: { output: 1, preemptions: 1 } })
    expect(used(played)).toBe(0)
    expect(played.poll().map(({ type }) => type)).not.toContain("run")
    expect(played.replica.withdraw(1)).toBeNull()
  })

  test("is not one that is being computed", () => {
    const played = new Played()
    played.arrives(1)
    played.runs()
    expect(played.replica.withdraw(1)).toBeNull()
    played.arrives(2)
    expect(played.replica.withdraw(2)).toMatchObject({ progress: { output: 0, preemptions: 0 } })
  })

  test("never began: the engine has nothing of it to forget", () => {
    const played = new Played()
    for (const id of [1, 2]) played.arrives(id)
    played.replica.withdraw(1)
    expect(played.runs()).toMatchObject({ release: [] })
  })

  test("and comes back begins afresh: what the engine still has of it goes first", () => {
    const played = new Played()
    played.arrives(1, { promptTokens: 32 })
    played.arrives(2, { promptTokens: 32 })
    played.step()
    const { request, progress } = played.replica.withdraw(1)!
    played.arrives(request.id, { promptTokens: 32 }, progress)
    const batch = played.runs()
    expect(batch.items.find(({ id }) => id === 1)).toMatchObject({ position: 0, tokens: 33 })
    expect(batch).toMatchObject({ release: [], evict: [] })
  })

  test("while a batch is in the air, and comes back before it lands, is not forgotten with what has left", () => {
    const aside = new Set<number>()
    const policy = (): Policy => ({
      name: "spy",
      decide: (requests, batch) => {
        for (const request of requests) if (!aside.has(request.id)) batch.prefill(request, 400)
      },
    })
    const played = new Played({ policy })
    played.arrives(1, { promptTokens: 32 })
    played.step()
    aside.add(1)
    played.arrives(2, { promptTokens: 32 })
    const batch = played.runs()
    const { progress } = played.replica.withdraw(1)!
    // The engine may hold it until the batch is done.
    expect(used(played)).toBe(64)
    played.arrives(1, { promptTokens: 32 }, progress)
    played.done(batch)
    aside.clear()
    const next = played.step()
    expect(next.items.find(({ id }) => id === 1)).toMatchObject({ position: 0, tokens: 33 })
    expect(next.release).toEqual([])
  })
})

test("a lost replica gives up everything live, by arrival", () => {
  const played = new Played()
  for (const id of [5, 3, 4]) played.arrives(id)
  const batch = played.runs()
  played.done(batch, { 3: { stopped: true } })
  expect(played.replica.surrender().map(({ request, progress }) => [request.id, progress.output])).toEqual([
    [5, 1],
    [4, 1],
  ])
})

test("a snapshot counts what waits and what runs, and the prompt tokens that SLOs wait for", () => {
  const played = new Played({ limits: { ...LIMITS, kvTokens: 256, contextTokens: 256 } })
  played.arrives(1, { promptTokens: 60, maxOutputTokens: 40 })
  played.arrives(2, { promptTokens: 40, tier: "bestEffort" })
  played.step()
  played.arrives(3, { promptTokens: 200 })
  played.arrives(4, { promptTokens: 30, tier: "bestEffort" })
  expect(played.replica.snapshot(7)).toMatchObject({
    ...{ nowUs: 7, waiting: 2, running: 2, bestEffort: 2, prefillBacklogTokens: 200 },
    ...{ kvUsedTokens: 112, kvCachedTokens: 0, kvCapacityTokens: 256, batchInFlight: false },
  })
  const batch = played.runs()
  expect(played.replica.snapshot(7)).toMatchObject({ batchInFlight: true })
  played.done(batch)
  expect(played.replica.snapshot(7)).toMatchObject({ batchInFlight: false })
})

test("a snapshot tells what one more prompt token takes: less room in a batch where more decode", () => {
  const played = new Played()
  const pace = () => played.replica.snapshot(0).prefillUsPerToken
  // The most tokens that a batch may have take 5 ms and 0.1 ms each: less than 100 ms.
  expect(pace()).toBeCloseTo(56_200 / 512)
  for (const id of [1, 2, 3]) played.arrives(id, { promptTokens: 20 })
  expect(pace()).toBeCloseTo(56_200 / 512)
  played.done(played.runs())
  expect(pace()).toBeCloseTo(56_200 / 509)
})

test("the revision changes with all that a snapshot shows", () => {
  const played = new Played()
  const { replica } = played
  let before = { revision: replica.revision, ...replica.snapshot(0) }
  const changed = (what: () => unknown) => {
    what()
    const after = { revision: replica.revision, ...replica.snapshot(0) }
    const same = after.revision === before.revision
    if (same) expect(after).toEqual(before)
    before = after
    return !same
  }
  expect(changed(() => {})).toBe(false)
  expect(changed(() => played.arrives(1, { promptTokens: 20 }))).toBe(true)
  expect(changed(() => replica.offer(specOf(9), 0))).toBe(false)
  let batch = played.runs()
  expect(changed(() => {})).toBe(true)
  expect(changed(() => played.replica.poll(played.nowUs))).toBe(false)
  expect(changed(() => played.done(batch))).toBe(true)
  played.arrives(2)
  expect(changed(() => replica.withdraw(2))).toBe(true)
  expect(changed(() => replica.reserve(7, 30))).toBe(true)
  expect(changed(() => replica.release(7))).toBe(true)
  batch = played.runs()
  expect(batch.items.length).toBeGreaterThan(0)
})
