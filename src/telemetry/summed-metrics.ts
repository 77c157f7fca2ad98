/** The metrics of several processes as one page: each metric says itself how it is put together. What processes counted that are
 * gone stays in it as it was shown last: a counter that falls would be taken for one that began again. */
import { AggregatorRegistry, Registry } from "prom-client"

/** Plain data. */
export type MetricsJson = Awaited<ReturnType<Registry["getMetricsAsJSON"]>>

/** The page as a process answers with it. */
export interface MetricsPage {
  contentType: string
  text: string
}

/** Asks all processes for their metrics. */
export type AskMetrics = () => Promise<readonly { from: number; value: MetricsJson }[]>

export class SummedMetrics {
  readonly #ask: AskMetrics
  /** Of this process. */
  readonly #own: Registry
  /** Of each process, as shown last. */
  readonly #shown = new Map<number, MetricsJson>()
  readonly #losses = new Map<number, number>()
  #gone: MetricsJson = []

  constructor(ask: AskMetrics, own = new Registry()) {
    this.#ask = ask
    this.#own = own
  }

  async page(): Promise<MetricsPage> {
    const own = await this.#own.getMetricsAsJSON()
    const losses = new Map(this.#losses)
    // One that ended since it answered is among those that are gone by now.
    const isThere = ({ from }: { from: number }) => this.#losses.get(from) === losses.get(from)
    const said = (await this.#ask()).filter(isThere)
    for (const { from, value } of said) this.#shown.set(from, value)
    const registry = aggregated([...said.map(({ value }) => value), this.#gone, own])
    return { contentType: registry.contentType, text: await registry.metrics() }
  }

  /** The process is gone: only what it counted is left of it. */
  left(from: number): void {
    this.#losses.set(from, (this.#losses.get(from) ?? 0) + 1)
    const counted = (this.#shown.get(from) ?? []).filter(({ type }) => COUNTED.includes(String(type)))
    this.#shown.delete(from)
    this.#gone = aggregated([this.#gone, counted]).getMetricsAsArray() as unknown as MetricsJson
  }
}

const COUNTED = ["counter", "histogram"]

const aggregated = (all: readonly MetricsJson[]) => AggregatorRegistry.aggregate(all as unknown as object[])
