/** Gauges: what the server is like when /metrics is read; nothing is kept up to date in between. */
import type { monitorEventLoopDelay } from "node:perf_hooks"
import { type Aggregator, Counter, Gauge, type Registry } from "prom-client"
import type { AppSpeculation, Snapshot } from "../core/protocol.ts"
import type { TenantFigures } from "./tenant-figures.ts"

/** Whether the engine computes, and for how long it has not. */
export interface WatchSource {
  readonly state: string
  /** Steps that hung. */
  readonly trips: number
  /** Since the start, by state, µs. */
  readonly downUs: Readonly<Record<string, number>>
}

/** What there is to tell of a tenant. */
export interface TenantSource {
  readonly name: string
  readonly live: number
  readonly figures: TenantFigures
}

/** What there is to tell of a replica of a fleet. */
export interface ReplicaSource {
  readonly name: string
  readonly state: string
  readonly restarts: number
  readonly snapshot: Snapshot | null
}

export interface GaugeSources {
  /** Class names by app index. */
  classes: () => readonly string[]
  snapshot: () => Snapshot
  watch?: WatchSource
  /** Most live requests, and those that have a place. */
  queue?: { readonly limit: number; readonly taken: number }
  tenants?: () => readonly TenantSource[]
  /** Empty where there is but one. */
  replicas?: () => readonly ReplicaSource[]
  oldestMs?: () => number
  /** Event loop delay, sampled every `loopResolutionMs`. */
  loop: ReturnType<typeof monitorEventLoopDelay>
  loopResolutionMs: number
}

type Sample = readonly [labels: Record<string, string>, value: number]
type Row<T> = readonly [name: string, help: string, read: (source: T) => number]

const OWN: readonly Row<Snapshot>[] = [
  ["slos_serve_num_requests_best_effort", "Requests now in the best-effort tier.", (s) => s.bestEffort],
  ["slos_serve_kv_used_tokens", "KV in use, that of ended requests included.", (s) => s.kvUsedTokens],
  ["slos_serve_kv_cached_tokens", "KV of ended requests kept for prefix reuse.", (s) => s.kvCachedTokens],
  [
    "slos_serve_prefill_backlog_tokens",
    "Prompt tokens owed to SLO-tier requests.",
    (s) => s.prefillBacklogTokens,
  ],
]

const PER_CLASS: readonly Row<AppSpeculation>[] = [
  [
    "slos_serve_speculation_acceptance",
    "Probability that one more drafted token is accepted, as the planner counts on it.",
    (app) => app.acceptance,
  ],
  [
    "slos_serve_speculation_hit_rate",
    "Share of the draft tokens asked for that the drafter had to offer, of late.",
    (app) => app.hitRate,
  ],
  ["slos_serve_speculation_length", "Tokens verified per decode step of late.", (app) => app.length],
]

/** Of several gateway processes each sees the whole of its backends; places in the queue and tenants' requests are each one's own. */
export const WHOLE_SEEN = "max"

export function registerGauges(registry: Registry, sources: GaugeSources): void {
  const { classes, snapshot } = sources
  const gauge = (
    name: string,
    help: string,
    labelNames: string[],
    read: () => readonly Sample[],
    aggregator: Aggregator = WHOLE_SEEN,
  ) =>
    new Gauge({
      ...{ name, help, labelNames, aggregator, registers: [registry] },
      collect() {
        for (const [labels, value] of read()) this.set(labels, value)
      },
    })
  for (const [name, help, read] of OWN) gauge(name, help, [], () => [[{}, read(snapshot())]])
  for (const [name, help, read] of PER_CLASS)
    gauge(name, help, ["class"], () =>
      snapshot().speculation.flatMap((of, app) => {
        const name = classes()[app]
        return name === undefined ? [] : [[{ class: name }, read(of)] as const]
      }),
    )
  gauge("slos_serve_calibration_ratio", "Learnt actual over predicted step time.", ["batch"], () => {
    const { calibration } = snapshot()
    return ["decode", "prefill", "drafted"].map((batch, kind) => [{ batch }, calibration[kind] ?? 1])
  })
  const { queue } = sources
  if (queue !== undefined) {
    const help = "Requests that have a place in the queue, those whose prompts are being read included."
    gauge("slos_serve_queue_places_taken", help, [], () => [[{}, queue.taken]], "sum")
    gauge("slos_serve_queue_places", "Requests that the queue takes.", [], () => [[{}, queue.limit]], "sum")
  }
  const { oldestMs } = sources
  if (oldestMs !== undefined)
    gauge("slos_serve_oldest_waiting_seconds", "Longest wait for a first token so far.", [], () => [
      [{}, oldestMs() / 1000],
    ])
  if (sources.tenants !== undefined) registerTenants(registry, sources.tenants)
  if (sources.replicas !== undefined) registerReplicas(registry, sources.replicas)
  if (sources.watch !== undefined) registerWatch(registry, sources.watch)
  gauge("slos_serve_event_loop_delay_seconds", "Event loop delay since the last read.", ["percentile"], () =>
    loopDelay(sources),
  )
}

type TenantSamples = (tenant: TenantSource) => readonly Sample[]

const BY_TENANT: readonly (readonly [
  name: string,
  help: string,
  label: string | null,
  read: TenantSamples,
])[] = [
  [
    "slos_serve_tenant_requests_total",
    "Ended SLO-tier requests, by tenant and attainment of all stages.",
    "attained",
    ({ figures: { kept, missed } }) => [
      [{ attained: "true" }, kept],
      [{ attained: "false" }, missed],
    ],
  ],
  [
    "slos_serve_tenant_best_effort_requests_total",
    "Ended best-effort requests, by tenant.",
    null,
    ({ figures }) => [[{}, figures.bestEffort]],
  ],
  [
    "slos_serve_tenant_tokens_total",
    "Tokens computed for a tenant: of prompts, at their end and without those shared, and of outputs.",
    "kind",
    ({ figures: { promptTokens, outputTokens } }) => [
      [{ kind: "prompt" }, promptTokens],
      [{ kind: "output" }, outputTokens],
    ],
  ],
  [
    "slos_serve_tenant_refused_total",
    "Answers that a tenant was refused for a full queue.",
    null,
    ({ figures }) => [[{}, figures.refused]],
  ],
  [
    "slos_serve_tenant_limited_total",
    "Requests that were refused for the limits of their tenant's keys.",
    null,
    ({ figures }) => [[{}, figures.limited]],
  ],
]

function registerTenants(registry: Registry, tenants: () => readonly TenantSource[]): void {
  const registers = [registry]
  for (const [name, help, label, read] of BY_TENANT)
    new Counter({
      ...{ name, help, labelNames: ["tenant", ...(label === null ? [] : [label])], registers },
      collect() {
        this.reset()
        for (const tenant of tenants())
          for (const [labels, value] of read(tenant)) this.inc({ tenant: tenant.name, ...labels }, value)
      },
    })
  const help = "Requests of a tenant that have a place in the queue."
  new Gauge({
    ...{ name: "slos_serve_tenant_live", help, labelNames: ["tenant"], registers },
    collect() {
      for (const { name, live } of tenants()) this.set({ tenant: name }, live)
    },
  })
}

const BY_REPLICA: readonly Row<ReplicaSource>[] = [
  ["slos_serve_replica_up", "1 while a replica takes requests.", ({ state }) => (state === "ready" ? 1 : 0)],
  [
    "slos_serve_replica_running",
    "Requests in a replica's batches.",
    ({ snapshot }) => snapshot?.running ?? 0,
  ],
  [
    "slos_serve_replica_waiting",
    "Requests that wait in a replica.",
    ({ snapshot }) => snapshot?.waiting ?? 0,
  ],
]

function registerReplicas(registry: Registry, replicas: () => readonly ReplicaSource[]): void {
  new Counter({
    ...{ name: "slos_serve_replica_restarts_total", help: "Times a replica was started anew." },
    ...{ labelNames: ["replica"], aggregator: WHOLE_SEEN, registers: [registry] },
    collect() {
      this.reset()
      for (const { name, restarts } of replicas()) this.inc({ replica: name }, restarts)
    },
  })
  for (const [name, help, read] of BY_REPLICA)
    new Gauge({
      ...{ name, help, labelNames: ["replica"], aggregator: WHOLE_SEEN, registers: [registry] },
      collect() {
        this.reset()
        for (const replica of replicas()) this.set({ replica: replica.name }, read(replica))
      },
    })
}

function registerWatch(registry: Registry, watch: WatchSource): void {
  const registers = [registry]
  new Gauge({
    ...{ name: "slos_serve_engine_up", help: "1 while the engine computes, 0 while it is down.", registers },
    aggregator: WHOLE_SEEN,
    collect() {
      this.set(watch.state === "ok" ? 1 : 0)
    },
  })
  new Counter({
    ...{ name: "slos_serve_watchdog_trips_total", help: "Engine steps that hung.", registers },
    collect() {
      this.reset()
      this.inc(watch.trips)
    },
  })
  new Counter({
    name: "slos_serve_engine_down_seconds_total",
    help: "Time in which the engine was down, the present one included.",
    ...{ labelNames: ["state"], registers },
    collect() {
      this.reset()
      for (const [state, us] of Object.entries(watch.downUs)) this.inc({ state }, us / 1e6)
    },
  })
}

/** The monitor reports whole timer intervals: what exceeds the interval asked for is delay. */
function loopDelay({ loop, loopResolutionMs }: GaugeSources): Sample[] {
  const samples = [0.5, 0.99].map((quantile): Sample => {
    const delayMs = loop.percentile(100 * quantile) / 1e6 - loopResolutionMs
    return [{ percentile: String(100 * quantile) }, Math.max(0, delayMs) / 1e3]
  })
  loop.reset()
  return samples
}
