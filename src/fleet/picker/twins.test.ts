/** Twins are asked: requests go where their SLO is kept, wait where it would not be, and are counted where they run. */
import { expect, it } from "vitest"
import { defaultSloClasses } from "../../config/slo-classes.ts"
import { BACKEND_KINDS } from "../backends/kinds.ts"
import { type Ask, readAsk } from "./ask.ts"
import type { Sent } from "./chooser.ts"
import { Twins } from "./twins.ts"

const CLASSES = defaultSloClasses()
const [A, B] = ["a:1", "b:1"]
const S = 1_000_000

function ask(
  {
    ttft_ms = 60_000,
    tpot_ms = 1000,
    session,
  }: { ttft_ms?: number; tpot_ms?: number; session?: string } = {},
  more: { nowUs?: number; followed?: boolean; bytes?: number; flex?: boolean; tokens?: number } = {},
): Ask {
  const { nowUs = 0, followed = true, bytes = 400, flex = false, tokens = 8 } = more
  const slo = flex ? { service_tier: "flex" } : { slo: { ttft_ms, tpot_ms, session } }
  const body = Buffer.from(JSON.stringify({ ...slo, max_tokens: tokens, prompt: "x".repeat(bytes) }))
  return readAsk({ ":method": "POST", ":path": "/v1/completions" }, body, CLASSES, {
    arrivalUs: nowUs,
    followed,
  })
}

function twins(mostInFlight = 100) {
  const chooser = new Twins({
    ...{ kind: BACKEND_KINDS.vllm, byPriority: false, apps: CLASSES.all.length, mostInFlight },
    ...{ probes: null, nowUs: () => 0, warn: () => {} },
  })
  chooser.setEndpoints([A, B])
  return chooser
}

/** An engine whose first token takes `prefillUs`, and every other one `stepUs`. */
function answer(sent: Sent, fromUs: number, prefillUs: number, stepUs: number, tokens: number): number {
  let nowUs = fromUs + prefillUs
  for (let n = 0; n < tokens; n++) {
    sent.tokens(1, nowUs)
    nowUs += stepUs
  }
  sent.ended("done", nowUs)
  return nowUs
}

/** Both engines have been seen to take 10 ms a step, and half a millisecond a prompt token. */
function seasoned(mostInFlight = 100) {
  const chooser = twins(mostInFlight)
  let nowUs = 0
  for (let round = 0; round < 40; round++)
    for (const endpoint of [A, B]) {
      const asked = ask({}, { nowUs, bytes: 400 + 40 * round })
      nowUs = answer(chooser.sent(asked, endpoint, nowUs), nowUs, (asked.bytes / 4) * 500, 10_000, 20) + 1000
    }
  return { chooser, nowUs }
}

it("spreads what it can promise", () => {
  const chooser = twins()
  const ends = [A, B].map(() => {
    const asked = ask()
    const [endpoint] = chooser.choose(asked, [A, B], 0)
    chooser.sent(asked, endpoint!, 0)
    return endpoint
  })
  expect(ends.sort()).toEqual([A, B])
})

it("is careful until it has seen an engine's steps", () => {
  const chooser = twins()
  for (let i = 0; i < 8; i++) {
    const [endpoint] = chooser.choose(ask(), [A, B], 0)
    expect(endpoint).toBeDefined()
    chooser.sent(ask(), endpoint!, 0)
  }
  expect(chooser.choose(ask(), [A, B], 0)).toEqual([])
})

it("promises what is in time, and holds what would not be", () => {
  const { chooser, nowUs } = seasoned()
  expect(chooser.state(A)).toEqual({ inFlight: 0, confident: true })
  const long = { nowUs, bytes: 8000 }
  chooser.sent(ask({}, long), A, nowUs)
  // A second of prompt is before it at A.
  expect(chooser.choose(ask({ ttft_ms: 300 }, { nowUs }), [A], nowUs)).toEqual([])
  expect(chooser.choose(ask({ ttft_ms: 5000 }, { nowUs }), [A], nowUs)).toEqual([A])
  expect(chooser.choose(ask({ ttft_ms: 300 }, { nowUs }), [A, B], nowUs)[0]).toBe(B)
})

it("breaks no promise for what comes later, and leaves best effort where it would wait", () => {
  const { chooser, nowUs } = seasoned()
  chooser.sent(ask({ ttft_ms: 400 }, { nowUs, bytes: 2000 }), A, nowUs)
  // Its last 450 tokens are in the second step, which is a second long where others fill it.
  chooser.sent(ask({ ttft_ms: 1500 }, { nowUs, bytes: 8000 }), A, nowUs)
  const more = ask({}, { nowUs, bytes: 8000, flex: true })
  expect(chooser.anywhere(more, [A], nowUs)).toEqual([])
  expect(chooser.anywhere(more, [A, B], nowUs)).toEqual([B, A])
})

it("leaves KV for promises to come, also where best effort is asked for", () => {
  const { chooser, nowUs } = seasoned()
  const kvTokens = 3000
  for (const endpoint of [A, B]) chooser.told(endpoint, null, { kvTokens }, nowUs)
  for (const endpoint of [A, B])
    chooser.sent(ask({}, { nowUs, bytes: 6000, tokens: 200 }), endpoint, nowUs).tokens(1, nowUs + S)
  const flex = ask({}, { nowUs: nowUs + S, bytes: 6000, flex: true })
  expect(chooser.choose(flex, [A, B], nowUs + S)).toEqual([])
  expect(
    chooser.choose(ask({}, { nowUs: nowUs + S, bytes: 400, flex: true }), [A, B], nowUs + S),
  ).toHaveLength(2)
})

it("gives up at once what not even an idle endpoint could do", () => {
  const { chooser, nowUs } = seasoned()
  const asked = ask({ ttft_ms: 100 }, { nowUs, bytes: 8000 })
  expect(chooser.hopeless(asked, nowUs + 0.1 * S, [A, B], nowUs)).toBe(true)
  expect(chooser.hopeless(asked, nowUs + 5 * S, [A, B], nowUs)).toBe(false)
  // Of an engine that was never seen nothing is known.
  expect(chooser.hopeless(asked, nowUs + 0.1 * S, [A, "c:1"], nowUs)).toBe(false)
})

it("places by load what it will not see the tokens of", () => {
  const chooser = twins(2)
  const blind = ask({ ttft_ms: 1 }, { followed: false })
  const ended: Sent[] = []
  for (let i = 0; i < 4; i++) {
    const [endpoint] = chooser.choose(blind, [A, B], 0)
    ended.push(chooser.sent(blind, endpoint!, 0))
  }
  expect(chooser.choose(blind, [A, B], 0)).toEqual([])
  expect(chooser.state(A).inFlight).toBe(0)
  let room = 0
  chooser.onRoom = () => room++
  ended[0]!.ended("done", 1)
  expect([room, chooser.choose(blind, [A, B], 0).length]).toEqual([1, 1])
})

it("returns a session to where its last round ran, and only it", () => {
  const chooser = twins()
  const round = ask({ session: "s" })
  chooser.sent(round, B, 0).ended("done", 1)
  for (let i = 0; i < 4; i++) expect(chooser.choose(round, [A, B], 2)[0]).toBe(B)
  const firsts = [0, 1].map(() => chooser.choose(ask({ session: "t" }), [A, B], 2)[0])
  expect(firsts.sort()).toEqual([A, B])
})

it("counts a request where it was served, and ends it there", () => {
  const chooser = twins()
  const sent = chooser.sent(ask(), A, 0)
  sent.servedBy(B)
  expect([chooser.state(A).inFlight, chooser.state(B).inFlight]).toEqual([0, 1])
  sent.ended("done", 1)
  sent.ended("done", 2)
  expect(chooser.state(B).inFlight).toBe(0)
})

it("learns how long prompts are from usage", () => {
  const { chooser, nowUs } = seasoned()
  const asked = ask({}, { nowUs, bytes: 4000 })
  const before = chooser.zeroLoadUs(asked, [A])
  for (let i = 0; i < 200; i++) chooser.sent(asked, B, nowUs).usage(asked.bytes / 2, 0, 1)
  expect(chooser.zeroLoadUs(asked, [A]) / before).toBeGreaterThan(1.8)
})

it("counts others' load that an engine tells of", () => {
  const { chooser, nowUs } = seasoned()
  const asked = ask({ ttft_ms: 300 }, { nowUs })
  expect(chooser.choose(asked, [A], nowUs)).toEqual([A])
  chooser.told(A, { running: 3, waiting: 20 }, {}, nowUs)
  expect(chooser.choose(asked, [A], nowUs)).toEqual([])
})
