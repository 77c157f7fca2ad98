/** A twin against the engine that it is the twin of: a simulated one, seen from outside only. */
import { describe, expect, test } from "vitest"
import type { CostModel } from "../core/cost.ts"
import { specOf } from "../core/testing.ts"
import { HARDWARE, limitsOf } from "../sim/presets.ts"
import { ENGINE_RULES } from "./engine-rules.ts"
import { Twin, type TwinSpec } from "./twin.ts"
import { errorsOf, type Hidden, lengths, type Network, predict, trafficOf, watch } from "./twin-testing.ts"

const HARD = HARDWARE["opt-6.7b-a100"]!
const LAN: Network = { delayUs: 500, jitterUs: 1000, gatherUs: 1 }

function hiddenOf(changes: Partial<Hidden> = {}): Hidden {
  return {
    ...{ truth: HARD.cost, policy: "vllm", limits: limitsOf(HARD), tokenBudget: 2048, noiseSigma: 0.05 },
    ...changes,
  }
}
function traffic(gapMs: number, requests = 300) {
  return trafficOf({
    ...{ seed: 1, requests, gapUs: gapMs * 1000 },
    promptTokens: lengths(2, 800, 0.9, 4000),
    outputTokens: lengths(3, 150, 0.8, 1500),
  })
}
function slower(times: number): CostModel {
  const [piece] = HARD.cost.pieces
  return { ...HARD.cost, pieces: [{ step: piece!.step! * times, tokens: piece!.tokens! * times }] }
}

describe("predicted times to the first token", () => {
  test.each([
    ["vllm at half load", "vllm", "vllm", 400, LAN, 0.12],
    ["vllm near its limit", "vllm", "vllm", 200, LAN, 0.15],
    ["vllm behind a proxy that gathers", "vllm", "vllm", 250, { ...LAN, gatherUs: 40_000 }, 0.2],
    ["sglang", "sglang", "vllm-prefill-first", 400, LAN, 0.12],
  ] as const)("%s", (_, rules, policy, gapMs, network, most) => {
    const twin = new Twin({ rules: ENGINE_RULES[rules] })
    const requests = traffic(gapMs)
    const seen = predict(
      twin,
      watch(hiddenOf({ policy, tokenBudget: twin.rules.tokenBudget }), requests, network),
    )
    expect(seen.length).toBe(requests.length)
    expect(twin.inFlight).toBe(0)
    const later = errorsOf(seen.slice(50))
    expect(later.median).toBeLessThan(most)
    expect(Math.abs(later.bias)).toBeLessThan(0.15)
  })

  test("an engine five times slower than the guess is learnt within 50 requests", () => {
    const twin = new Twin({ rules: ENGINE_RULES.vllm })
    const seen = predict(twin, watch(hiddenOf({ truth: slower(5) }), traffic(2000, 150), LAN))
    expect(errorsOf(seen.slice(50)).median).toBeLessThan(0.2)
  })
})

test("what it takes is in time, and little that would be in time is refused", () => {
  const twin = new Twin({ rules: { ...ENGINE_RULES.vllm, kvTokens: HARD.kvTokens } })
  const seen = predict(twin, watch(hiddenOf(), traffic(180, 500), LAN)).slice(100)
  const inTime = (p: (typeof seen)[number]) => p.actualUs <= 1_000_000
  const taken = seen.filter(({ offer }) => offer.takes)
  const refused = seen.filter(({ offer }) => !offer.takes)
  expect(taken.length).toBeGreaterThan(200)
  expect(refused.length).toBeGreaterThan(20)
  expect(taken.filter(inTime).length / taken.length).toBeGreaterThan(0.98)
  expect(refused.filter(inTime).length / refused.length).toBeLessThan(0.4)
})

describe("an offer", () => {
  /** A twin that has learnt its engine and is idle again. */
  function learnt(): { twin: Twin; nowUs: number } {
    const twin = new Twin({ rules: ENGINE_RULES.vllm })
    const sights = watch(hiddenOf({ noiseSigma: 0.02 }), traffic(400, 200), LAN)
    predict(twin, sights)
    return { twin, nowUs: sights.at(-1)!.atUs + 1_000_000 }
  }
  const spec = (
    id: number,
    changes: Partial<TwinSpec> = {},
    ttftUs = 1_000_000,
    tpotUs = 100_000,
  ): TwinSpec => specOf(id, { slo: { ...specOf(id).slo, ttftUs, tpotUs }, maxOutputTokens: 500, ...changes })

  test("is judged by the first token's deadline, what waited before it came here included", () => {
    const { twin, nowUs } = learnt()
    expect(twin.offer(spec(1000, { promptTokens: 4000 }), nowUs).takes).toBe(true)
    expect(twin.offer(spec(1000, { promptTokens: 4000 }, 100_000), nowUs).takes).toBe(false)
    const waited = { promptTokens: 4000, arrivalUs: nowUs - 900_000 }
    expect(twin.offer(spec(1000, waited), nowUs).takes).toBe(false)
    expect(twin.offer(spec(1000, { promptTokens: 4000, cachedTokens: 3900 }, 100_000), nowUs).takes).toBe(
      true,
    )
  })

  test("is turned down where the engine never keeps its pace", () => {
    const { twin, nowUs } = learnt()
    expect(twin.offer(spec(1000, {}, 1_000_000, 10_000), nowUs).takes).toBe(false)
    expect(twin.offer(spec(1000, {}, 1_000_000, 60_000), nowUs).takes).toBe(true)
  })

  test("is turned down where it would break the pace of a stream, unless that is late anyway", () => {
    const { twin, nowUs } = learnt()
    twin.sent(1000, spec(1000, {}, 60_000, 40_000), nowUs)
    twin.tokens(1000, 1, nowUs + 50_000)
    twin.tokens(1000, 1, nowUs + 76_000)
    const long = spec(1001, { promptTokens: 2000 })
    const offer = twin.offer(long, nowUs + 80_000)
    expect(offer.keepsOthers).toBe(false)
    expect(offer.takes).toBe(false)
    expect(twin.offer({ ...long, promptTokens: 20 }, nowUs + 80_000).takes).toBe(true)
    // A late token: nothing is promised to the stream any more.
    twin.tokens(1000, 1, nowUs + 900_000)
    expect(twin.offer(long, nowUs + 900_001).takes).toBe(true)
  })

  test("counts what others sent, as /metrics say, until it is gone", () => {
    const { twin, nowUs } = learnt()
    const short = spec(1000, {}, 250_000)
    expect(twin.offer(short, nowUs).takes).toBe(true)
    twin.metrics({ running: 40, waiting: 30 }, nowUs)
    const behind = twin.offer(short, nowUs + 1000)
    expect(behind.takes).toBe(false)
    expect(behind.queuesUs).toBeGreaterThan(500_000)
    expect(twin.snapshot(nowUs + 1000)).toMatchObject({ waiting: 30, running: 40 })
    twin.metrics({ running: 0, waiting: 0 }, nowUs + 2_000_000)
    expect(twin.offer(short, nowUs + 2_000_000).takes).toBe(true)
  })

  test("best effort is taken, but told when it would break a promise", () => {
    const { twin, nowUs } = learnt()
    twin.sent(1000, spec(1000, { promptTokens: 2000 }, 280_000), nowUs)
    const idle = { ...spec(1001, { promptTokens: 2000 }), tier: "bestEffort" as const }
    expect(twin.offer(idle, nowUs).takes).toBe(true)
    twin.tokens(1000, 1, nowUs + 200_000)
    twin.sent(1002, spec(1002, {}, 60_000, 40_000), nowUs + 200_000)
    expect(twin.offer(idle, nowUs + 201_000)).toMatchObject({ takes: true, keepsOthers: false })
  })

  test("best effort is told when it takes the KV that promises lately needed", () => {
    const kvTokens = 10_000
    const twinOf = (promises: number) => {
      // Long after what was seen to learn from.
      const { twin, nowUs: learntUs } = learnt()
      const nowUs = learntUs + 3_600_000_000
      twin.learnRules({ kvTokens })
      for (let id = 1000; id < 1000 + promises; id++) {
        twin.sent(id, spec(id, { promptTokens: 1000 }, 60_000_000, Infinity), nowUs)
        twin.tokens(id, 1, nowUs + 1000)
      }
      const ask = (promptTokens: number, atUs: number) => {
        const idle = { ...spec(2000, { promptTokens, maxOutputTokens: 10 }), tier: "bestEffort" as const }
        return twin.offer(idle, atUs).leavesRoom
      }
      return { twin, ask, nowUs: nowUs + 2000 }
    }
    const busy = twinOf(4)
    expect(busy.ask(3000, busy.nowUs)).toBe(true)
    expect(busy.ask(6000, busy.nowUs)).toBe(false)
    // Three have gone: what they held is kept free for the next ones, for some minutes.
    for (let id = 1000; id < 1003; id++) busy.twin.ended(id, busy.nowUs)
    expect(busy.ask(3000, busy.nowUs + 1000)).toBe(true)
    expect(busy.ask(6000, busy.nowUs + 1000)).toBe(false)
    expect(busy.ask(6000, busy.nowUs + 900_000_000)).toBe(true)
    // Where none were there is nothing to be kept free; and an engine that does nothing takes anything.
    const quiet = twinOf(0)
    quiet.twin.sent(1, { ...spec(1, { promptTokens: 1000 }), tier: "bestEffort" }, quiet.nowUs)
    expect(quiet.ask(7000, quiet.nowUs)).toBe(true)
    expect(quiet.ask(9000, quiet.nowUs)).toBe(false)
    expect(twinOf(0).ask(20_000, quiet.nowUs)).toBe(true)
  })

  test("few are taken while the cost model is a guess", () => {
    const twin = new Twin({ rules: ENGINE_RULES.vllm })
    const patient = (id: number) => spec(id, { promptTokens: 20 }, 60_000_000, Infinity)
    for (let id = 0; id < 4; id++) {
      expect(twin.offer(patient(id), id).takes).toBe(true)
      twin.sent(id, patient(id), id)
    }
    expect(twin.offer(patient(4), 10).takes).toBe(false)
  })

  test("an engine that stands still does not compute in its twin's mind", () => {
    const { twin, nowUs } = learnt()
    twin.sent(1000, spec(1000, { promptTokens: 1000 }), nowUs)
    // Nothing comes for a minute: what is asked then is behind it still.
    const offer = twin.offer(spec(1001, { promptTokens: 1000 }), nowUs + 60_000_000)
    expect(offer.firstTokenUs).toBeGreaterThanOrEqual(nowUs + 60_000_000)
    expect(twin.snapshot(nowUs + 60_000_000)).toMatchObject({ running: 0, waiting: 1 })
    twin.ended(1000, nowUs + 61_000_000, false)
    expect(twin.inFlight).toBe(0)
  })
})
