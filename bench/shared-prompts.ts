/** Requests of one app behind one system prompt, the most ordinary traffic there is: what each policy keeps, what missed
 * requests wait, and how often KV is lost. Virtual time, one replica of opt-6.7b-a100. */
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import type { PolicyOptions } from "../src/core/options.ts"
import { prefillUs } from "../src/core/planner/prefill-time.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import type { Tier } from "../src/core/protocol.ts"
import { Random } from "../src/random.ts"
import { HARDWARE, limitsOf } from "../src/sim/presets.ts"
import { type SimRequest, simulate } from "../src/sim/simulate.ts"

const SEEDS = 3
const HARDWARE_NAME = "opt-6.7b-a100"
const BLOCK_TOKENS = 16
const { cost, maxBatchTokens } = HARDWARE[HARDWARE_NAME]!

interface Case {
  name: string
  requests: number
  sharedTokens: number
  /** 0: all at once. */
  ratePerSec: number
  kvTokens?: number
  tiers?: readonly Tier[]
}

const CASES: readonly Case[] = [
  { name: "chat, 3,072 shared, 24/s", requests: 400, sharedTokens: 3072, ratePerSec: 24 },
  { name: "chat, 3,072 shared, 40/s", requests: 400, sharedTokens: 3072, ratePerSec: 40 },
  { name: "121 sharers, KV of 16k", requests: 121, sharedTokens: 3072, ratePerSec: 12, kvTokens: 16_384 },
  {
    name: "121 sharers, KV of 16k, two thirds best effort",
    requests: 121,
    sharedTokens: 3072,
    ratePerSec: 12,
    kvTokens: 16_384,
    tiers: ["slo", "bestEffort", "bestEffort"],
  },
  { name: "n: 8", requests: 8, sharedTokens: 3072, ratePerSec: 0, kvTokens: 16_384 },
]

const SYSTEMS: readonly { policy: PolicyName; options: Partial<PolicyOptions> }[] = [
  { policy: "slos-serve", options: {} },
  { policy: "edf-drop", options: {} },
  { policy: "edf", options: {} },
  { policy: "qoserve", options: {} },
  ...[512, 1024, 2048].map((tokenBudget) => ({ policy: "vllm" as const, options: { tokenBudget } })),
  { policy: "vllm-priority", options: { tokenBudget: 1024 } },
]

/** Chats: TTFT 5 × the zero-load prefill of the whole prompt (as if nothing were shared), TPOT 100 ms. */
function requestsOf(
  { requests, sharedTokens, ratePerSec, tiers = ["slo"] }: Case,
  seed: number,
): SimRequest[] {
  const random = new Random(seed, "shared prompts")
  let atUs = 0
  return Array.from({ length: requests }, (_, id) => {
    if (ratePerSec > 0) atUs += Math.round(random.exponential(1e6 / ratePerSec))
    const own = Math.max(8, Math.round(random.lognormal(150, 0.8)))
    const outputTokens = Math.max(4, Math.round(random.lognormal(150, 0.7)))
    const promptTokens = sharedTokens + own
    const prefix = Array.from({ length: Math.floor(promptTokens / BLOCK_TOKENS) }, (_, block) =>
      (block + 1) * BLOCK_TOKENS <= sharedTokens ? block : 1e6 * (id + 1) + block,
    )
    const slo = {
      ttftUs: 5 * prefillUs(cost, 0, promptTokens, maxBatchTokens),
      ttftSlowdown: 0,
      tpotUs: 100_000,
      thinkingTpotUs: 100_000,
      maxGapUs: Infinity,
    }
    const tier = tiers[id % tiers.length]!
    const spec = {
      id,
      app: 0,
      session: -1,
      promptTokens,
      maxOutputTokens: 4000,
      prefix,
      slo,
      tier,
      thinking: false,
    }
    return { atUs, outputTokens, spec }
  })
}

interface Row {
  case: string
  policy: string
  /** Of the requests with an SLO, over all seeds. */
  kept: number
  total: number
  endS: number
  preemptions: number
  mostPreemptions: number
}

function run(one: Case, policy: PolicyName, options: Partial<PolicyOptions>): Row {
  const hardware = HARDWARE[HARDWARE_NAME]!
  const limits = { ...limitsOf(hardware), ...(one.kvTokens !== undefined && { kvTokens: one.kvTokens }) }
  const name = options.tokenBudget === undefined ? policy : `${policy} ${options.tokenBudget}`
  const row: Row = {
    case: one.name,
    policy: name,
    kept: 0,
    total: 0,
    endS: 0,
    preemptions: 0,
    mostPreemptions: 0,
  }
  for (let seed = 1; seed <= SEEDS; seed++) {
    const endUs = simulate({
      config: { limits, cost: hardware.cost, policy, apps: 1, options },
      requests: requestsOf(one, seed),
      seed,
      onEffect: (effect) => {
        if (effect.type !== "finished") return
        const { attained, tier, preemptions } = effect.outcome
        row.preemptions += preemptions
        row.mostPreemptions = Math.max(row.mostPreemptions, preemptions)
        if (tier !== "slo") return
        row.total++
        if (attained) row.kept++
      },
    })
    row.endS += endUs / 1e6 / SEEDS
  }
  return { ...row, endS: Number(row.endS.toFixed(2)) }
}

const { values } = parseArgs({ options: { out: { type: "string" } } })
const rows = CASES.flatMap((one) => SYSTEMS.map(({ policy, options }) => run(one, policy, options)))
console.table(
  rows.map(({ kept, total, ...row }) => ({ ...row, kept: `${((100 * kept) / total).toFixed(1)}%` })),
)
if (values.out !== undefined) writeFileSync(values.out, `${JSON.stringify(rows, null, 2)}\n`)
