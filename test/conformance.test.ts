/** The simulator and the server run the same schedule the same way: one random workload through src/sim and
 * through src/serve on a virtual clock with the fake engine gives the same log (docs/design.md, State machine). */
import { describe, expect, test } from "vitest"
import type { PolicyOptions } from "../src/core/options.ts"
import { POLICY_NAMES, type PolicyName } from "../src/core/policy/index.ts"
import type { Effect, EngineLimits } from "../src/core/protocol.ts"
import { fakeEngine } from "../src/engine/fake/engine.ts"
import { GREEDY } from "../src/engine/port.ts"
import { Random } from "../src/random.ts"
import { ReplicaDriver } from "../src/replica/driver.ts"
import { VirtualClock } from "../src/replica/testing.ts"
import { acceptedTokens } from "../src/sim/accepted.ts"
import { type SimRequest, simulate } from "../src/sim/simulate.ts"

const SEEDS = Number(process.env.CONFORMANCE_SEEDS ?? 720)
const FIRST = Number(process.env.CONFORMANCE_FIRST ?? 1)

const limits: EngineLimits = {
  kvTokens: 2048,
  blockTokens: 16,
  maxSequences: 8,
  maxBatchTokens: 256,
  contextTokens: 512,
  minChunkTokens: 64,
  unifiedKv: true,
}
const cost = {
  pieces: [{ step: 5000, tokens: 300, sequences: 700, slowPairs: 0.5, fastPairs: 0.1 }],
  residualSigma: 0.05,
  fastPassTokens: 64,
  unifiedKv: true,
}

const TENANT_WEIGHTS = [1, 2, 1]

/** Half of the seeds have several tenants. Arrivals on whole 10 ms, so that many things happen at once; some are cancelled, a third of these as they arrive. */
function workload(seed: number): SimRequest[] {
  const random = new Random(seed)
  const integer = (low: number, high: number) => low + Math.floor(random.uniform() * (high - low))
  const tenants = new Random(seed, "tenants")
  return Array.from({ length: integer(3, 25) }, (_, i) => {
    const id = i + 1
    const atUs = integer(0, 100) * 10_000
    const promptTokens = integer(1, 300)
    const outputTokens = integer(1, 40)
    return {
      atUs,
      outputTokens,
      ...(integer(0, 4) === 0 && { cancelAtUs: atUs + Math.max(0, integer(-30, 60)) * 10_000 }),
      spec: {
        id,
        app: integer(0, 2),
        ...(seed % 2 === 0 && { tenant: tenants.below(TENANT_WEIGHTS.length) }),
        session: -1,
        promptTokens,
        maxOutputTokens: outputTokens + integer(0, 20),
        prefix: [],
        slo: {
          ttftUs: integer(1, 20) * 100_000,
          ttftSlowdown: 0,
          tpotUs: integer(2, 20) * 10_000,
          thinkingTpotUs: 20_000,
          maxGapUs: integer(0, 3) === 0 ? 100_000 : Infinity,
        },
        tier: integer(0, 5) === 0 ? ("bestEffort" as const) : ("slo" as const),
        thinking: false,
      },
    }
  }).sort((a, b) => a.atUs - b.atUs)
}

const line = (effect: Effect, nowUs: number) => `${nowUs} ${JSON.stringify(effect)}`

const ACCEPTANCE = 0.7

/** Every third seed is autoregressive; the others speculate, by a fixed length or by choice. */
const WAYS: readonly Partial<PolicyOptions>[] = [{}, { fixedDraft: 2 }, { speculation: "on" }]
const optionsOf = (seed: number) => WAYS[seed % WAYS.length]!
const DRAFTS = /"draft":[1-9]/

function simulated(policy: PolicyName, requests: SimRequest[], seed: number): string[] {
  const log: string[] = []
  simulate({
    config: { limits, cost, policy, apps: 2, options: optionsOf(seed), tenantWeights: TENANT_WEIGHTS },
    seed,
    requests,
    check: true,
    onEffect: (effect, nowUs) => log.push(line(effect, nowUs)),
  })
  return log
}

async function served(policy: PolicyName, requests: SimRequest[], seed: number): Promise<string[]> {
  const log: string[] = []
  const clock = new VirtualClock()
  const outputTokens = (id: number) => requests[id - 1]!.outputTokens
  const acceptance = (id: number, output: number, draft: number) =>
    acceptedTokens(seed, id, output, draft, ACCEPTANCE)
  const engine = fakeEngine({ cost, limits, time: clock, outputTokens, speculate: "lookup", acceptance })
  const tenantWeights = TENANT_WEIGHTS
  const config = { limits, cost, policy, apps: 2, options: optionsOf(seed), tenantWeights }
  const driver = new ReplicaDriver({ engine, config, clock })
  driver.observe((effect, nowUs) => log.push(line(effect, nowUs)))
  for (const [i, request] of requests.entries()) {
    const { spec } = request
    clock.wakeAt(request.atUs, () => {
      driver.submit({
        ...spec,
        prompt: Int32Array.from({ length: spec.promptTokens }, (_, k) => (k * 7 + i) % 200),
        sampling: GREEDY,
        onTokens: (row) => ({ stopped: row.end, answeringFrom: -1 }),
        onEnd: () => {},
      })
    })
    if (request.cancelAtUs !== undefined) clock.wakeAt(request.cancelAtUs, () => driver.cancel(spec.id))
  }
  await clock.run()
  return log
}

describe("the server runs what the simulator runs", () => {
  test.each(POLICY_NAMES)("%s", async (policy) => {
    const seeds = Math.ceil(SEEDS / POLICY_NAMES.length)
    let speculated = 0
    for (let seed = FIRST; seed < FIRST + seeds; seed++) {
      // Ids are given in order of submission: number the requests by time.
      const requests = workload(seed).map((request, i) => ({
        ...request,
        acceptance: ACCEPTANCE,
        spec: { ...request.spec, id: i + 1 },
      }))
      const replay = `replay: CONFORMANCE_FIRST=${seed} CONFORMANCE_SEEDS=1 npx vitest run test/conformance.test.ts`
      const log = simulated(policy, requests, seed)
      expect(await served(policy, requests, seed), replay).toEqual(log)
      if (log.some((entry) => DRAFTS.test(entry))) speculated++
    }
    // Every policy speculates in one way at least; a single replayed seed need not.
    if (seeds > WAYS.length) expect(speculated).toBeGreaterThan(0)
  })
})
