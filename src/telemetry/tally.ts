/** Counters and histograms whose labels never change, fed for every token: plain numbers until /metrics is read. prom-client
 * checks and joins labels at every observation, which cost more than anything else that is done for a token's metrics. */
import type { Metric, Registry } from "prom-client"

export interface TallyOptions {
  name: string
  help: string
  labels?: Readonly<Record<string, string>>
  /** null: part of another. */
  registry: Registry | null
}

export class TallyCounter {
  #value = 0

  constructor({ labels = {}, ...options }: TallyOptions) {
    register(options, "counter", () => [{ labels, value: this.#value }])
  }

  /** One metric of which each value of this label is counted; all of them are there from the beginning. */
  static split<K extends string>(
    { labels = {}, registry, ...options }: TallyOptions,
    label: string,
    values: readonly K[],
  ): Record<K, TallyCounter> {
    const parts = values.map((value) => [value, new TallyCounter({ ...options, registry: null })] as const)
    register({ ...options, registry }, "counter", () =>
      parts.map(([value, part]) => ({ labels: { ...labels, [label]: value }, value: part.#value })),
    )
    return Object.fromEntries(parts) as Record<K, TallyCounter>
  }

  inc(by = 1): void {
    this.#value += by
  }
}

export class TallyHistogram {
  readonly #bounds: readonly number[]
  /** Below or at each bound, and above the bound before it; what is above all of them is only in the count. */
  readonly #counts: Float64Array
  #sum = 0
  #count = 0

  /** `bounds`: upper ends of its buckets, ascending. */
  constructor({ labels = {}, ...options }: TallyOptions, bounds: readonly number[]) {
    this.#bounds = bounds
    this.#counts = new Float64Array(bounds.length)
    register(options, "histogram", () => this.#samples(options.name, labels))
  }

  observe(value: number, times = 1): void {
    this.#sum += value * times
    this.#count += times
    const bounds = this.#bounds
    for (let i = 0; i < bounds.length; i++) {
      if (value > bounds[i]!) continue
      this.#counts[i] = this.#counts[i]! + times
      return
    }
  }

  #samples(name: string, labels: Readonly<Record<string, string>>): Sample[] {
    const bucket = `${name}_bucket`
    let below = 0
    const buckets = this.#bounds.map((le, i): Sample => {
      below += this.#counts[i]!
      return { metricName: bucket, labels: { le, ...labels }, value: below }
    })
    return [
      ...buckets,
      { metricName: bucket, labels: { le: "+Inf", ...labels }, value: this.#count },
      { metricName: `${name}_sum`, labels, value: this.#sum },
      { metricName: `${name}_count`, labels, value: this.#count },
    ]
  }
}

interface Sample {
  metricName?: string
  labels: Readonly<Record<string, string | number>>
  value: number
}

/** As a registry asks its metrics: by their name, and by what they say when it is read. */
function register(
  { name, help, registry }: Omit<TallyOptions, "labels">,
  type: "counter" | "histogram",
  values: () => Sample[],
): void {
  if (registry === null) return
  const metric = { name, help, type, aggregator: "sum" }
  registry.registerMetric({
    ...metric,
    get: async () => ({ ...metric, values: values() }),
  } as unknown as Metric)
}
