/** A made-up replica, for a process to warm up on (warm-up.ts). */
import { duplexPair } from "node:stream"
import type { SloClasses } from "../config/slo-classes.ts"
import type { CostModel } from "../core/cost.ts"
import type { PolicyOptions } from "../core/options.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { EngineLimits } from "../core/protocol.ts"
import { fakeEngine } from "../engine/fake/engine.ts"
import { GREEDY } from "../engine/port.ts"
import { ReplicaDriver } from "../replica/driver.ts"
import type { Job, JobSink } from "../replica/host.ts"
import { InProcessHost } from "../serve/in-process.ts"
import { LocalFront } from "../serve/local-front.ts"
import { resolveSlo } from "../serve/slo-resolve.ts"
import { WireHost } from "../wire/host.ts"
import { WireServer } from "../wire/server.ts"
import { messagesOf, OUTPUT_TOKENS, often, TPOT_MS, TTFT_MS, tokensOf } from "./warm-up-requests.ts"

export interface WarmUpOptions {
  classes: SloClasses
  policy: PolicyName
  policyOptions: Partial<PolicyOptions>
}

const LIMITS: EngineLimits = {
  ...{ kvTokens: 16_384, blockTokens: 16, maxSequences: 16, maxBatchTokens: 512, contextTokens: 1024 },
  ...{ minChunkTokens: 16, unifiedKv: false },
}
/** What the planner believes; steps take no time. */
const COST: CostModel = {
  pieces: [{ step: 300, tokens: 450, fastPairs: 0.7, slowPairs: 0.5, outputs: 250 }],
  ...{ residualSigma: 0.1, fastPassTokens: 16, unifiedKv: false },
}
const NO_TIME: CostModel = { ...COST, pieces: [{ step: 1 }] }

/** Takes `forMs`, or less; resolves with how many requests it was. */
export async function warmUpWorker(options: WarmUpOptions, forMs: number): Promise<number> {
  const host = await wiredReplica(options)
  try {
    return await often(forMs, (n) => computed(host, jobOf(n, options)))
  } finally {
    await host.close()
  }
}

export function madeUpReplica({ classes, policy, policyOptions }: WarmUpOptions): LocalFront {
  const engine = fakeEngine({ cost: NO_TIME, limits: LIMITS, time: "real" })
  const config = { limits: LIMITS, cost: COST, policy, apps: classes.all.length, options: policyOptions }
  return new LocalFront(engine, new ReplicaDriver({ engine, config }))
}

/** One behind a wire, as worker processes are. */
export async function wiredReplica(options: WarmUpOptions): Promise<WireHost> {
  const [near, far] = duplexPair()
  new WireServer(far, new InProcessHost(madeUpReplica(options).intake), { owned: true })
  const host = new WireHost(near, { name: "warm-up" })
  await new Promise<void>((resolve) => {
    host.onState((state) => state === "ready" && resolve())
  })
  return host
}

function computed(host: WireHost, job: Job): Promise<void> {
  return new Promise((resolve) => {
    const sink: JobSink = { tokens: () => {}, end: () => resolve() }
    void host.offer(job, TTFT_MS).then(() => host.submit(job, sink))
  })
}

function jobOf(n: number, { classes }: WarmUpOptions): Job {
  const chat = { kind: "chat", messages: messagesOf(n), tools: null, variables: {} } as const
  const slo = { ttft_ms: TTFT_MS, tpot_ms: TPOT_MS }
  return {
    ...{ id: n + 1, ageUs: 1000, choices: [{ index: 0, begun: null }] },
    generation: {
      prompt: n % 2 === 0 ? { kind: "tokens", tokens: tokensOf(n) } : chat,
      ...{ tenant: "default", maxTokens: OUTPUT_TOKENS, parseSpecial: null, stops: [] },
      ...{ singleCall: false, session: null, reasoning: null, thinkingTokens: null },
      sampling: { ...GREEDY, ignoreEos: true },
      slo: resolveSlo(classes, { slo, headers: {}, modelClass: null }),
    },
  }
}
