/** Overloaded fleets explain each miss, and the decision log, kept apart, says the same. */
import { expect, test } from "vitest"
import { POLICY_NAMES, type PolicyName } from "../core/policy/index.ts"
import type { Account, Batch, Effect, Event, Outcome, RequestId } from "../core/protocol.ts"
import { TIME_PARTS } from "../core/time-account.ts"
import { Random } from "../random.ts"
import { simulate } from "./simulate.ts"
import { auditAccount } from "./time-audit.ts"
import type { SimRequest } from "./world.ts"

const REQUESTS = 250
const LIMITS = {
  ...{ kvTokens: 6000, blockTokens: 16, maxSequences: 24, maxBatchTokens: 512, contextTokens: 1024 },
  ...{ minChunkTokens: 1, unifiedKv: true },
}
const COST = {
  ...{ pieces: [{ step: 5000, tokens: 60 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true },
}

/** Twice what the engine can do. */
function overload(seed: number): SimRequest[] {
  const random = new Random("explained overload", seed)
  let atUs = 0
  return Array.from({ length: REQUESTS }, (_, id) => {
    atUs += Math.round(-Math.log(1 - random.uniform()) * 14_000)
    const outputTokens = random.integer(5, 60)
    const slo = {
      ...{ ttftUs: random.integer(100, 900) * 1000, ttftSlowdown: 0, thinkingTpotUs: Infinity },
      ...{ tpotUs: random.integer(15, 60) * 1000, maxGapUs: id % 3 === 0 ? 200_000 : Infinity },
    }
    const spec = {
      ...{ id, app: 0, session: -1, promptTokens: random.integer(20, 700), maxOutputTokens: 60, prefix: [] },
      ...{ slo, tier: "slo" as const, thinking: false },
    }
    return { atUs, spec, outputTokens }
  })
}

/** What the decision log says of one request, up to its first late token. */
interface Logged {
  arrivedUs: number
  /** First in a batch; in batches until then. */
  begunUs: number
  inBatchesUs: number
  preempted: number
  /** Turned down and not back: why. */
  down: string | null
  /** The same when its first late token came, and when that was. */
  lateUs: number
  downThen: string | null
  preemptedThen: number
}

/** Keeps the log of effects and events, without a look at any account. */
class DecisionLog {
  readonly of = new Map<RequestId, Logged>()
  readonly outcomes = new Map<RequestId, Outcome>()
  #batch: { batch: Batch; atUs: number } | null = null

  constructor(requests: readonly SimRequest[]) {
    for (const { spec, atUs } of requests)
      this.of.set(spec.id, {
        ...{ arrivedUs: atUs, begunUs: -1, inBatchesUs: 0, preempted: 0, down: null },
        ...{ lateUs: -1, downThen: null, preemptedThen: 0 },
      })
  }

  heard(event: Event, nowUs: number): void {
    if (event.type !== "stepDone" || this.#batch === null) return
    const { batch, atUs } = this.#batch
    this.#batch = null
    for (const { id } of batch.items) {
      const logged = this.of.get(id)!
      if (logged.lateUs < 0) logged.inBatchesUs += nowUs - atUs
    }
  }

  saw(effect: Effect, nowUs: number): void {
    if (effect.type === "run") {
      this.#batch = { batch: effect.batch, atUs: nowUs }
      for (const { id } of effect.batch.items) {
        const logged = this.of.get(id)!
        if (logged.begunUs < 0) logged.begunUs = nowUs
      }
    } else if (effect.type === "finished") this.outcomes.set(effect.id, effect.outcome)
    else if (effect.type !== "wake") this.#request(effect, nowUs)
  }

  #request(effect: Exclude<Effect, { type: "run" | "wake" }>, nowUs: number): void {
    const logged = this.of.get(effect.id)!
    if (effect.type === "demoted") logged.down = effect.reason
    else if (effect.type === "promoted") logged.down = null
    else if (effect.type === "preempted") logged.preempted++
    else if (effect.type === "token" && effect.lateUs > 0 && logged.lateUs < 0)
      Object.assign(logged, { lateUs: nowUs, downThen: logged.down, preemptedThen: logged.preempted })
  }
}

function play(
  policy: PolicyName,
  seed: number,
  changes: { depth?: number; noise?: () => number; speculation?: "on" } = {},
) {
  const requests = overload(seed)
  const log = new DecisionLog(requests)
  const { depth = 1, noise, speculation } = changes
  const options = speculation === undefined ? {} : { speculation, maxSpeculation: 4 }
  simulate({
    config: { limits: LIMITS, cost: COST, policy, apps: 1, depth, options },
    requests,
    onEffect: (effect, nowUs) => log.saw(effect, nowUs),
    onEvent: (event, nowUs) => log.heard(event, nowUs),
    ...(noise && { noise }),
  })
  return log
}

const part = (parts: readonly number[], name: (typeof TIME_PARTS)[number]) => parts[TIME_PARTS.indexOf(name)]!

function misses(log: DecisionLog): { logged: Logged; account: Account; outcome: Outcome }[] {
  return [...log.outcomes].flatMap(([id, outcome]) => {
    const account = outcome.account!
    return account.miss === null ? [] : [{ logged: log.of.get(id)!, account, outcome }]
  })
}

test.each(POLICY_NAMES)("%s: the cause of 100 misses and more is the one in the log", (policy) => {
  const all = [1, 2].flatMap((seed) => misses(play(policy, seed)))
  expect(all.length).toBeGreaterThan(100)
  for (const { logged, account, outcome } of all) {
    const { miss, decisions } = account
    const { parts, cause, objective, bound } = miss!
    expect(logged.lateUs).toBeGreaterThan(0)
    // Steps take as long as predicted, none fails, and the server takes no time.
    for (const name of ["slow", "failed", "server", "before"] as const) expect(part(parts, name)).toBe(0)
    if (objective === "ttft") {
      expect(part(parts, "queue")).toBe(logged.begunUs - logged.arrivedUs)
      const workUs = parts.reduce((sum, us) => sum + us, 0) - part(parts, "queue")
      expect(workUs).toBe(logged.lateUs - logged.begunUs)
      // What is its own is no more than the steps that it was in.
      expect(part(parts, "prefill")).toBeLessThanOrEqual(logged.inBatchesUs)
    }
    if (cause === "turnedDown")
      expect([logged.downThen, bound]).toEqual(["wontFit", expect.stringMatching(/time|memory|plan/)])
    else if (cause === "revoked") expect(logged.downThen).toBe("revoked")
    else if (logged.downThen === "wontFit") {
      const last = decisions.findLast(({ what }) => what === "turnedDown")!
      // It was given up as too late even alone: at that time not even its own work fitted.
      expect(last.bound).toBe("alone")
      const leftUs = outcome.ttftUs - last.afterUs
      expect(leftUs).toBeLessThan(5000 + 60 * outcome.promptTokens + 5000)
    } else {
      const own = part(parts, "prefill") + part(parts, "decode")
      const named = cause === "own" ? own : part(parts, cause)
      expect(
        Math.max(
          own,
          ...TIME_PARTS.filter((p) => p !== "prefill" && p !== "decode").map((p) => part(parts, p)),
        ),
      ).toBe(named)
    }
    if (part(parts, "recompute") > 0) expect(logged.preemptedThen).toBeGreaterThan(0)
  }
})

test("slow steps are named as what they are, and times add up, whatever the depth, the drafts and the luck", () => {
  let slow = 0
  for (const policy of POLICY_NAMES)
    for (const depth of [1, 2]) {
      let steps = 0
      // Every hundredth step hangs for a second.
      const noise = () => (steps++ % 100 === 50 ? 100 : 1)
      const log = play(policy, 7, { depth, noise, ...(depth === 2 && { speculation: "on" as const }) })
      for (const [id, outcome] of log.outcomes) auditAccount(outcome, `request ${id}`)
      slow += misses(log).filter(({ account }) => account.miss!.cause === "slow").length
    }
  expect(slow).toBeGreaterThan(50)
})
