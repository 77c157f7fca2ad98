/** How well a twin predicts first tokens of an engine that it sees from outside only: `node bench/twin.ts`. Virtual time, no
 * luck of the machine. */
import { fileURLToPath } from "node:url"
import { ENGINE_RULES, type EngineRulesName } from "../src/fleet/engine-rules.ts"
import { Twin } from "../src/fleet/twin.ts"
import {
  errorsOf,
  type Hidden,
  lengths,
  type Network,
  predict,
  trafficOf,
  watch,
} from "../src/fleet/twin-testing.ts"
import { HARDWARE, limitsOf } from "../src/sim/presets.ts"

const POLICIES = { vllm: "vllm", "vllm-priority": "vllm-priority", sglang: "vllm-prefill-first" } as const
const NETWORKS: Record<string, Network> = {
  exact: { delayUs: 200, jitterUs: 0, gatherUs: 1 },
  jitter: { delayUs: 1000, jitterUs: 2000, gatherUs: 1 },
  gathering: { delayUs: 1000, jitterUs: 1000, gatherUs: 40_000 },
}
/** Share of what the engine can do, roughly: mean gap between arrivals, ms. */
const CASES = [
  ["opt-6.7b-a100", 400],
  ["opt-6.7b-a100", 200],
  ["r1-distill-qwen-7b-a100", 200],
  ["qwen2.5-32b-4xa100", 400],
] as const

export interface Row {
  model: string
  engine: string
  network: string
  gapMs: number
  first50: ReturnType<typeof errorsOf>
  later: ReturnType<typeof errorsOf>
}

export function* rows(requests = 600): Generator<Row> {
  for (const [model, gapMs] of CASES) {
    for (const [engine, policy] of Object.entries(POLICIES)) {
      for (const [network, way] of Object.entries(NETWORKS)) {
        const hardware = HARDWARE[model]!
        const rules = ENGINE_RULES[engine as EngineRulesName]
        const hidden: Hidden = {
          ...{ truth: hardware.cost, policy, limits: limitsOf(hardware) },
          ...{ tokenBudget: rules.tokenBudget, noiseSigma: 0.05 },
        }
        const traffic = trafficOf({
          ...{ seed: 1, requests, gapUs: gapMs * 1000, ttftUs: 2e6 },
          promptTokens: lengths(2, 800, 0.9, 4000),
          outputTokens: lengths(3, 150, 0.8, 1500),
        })
        const seen = predict(
          new Twin({ rules: { ...rules, kvTokens: hardware.kvTokens } }),
          watch(hidden, traffic, way),
        )
        yield {
          model,
          engine,
          network,
          gapMs,
          first50: errorsOf(seen.slice(0, 50)),
          later: errorsOf(seen.slice(50)),
        }
      }
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const percent = (share: number) => `${(100 * share).toFixed(0)}%`
  console.log("| engine, model, gap | network | mean TTFT | error median | p90 | bias | first 50: median |")
  console.log("| --- | --- | --- | --- | --- | --- | --- |")
  for (const { model, engine, network, gapMs, first50, later } of rows()) {
    const { meanTtftUs, median, p90, bias } = later
    console.log(
      `| ${engine}, ${model}, ${gapMs} ms | ${network} | ${(meanTtftUs / 1000).toFixed(0)} ms | ${percent(median)} ` +
        `| ${percent(p90)} | ${percent(bias)} | ${percent(first50.median)} |`,
    )
  }
}
