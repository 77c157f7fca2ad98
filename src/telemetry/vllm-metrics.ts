/** The metrics that vLLM's dashboards and gateways read, by its names, labels and buckets (vllm/v1/metrics of 0.32), where the
 * meaning is the same. Those of vLLM whose meaning this server lacks (LoRA, multi-modal caches, KV connectors) are left out. */
import { Gauge, type Registry } from "prom-client"
import type { EngineLimits, Outcome, Snapshot } from "../core/protocol.ts"
import type { ObservedStep } from "../replica/observed.ts"
import { WHOLE_SEEN } from "./gauges.ts"
import { TallyCounter, TallyHistogram } from "./tally.ts"

/** What a request asked for and got, all its answers together, once it has ended. */
export interface AskedAndGot {
  /** Answers. */
  n: number
  /** Most tokens of each; null where the request did not say. */
  maxTokens: number | null
  /** Tokens of the longest. */
  longestTokens: number
}

export interface VllmMetricsOptions {
  registry: Registry
  modelName: string
  snapshot: () => Snapshot
  /** null where none is known: a gateway's engines have their own. */
  limits?: () => EngineLimits | null
  /** Longest prompt and output together; ends the buckets of lengths. */
  contextTokens: number
}

const LATENCY_S = [
  ...[0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680],
]
const TTFT_S = [
  ...[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80],
  ...[160, 640, 2560],
]
const ITL_S = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
const ITERATION_TOKENS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384]
const PARAMS_N = [1, 2, 5, 10, 20]
const PREEMPTIONS = [1, 2, 3, 4, 5, 10, 20]
/** By vLLM's names for them; `repetition` is never seen here. */
const REASONS = ["stop", "length", "abort", "error", "repetition"] as const

type Reason = (typeof REASONS)[number]

/** A replica's or a whole fleet's: what a client sees of it is one engine. */
const ENGINE = "0"

/** 1, 2, 5, 10 … up to the context. */
export function lengthBuckets(contextTokens: number): number[] {
  const buckets: number[] = []
  for (let power = 1; ; power *= 10)
    for (const digit of [1, 2, 5]) {
      if (digit * power > contextTokens) return buckets
      buckets.push(digit * power)
    }
}

export class VllmMetrics {
  readonly #m: ReturnType<typeof create>

  constructor(options: VllmMetricsOptions) {
    this.#m = create(options)
    registerGauges(options)
  }

  preempted(): void {
    this.#m.preemptions.inc()
  }

  step(step: ObservedStep): void {
    if (step.failed) return
    this.#m.iterationTokens.observe(step.tokens)
    for (const { drafted, accepted } of step.drafts) {
      this.#m.drafts.inc()
      this.#m.draftTokens.inc(drafted)
      this.#m.acceptedTokens.inc(accepted)
    }
  }

  /** New tokens of a request; `gapUs` since those before them, undefined where these are the first. */
  tokens(count: number, gapUs: number | undefined): void {
    this.#m.generated.inc(count)
    if (gapUs === undefined) return
    this.#m.interToken.observe(gapUs / count / 1e6, count)
    this.#m.perToken.observe(gapUs / count / 1e6, count)
  }

  /** An answer ended; `reason` as in the core's effect `finished`. */
  ended(reason: string, outcome: Outcome): void {
    const m = this.#m
    m.success[reasonOf(reason)].inc()
    const { arrivalUs, startedUs, firstTokenUs, finishedUs, promptTokens, cachedTokens, outputTokens } =
      outcome
    m.prompt.inc(promptTokens)
    m.promptLength.observe(promptTokens)
    m.outputLength.observe(outputTokens)
    if (startedUs >= 0) m.queue.observe((startedUs - arrivalUs) / 1e6)
    if (startedUs >= 0) this.#cache(promptTokens, cachedTokens)
    if (firstTokenUs >= 0) m.ttft.observe((firstTokenUs - arrivalUs) / 1e6)
    if (reason !== "stop" && reason !== "length") return
    m.e2e.observe((finishedUs - arrivalUs) / 1e6)
    m.preempted.observe(outcome.preemptions)
    m.prefillComputed.observe(promptTokens - cachedTokens)
    if (firstTokenUs < 0) return
    m.prefill.observe((firstTokenUs - startedUs) / 1e6)
    m.decode.observe((finishedUs - firstTokenUs) / 1e6)
    m.inference.observe((finishedUs - startedUs) / 1e6)
    m.meanPerToken.observe(outputTokens > 1 ? (finishedUs - firstTokenUs) / (outputTokens - 1) / 1e6 : 0)
  }

  request({ n, maxTokens, longestTokens }: AskedAndGot): void {
    this.#m.paramsN.observe(n)
    this.#m.longest.observe(longestTokens)
    if (maxTokens !== null) this.#m.paramsMaxTokens.observe(maxTokens, n)
  }

  #cache(promptTokens: number, cachedTokens: number): void {
    const m = this.#m
    m.cacheQueries.inc(promptTokens)
    m.cacheHits.inc(cachedTokens)
    m.cached.inc(cachedTokens)
    m.source.local_cache_hit.inc(cachedTokens)
    m.source.local_compute.inc(promptTokens - cachedTokens)
  }
}

function reasonOf(reason: string): Reason {
  if (reason === "stop" || reason === "length") return reason
  return reason === "cancelled" ? "abort" : "error"
}

function create({ registry, modelName, contextTokens }: VllmMetricsOptions) {
  const common = { model_name: modelName, engine: ENGINE }
  const counter = (name: string, help: string) =>
    new TallyCounter({ name: `vllm:${name}_total`, help, labels: common, registry })
  const split = <K extends string>(name: string, help: string, label: string, values: readonly K[]) =>
    TallyCounter.split({ name: `vllm:${name}_total`, help, labels: common, registry }, label, values)
  const histogram = (name: string, help: string, buckets: readonly number[]) =>
    new TallyHistogram({ name: `vllm:${name}`, help, labels: common, registry }, buckets)
  const lengths = lengthBuckets(contextTokens)
  return {
    ...tokenMetrics(counter, split),
    ttft: histogram("time_to_first_token_seconds", "Time to first token, from arrival.", TTFT_S),
    interToken: histogram("inter_token_latency_seconds", "Time between output tokens.", ITL_S),
    perToken: histogram("time_per_output_token_seconds", "The same by its name in older dashboards.", ITL_S),
    meanPerToken: histogram("request_time_per_output_token_seconds", "Mean of each request.", ITL_S),
    e2e: histogram("e2e_request_latency_seconds", "From arrival to the last token.", LATENCY_S),
    queue: histogram("request_queue_time_seconds", "From arrival to the first batch.", LATENCY_S),
    prefill: histogram("request_prefill_time_seconds", "From the first batch to the first token.", LATENCY_S),
    decode: histogram("request_decode_time_seconds", "From the first token to the last.", LATENCY_S),
    inference: histogram("request_inference_time_seconds", "From the first batch to the end.", LATENCY_S),
    promptLength: histogram("request_prompt_tokens", "Prompt tokens per answer.", lengths),
    outputLength: histogram("request_generation_tokens", "Output tokens per answer.", lengths),
    prefillComputed: histogram("request_prefill_kv_computed_tokens", "Of prompts, not cached.", lengths),
    longest: histogram("request_max_num_generation_tokens", "Longest answer of each request.", lengths),
    paramsN: histogram("request_params_n", "Answers asked for.", PARAMS_N),
    paramsMaxTokens: histogram("request_params_max_tokens", "Most tokens asked for.", lengths),
    preempted: histogram("request_num_preemptions", "Preemptions per answer.", PREEMPTIONS),
    // A histogram, in spite of its name.
    iterationTokens: histogram("iteration_tokens_total", "Tokens per engine step.", ITERATION_TOKENS),
  }
}

type MakeCounter = (name: string, help: string) => TallyCounter
type MakeSplit = <K extends string>(
  name: string,
  help: string,
  label: string,
  values: readonly K[],
) => Record<K, TallyCounter>

function tokenMetrics(counter: MakeCounter, split: MakeSplit) {
  const sources = ["local_compute", "local_cache_hit", "external_kv_transfer"] as const
  return {
    generated: counter("generation_tokens", "Generated tokens."),
    prompt: counter("prompt_tokens", "Prompt tokens of ended answers."),
    source: split("prompt_tokens_by_source", "The same by where their KV came from.", "source", sources),
    cached: counter("prompt_tokens_cached", "Prompt tokens whose KV was there already."),
    cacheQueries: counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache."),
    cacheHits: counter("prefix_cache_hits", "Prompt tokens found there."),
    success: split("request_success", "Ended answers.", "finished_reason", REASONS),
    preemptions: counter("num_preemptions", "Preemptions."),
    drafts: counter("spec_decode_num_drafts", "Verified drafts."),
    draftTokens: counter("spec_decode_num_draft_tokens", "Drafted tokens."),
    acceptedTokens: counter("spec_decode_num_accepted_tokens", "Accepted draft tokens."),
  }
}

function registerGauges({ registry, modelName, snapshot, limits }: VllmMetricsOptions): void {
  const registers = [registry]
  const gauge = (name: string, help: string, read: (snapshot: Snapshot) => number, more: object = {}) => {
    const labels = { model_name: modelName, engine: ENGINE, ...more }
    return new Gauge({
      ...{ name: `vllm:${name}`, help, labelNames: Object.keys(labels), aggregator: WHOLE_SEEN, registers },
      collect() {
        this.set(labels, read(snapshot()))
      },
    })
  }
  gauge("num_requests_waiting", "Requests waiting to be processed.", ({ waiting }) => waiting)
  gauge("num_requests_running", "Requests in model execution batches.", ({ running }) => running)
  gauge("num_requests_waiting_by_reason", "All wait for room in batches.", ({ waiting }) => waiting, {
    reason: "capacity",
  })
  gauge(
    "kv_cache_usage_perc",
    "Share of the KV in use, 1 is all. What is only kept for reuse counts as free.",
    ({ kvUsedTokens, kvCachedTokens, kvCapacityTokens }) =>
      (kvUsedTokens - kvCachedTokens) / Math.max(1, kvCapacityTokens),
  )
  new Gauge({
    name: "vllm:cache_config_info",
    help: "The KV cache: tokens of a block, and blocks (not only on GPUs).",
    ...{ labelNames: ["block_size", "num_gpu_blocks", "enable_prefix_caching", "engine"], registers },
    aggregator: WHOLE_SEEN,
    collect() {
      const known = limits?.() ?? null
      this.reset()
      if (known === null) return
      const { blockTokens, kvTokens } = known
      const sizes = { block_size: blockTokens, num_gpu_blocks: Math.floor(kvTokens / blockTokens) }
      this.set({ ...sizes, enable_prefix_caching: "True", engine: ENGINE }, 1)
    },
  })
}
